# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gemma 4's tensors and configurations as made-up safetensors headers: the shapes are the published ones, the bytes are not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._roofline import Tensor

BF16, FP8, NVFP4, INT4 = "BF16", "FP8", "NVFP4", "INT4"
_BYTES = {"BF16": 2, "F8_E4M3": 1, "U8": 1, "F32": 4, "I32": 4, "F16": 2}


@dataclass(frozen=True)
class Shape:
    """A Gemma 4 text decoder. C(experts) is (how many, their width), None for a dense model."""

    hidden: int
    layers: int
    full_layers: int
    heads: int
    kv_heads: int
    global_kv_heads: int
    dense: int
    experts: tuple[int, int] | None = None
    top_k: int = 0
    head_dim: int = 256
    global_head_dim: int = 512
    vocabulary: int = 262144

    def config(self) -> dict[str, Any]:
        every = self.layers // self.full_layers
        text = {
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "layer_types": ["full_attention" if number % every == every - 1 else "sliding_attention" for number in range(self.layers)],
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_global_key_value_heads": self.global_kv_heads,
            "head_dim": self.head_dim,
            "global_head_dim": self.global_head_dim,
            "sliding_window": 1024,
            "attention_k_eq_v": True,
            "tie_word_embeddings": True,
        }
        if self.experts:
            text |= {"num_experts": self.experts[0], "top_k_experts": self.top_k}
        return {"architectures": ["Gemma4ForConditionalGeneration"], "text_config": text}


MOE_26B = Shape(2816, 30, 5, 16, 8, 2, 2112, (128, 704), 8)
DENSE_31B = Shape(5376, 60, 10, 32, 16, 4, 21504)


def tensors(shape: Shape, formats: Mapping[str, str]) -> Iterator[Tensor]:
    """All tensors of a checkpoint. C(formats) has the format of each part, BF16 where it has none."""
    start = "model.language_model."
    kinds = shape.config()["text_config"]["layer_types"]
    yield from _weight("model.vision_tower.encoder.layers.0.self_attn.q_proj", 1152, 1152, BF16)
    yield from _weight(f"{start}embed_tokens", shape.vocabulary, shape.hidden, BF16)
    if "lm_head" in formats:
        yield from _weight("lm_head", shape.vocabulary, shape.hidden, formats["lm_head"])
    for number, kind in enumerate(kinds):
        layer = f"{start}layers.{number}."
        sliding = kind == "sliding_attention"
        width = shape.head_dim if sliding else shape.global_head_dim
        kv = width * (shape.kv_heads if sliding else shape.global_kv_heads)
        attention = formats.get("attention", BF16)
        yield from _weight(f"{layer}self_attn.q_proj", shape.heads * width, shape.hidden, attention)
        yield from _weight(f"{layer}self_attn.k_proj", kv, shape.hidden, attention)
        if sliding:
            yield from _weight(f"{layer}self_attn.v_proj", kv, shape.hidden, attention)
        yield from _weight(f"{layer}self_attn.o_proj", shape.hidden, shape.heads * width, attention)
        yield _tensor(f"{layer}self_attn.q_norm.weight", "BF16", width)
        yield _tensor(f"{layer}input_layernorm.weight", "BF16", shape.hidden)
        for name in ("gate_proj", "up_proj"):
            yield from _weight(f"{layer}mlp.{name}", shape.dense, shape.hidden, formats.get("dense_mlp", BF16))
        yield from _weight(f"{layer}mlp.down_proj", shape.hidden, shape.dense, formats.get("dense_mlp", BF16))
        if shape.experts:
            count, inner = shape.experts
            yield _tensor(f"{layer}router.proj.weight", "BF16", count, shape.hidden)
            for expert in range(count):
                for name in ("gate_proj", "up_proj"):
                    yield from _weight(f"{layer}experts.{expert}.{name}", inner, shape.hidden, formats.get("experts", BF16))
                yield from _weight(f"{layer}experts.{expert}.down_proj", shape.hidden, inner, formats.get("experts", BF16))


def _weight(name: str, rows: int, columns: int, kind: str) -> Iterator[Tensor]:
    if kind == NVFP4:
        # As modelopt writes it: two values a byte, a scale for every 16, one for all.
        yield _tensor(f"{name}.weight", "U8", rows, columns // 2)
        yield _tensor(f"{name}.weight_scale", "F8_E4M3", rows, columns // 16)
        yield _tensor(f"{name}.weight_scale_2", "F32")
        yield _tensor(f"{name}.input_scale", "F32")
    elif kind == INT4:
        # Eight values a word, a scale for every 128.
        yield _tensor(f"{name}.qweight", "I32", columns, rows // 8)
        yield _tensor(f"{name}.scales", "F16", columns // 128, rows)
    elif kind == FP8:
        yield _tensor(f"{name}.weight", "F8_E4M3", rows, columns)
        yield _tensor(f"{name}.weight_scale", "F32")
    else:
        yield _tensor(f"{name}.weight", kind, rows, columns)


def _tensor(name: str, dtype: str, *shape: int) -> Tensor:
    return Tensor(name, dtype, shape, prod(shape) * _BYTES[dtype])


def write(directory: Path, shape: Shape, formats: Mapping[str, str]) -> None:
    """The checkpoint as files whose tensors are holes: they take no room on the disk."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(shape.config()))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors(shape, formats):
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    head = json.dumps(entries).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + end)
