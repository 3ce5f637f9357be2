# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The model repositories that the lab's Hub serves.

The stand-in of the article's checkpoint has its file names, its config.json (the values that matter) and safetensors whose
headers carry Gemma 4 26B's tensor names and types, with 8 of 128 experts and tiny shapes: 3.6 MB instead of 16.5 GB. No
byte of it comes from the real checkpoint. The same bytes come out on every machine.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sim.names import HUB_REPOS, TINY_GEMMA4

ARTICLE = "bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4"
TINY = "dgx-spark/tiny-gemma4"
GATED = "dgx-spark/gated"
DRAFT = "dgx-spark/draft"

LAYERS = 30
EXPERTS = 8
SHARDS = 2
BYTES = {"U8": 1, "F8_E4M3": 1, "BF16": 2, "F32": 4}
# Stand-ins for the real dimensions, small but with the factors that NVFP4 needs (16 values share a scale).
HIDDEN, MLP, MOE, VOCABULARY = 64, 48, 48, 16384

Tensors = dict[str, tuple[str, list[int]]]

PATCH = '''"""Stand-in for the patched gemma4.py of the checkpoint: it maps NVFP4 scale keys to FusedMoE's parameters."""

SUFFIXES = ("weight", "weight_scale", "weight_scale_2", "input_scale")
SHARDS = (("gate_proj", "w13", "w1"), ("up_proj", "w13", "w3"), ("down_proj", "w2", "w2"))


def expert_params_mapping(experts):
    """(parameter, checkpoint key, expert, shard) for every tensor of every expert."""
    return [
        (f"experts.{fused}_{suffix}", f"experts.{expert}.{projection}.{suffix}", expert, shard)
        for expert in range(experts)
        for projection, fused, shard in SHARDS
        for suffix in SUFFIXES
    ]
'''

TEMPLATE = b"""{% for message in messages %}<|turn>{{ message.role }}
{{ message.content }}<turn|>
{% endfor %}<|turn>model
"""


def _is_global(layer: int) -> bool:
    return layer % 6 == 5


def config() -> dict[str, Any]:
    """config.json of Gemma 4 26B-A4B in NVFP4, as far as it says how many bytes a token costs."""
    text = {
        "model_type": "gemma4_text",
        "dtype": "bfloat16",
        "hidden_size": 2816,
        "num_hidden_layers": LAYERS,
        "layer_types": ["full_attention" if _is_global(layer) else "sliding_attention" for layer in range(LAYERS)],
        "sliding_window": 1024,
        "num_attention_heads": 16,
        "head_dim": 256,
        "num_key_value_heads": 8,
        "global_head_dim": 512,
        "num_global_key_value_heads": 2,
        "attention_k_eq_v": True,
        "intermediate_size": 2112,
        "enable_moe_block": True,
        "num_experts": 128,
        "top_k_experts": 8,
        "moe_intermediate_size": 704,
        "vocab_size": 262144,
        "tie_word_embeddings": True,
        "max_position_embeddings": 262144,
        "final_logit_softcapping": 30.0,
        "rms_norm_eps": 1e-06,
    }
    return {
        "architectures": ["Gemma4ForConditionalGeneration"],
        "model_type": "gemma4",
        "dtype": "bfloat16",
        "tie_word_embeddings": True,
        "bos_token_id": 2,
        "eos_token_id": [1, 106],
        "pad_token_id": 0,
        "text_config": text,
    }


QUANTIZATION = {
    "producer": {"name": "modelopt", "version": "0.43.0"},
    "quantization": {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "exclude_modules": ["lm_head", "model.embed_vision*", "model.language_model.layers.*.router*", "model.vision_tower*"],
    },
}


def _nvfp4(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    yield f"{name}.weight", ("U8", [rows, columns // 2])
    yield f"{name}.weight_scale", ("F8_E4M3", [rows, columns // 16])
    yield f"{name}.weight_scale_2", ("F32", [])
    yield f"{name}.input_scale", ("F32", [])


def _layer(layer: int) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    prefix = f"model.language_model.layers.{layer}"
    heads, kv = (128, 32) if _is_global(layer) else (64, 32)
    yield from _nvfp4(f"{prefix}.self_attn.q_proj", heads, HIDDEN)
    yield from _nvfp4(f"{prefix}.self_attn.k_proj", kv, HIDDEN)
    if not _is_global(layer):  # global layers use K as V
        yield from _nvfp4(f"{prefix}.self_attn.v_proj", kv, HIDDEN)
    yield from _nvfp4(f"{prefix}.self_attn.o_proj", HIDDEN, heads)
    for norm in ("q_norm", "k_norm"):
        yield f"{prefix}.self_attn.{norm}.weight", ("BF16", [16])
    for projection in ("gate_proj", "up_proj"):
        yield from _nvfp4(f"{prefix}.mlp.{projection}", MLP, HIDDEN)
    yield from _nvfp4(f"{prefix}.mlp.down_proj", HIDDEN, MLP)
    yield f"{prefix}.router.proj.weight", ("BF16", [EXPERTS, HIDDEN])
    yield f"{prefix}.router.scale", ("BF16", [HIDDEN])
    yield f"{prefix}.router.per_expert_scale", ("BF16", [EXPERTS])
    for expert in range(EXPERTS):
        for projection in ("gate_proj", "up_proj"):
            yield from _nvfp4(f"{prefix}.moe.experts.{expert}.{projection}", MOE, HIDDEN)
        yield from _nvfp4(f"{prefix}.moe.experts.{expert}.down_proj", HIDDEN, MOE)
    for norm in ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"):
        yield f"{prefix}.{norm}.weight", ("BF16", [HIDDEN])
    for norm in ("post_feedforward_layernorm_1", "pre_feedforward_layernorm_2", "post_feedforward_layernorm_2"):
        yield f"{prefix}.{norm}.weight", ("BF16", [HIDDEN])
    yield f"{prefix}.layer_scalar", ("BF16", [1])


def shards() -> list[Tensors]:
    """The tensors of each shard: name → type and shape."""
    first: Tensors = {"model.language_model.embed_tokens.weight": ("BF16", [VOCABULARY, HIDDEN // 2])}
    half = LAYERS // SHARDS
    for layer in range(half):
        first |= dict(_layer(layer))
    second: Tensors = {}
    for layer in range(half, LAYERS):
        second |= dict(_layer(layer))
    second["model.language_model.norm.weight"] = ("BF16", [HIDDEN])
    return [first, second]


def safetensors(tensors: Tensors, seed: str) -> bytes:
    """A safetensors file: the header's length (u64, little endian), the header, the data (noise from the seed)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (kind, shape) in tensors.items():
        end = position + math.prod(shape) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + random.Random(seed).randbytes(position)


def _tokenizer() -> dict[str, Any]:
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(chr(code) for code in range(32, 127))]
    special = [
        {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, word in enumerate(words[:4])
    ]
    vocabulary = {word: i for i, word in enumerate(words)}
    model: dict[str, Any] = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "vocab": vocabulary, "merges": []}
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", "added_tokens": special, "model": model, **absent}


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def article() -> dict[str, bytes]:
    """The files of the stand-in of the article's checkpoint: path → content."""
    weight_map: dict[str, str] = {}
    files: dict[str, bytes] = {}
    size = 0
    for number, tensors in enumerate(shards(), start=1):
        name = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        files[name] = safetensors(tensors, name)
        weight_map |= dict.fromkeys(tensors, name)
        size += sum(math.prod(shape) * BYTES[kind] for kind, shape in tensors.values())
    return {
        **files,
        ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\ntokenizer.json filter=lfs diff=lfs merge=lfs -text\n",
        "README.md": b"# A stand-in\n\nThis is not the checkpoint: it is what the simulated lab of dgx.spark serves under its name.\n",
        "chat_template.jinja": TEMPLATE,
        "config.json": _json(config()),
        "gemma4_patched.py": PATCH.encode(),
        "generation_config.json": _json({"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, 106]}),
        "hf_quant_config.json": _json(QUANTIZATION),
        "model.safetensors.index.json": _json({"metadata": {"total_size": size}, "weight_map": weight_map}),
        "tokenizer.json": _json(_tokenizer()),
        "tokenizer_config.json": _json({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}),
    }


def gated() -> dict[str, bytes]:
    """The files of a repository that wants a token."""
    tensors: Tensors = {"model.embed_tokens.weight": ("BF16", [256, 64])}
    return {"config.json": _json({"model_type": "gemma4_text", "vocab_size": 256}), "model.safetensors": safetensors(tensors, GATED)}


def draft() -> dict[str, bytes]:
    """The files of a stand-in of a draft model: an assistant that a recipe mounts beside its model."""
    tensors: Tensors = {"model.embed_tokens.weight": ("BF16", [256, 64]), "model.norm.weight": ("BF16", [64])}
    return {
        "README.md": b"# A stand-in of a draft model\n",
        "config.json": _json({"model_type": "gemma4_assistant", "vocab_size": 256}),
        "model.safetensors": safetensors(tensors, DRAFT),
    }


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Make the folder have exactly these files; what is the same already is not touched."""
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_bytes(content)
        new.replace(path)


def _mirror(source: Path, target: Path) -> None:
    """Make the flat folder `target` have the files of `source`; what is the same already is not touched."""
    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in source.iterdir() if path.is_file()} if source.is_dir() else set()
    for path in target.iterdir():
        if path.name not in names:
            path.unlink()
    for name in names:
        old, new = source / name, target / name
        if new.exists() and (new.stat().st_size, new.stat().st_mtime_ns) == (old.stat().st_size, old.stat().st_mtime_ns):
            continue
        copy = new.with_name(name + ".new")
        shutil.copy2(old, copy)
        copy.chmod(0o644)
        copy.replace(new)


def ensure(root: Path = HUB_REPOS, tiny: Path = TINY_GEMMA4) -> None:
    """All repositories lie below `root`; the tiny model only when it was trained."""
    write(root / ARTICLE, article())
    write(root / GATED, gated())
    write(root / DRAFT, draft())
    if (tiny / "model.safetensors").exists():
        _mirror(tiny, root / TINY)
