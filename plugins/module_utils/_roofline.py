# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""How fast a checkpoint can decode at most where memory bandwidth is the limit, read from the checkpoint itself.

    limit in tok/s = requests · bandwidth / (weight bytes of one step + requests · KV bytes of one token)

One step reads every weight of the text decoder once, with three exceptions: of the experts only those that the step's tokens are routed
to, of the embedding one row a token (all of it where it is the output head, too), of vision and audio nothing. Bytes count as they lie on
the disk, scales included, so the format of every tensor is in the figure. Sources: the headers of the safetensors files (names, types,
shapes) and config.json. Gemma 4's global layers have no v_proj (attention_k_eq_v); vLLM stores and reads their k_proj twice.

Several requests share the weights of a step. With routing that is even and independent they touch n · (1 - (1 - k/n)^requests) of n
experts, k of them each; real routing is skewed and touches fewer, so the limit of several requests is a cautious one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A header of more than this is none; 46,000 tensors of a mixture of experts take 7 MB.
_HEADER_BYTES = 100_000_000
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
# In this order: the first that is found in a tensor's name says what it is.
_PARTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("other modalities", re.compile(r"vision|audio|multi_?modal|image_")),
    ("embedding", re.compile(r"embed_tokens|wte\.|tok_embeddings")),
    ("lm_head", re.compile(r"lm_head|^output\.weight")),
    ("router", re.compile(r"\.router\.|\.mlp\.gate\.|\.block_sparse_moe\.gate\.")),
    ("experts", re.compile(r"\.experts\.")),
    ("attention", re.compile(r"\.self_attn\.|\.attention\.")),
    ("dense_mlp", re.compile(r"\.mlp\.|\.shared_experts?\.")),
)
_OTHER = "norms"
# What belongs to a weight and is none: it says nothing about the weight's format.
_SCALE = re.compile(r"scale|zeros?$|g_idx|bias|norm")
_FP8 = ("F8_E4M3", "F8_E5M2")
# A second format of less than this share of a part's bytes is an exception that nobody needs to read of.
_SHARE_SHOWN = 0.05


class RooflineError(Exception):
    """The checkpoint cannot be read or understood; the message says why."""


@dataclass(frozen=True)
class Tensor:
    """One tensor as a safetensors header describes it. C(size) is in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Cache:
    """The KV cache of layers that are alike, in values per token; C(window) is None where all tokens are read."""

    values: int
    window: int | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a step reads. C(read) has bytes by part, the experts not among them."""

    read: Mapping[str, float]
    experts_bytes: float = 0.0
    experts: int = 0
    experts_used: int = 0
    caches: tuple[Cache, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)

    def weight_bytes(self, requests: int = 1) -> float:
        """Bytes of weights that one step of so many requests reads."""
        routed = 1 - (1 - self.experts_used / self.experts) ** requests if self.experts else 0.0
        return sum(self.read.values()) + self.experts_bytes * routed

    def kv_bytes(self, context: float, value_bytes: float) -> float:
        """Bytes of KV cache that one request reads for one token after a context of so many tokens."""
        return sum(cache.values * min(context, cache.window or context) for cache in self.caches) * value_bytes

    def limit_tok_s(self, bandwidth_gb_s: float, context: float, value_bytes: float, requests: int = 1) -> float:
        """Tokens per second of all requests together."""
        step = self.weight_bytes(requests) + requests * self.kv_bytes(context, value_bytes)
        return requests * bandwidth_gb_s * 1e9 / step


def kv_value_bytes(kv_cache_dtype: str) -> float:
    """Bytes of one value in the KV cache, from vLLM's flag of this name."""
    return 1.0 if kv_cache_dtype.startswith(("fp8", "int8")) else 2.0


@dataclass(frozen=True)
class Ceiling:
    """A checkpoint on a box: its memory's bandwidth in GB/s, and the bytes of one value in the KV cache."""

    checkpoint: Checkpoint
    bandwidth_gb_s: float
    value_bytes: float

    def limit_tok_s(self, context: float, requests: int = 1) -> float:
        """Tokens per second of all requests together, rounded to what a reader can use."""
        return round(self.checkpoint.limit_tok_s(self.bandwidth_gb_s, context, self.value_bytes, requests), 3)

    def describe(self, context: float) -> dict[str, Any]:
        """What one stream costs at this context, in the shape that modules return."""
        return {
            "limit_tok_s": self.limit_tok_s(context),
            "bandwidth_gb_s": self.bandwidth_gb_s,
            "weights_gb": round(self.checkpoint.weight_bytes() / 1e9, 4),
            "kv_gb": round(self.checkpoint.kv_bytes(context, self.value_bytes) / 1e9, 4),
            "context_tokens": round(context),
            "formats": dict(self.checkpoint.formats),
        }


def read(directory: str) -> Checkpoint:
    """The checkpoint in a directory. Raises RooflineError."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".safetensors"))
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as exc:
        raise RooflineError(f"no checkpoint can be read in {directory}: {exc}") from exc
    if not names:
        raise RooflineError(f"{directory} has no safetensors file")
    return understand([tensor for name in names for tensor in header(os.path.join(directory, name))], config)


def header(path: str) -> list[Tensor]:
    """The tensors of one safetensors file; only its header is read. Raises RooflineError."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _HEADER_BYTES:
                raise RooflineError(f"{path} is no safetensors file")
            entries = json.loads(file.read(length))
        return [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in entries.items()
            if name != "__metadata__"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise RooflineError(f"the header of {path} cannot be read: {exc}") from exc


def understand(tensors: Iterable[Tensor], config: Mapping[str, Any]) -> Checkpoint:
    """What a step reads of these tensors. Raises RooflineError."""
    text: Mapping[str, Any] = config.get("text_config") or config
    parts: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        parts.setdefault(part(tensor.name), []).append(tensor)
    if "attention" not in parts:
        raise RooflineError("its tensors have no attention layers that are known here")
    stored = {name: float(sum(tensor.size for tensor in group)) for name, group in parts.items()}
    formats = {name: _format(group) for name, group in parts.items() if name not in ("other modalities", _OTHER)}
    stored.pop("other modalities", None)
    stored["attention"] += _keys_read_twice(parts["attention"])
    embedding = stored.pop("embedding", 0.0)
    if "lm_head" not in stored:
        # Tied: the embedding is the output head.
        stored["lm_head"], formats["lm_head"] = embedding, formats.get("embedding", "")
    formats.pop("embedding", None)
    experts_bytes = stored.pop("experts", 0.0)
    experts = _number(text, "num_experts", "num_local_experts", "n_routed_experts") if experts_bytes else 0
    used = _number(text, "top_k_experts", "num_experts_per_tok") if experts_bytes else 0
    if experts_bytes and not (experts and used):
        raise RooflineError("config.json does not say how many experts there are and how many of them a token uses")
    return Checkpoint(stored, experts_bytes, experts, used, _caches(text), formats)


def part(name: str) -> str:
    """What a tensor belongs to."""
    return next((known for known, pattern in _PARTS if pattern.search(name)), _OTHER)


def _keys_read_twice(attention: Iterable[Tensor]) -> float:
    """Bytes of the k_proj of layers without v_proj."""
    keys: dict[str, float] = {}
    values = set()
    for tensor in attention:
        found = _LAYER.search(tensor.name)
        if not found:
            continue
        if ".k_proj" in tensor.name:
            keys[found[1]] = keys.get(found[1], 0.0) + tensor.size
        elif ".v_proj" in tensor.name or "qkv_proj" in tensor.name:
            values.add(found[1])
    return sum(size for layer, size in keys.items() if layer not in values)


def _format(group: Iterable[Tensor]) -> str:
    """The formats of a part's weights, the most bytes first."""
    sizes: dict[str, int] = {}
    scales = set()
    for tensor in group:
        if _SCALE.search(tensor.name.rpartition(".")[2]) or _SCALE.search(tensor.name.rpartition(".")[0].rpartition(".")[2]):
            scales.add(tensor.dtype)
        else:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    total = sum(sizes.values())
    shown = sorted((dtype for dtype, size in sizes.items() if size >= _SHARE_SHOWN * total), key=lambda dtype: -sizes[dtype])
    return "+".join(_named(dtype, scales) for dtype in shown)


def _named(dtype: str, scales: set[str]) -> str:
    """A type by the name of the format that it carries: four-bit weights lie packed in bytes or words."""
    if dtype == "U8":
        return "NVFP4" if scales & set(_FP8) else "MXFP4" if "U8" in scales else "U8"
    if dtype in _FP8:
        return "FP8"
    return "INT4" if dtype == "I32" else dtype


def _caches(text: Mapping[str, Any]) -> tuple[Cache, ...]:
    """The KV cache by kind of layer: keys and values of every KV head."""
    layers = _number(text, "num_hidden_layers")
    heads = _number(text, "num_attention_heads") or 1
    kinds = list(text.get("layer_types") or ["full_attention"] * layers)
    kv_heads = _number(text, "num_key_value_heads") or heads
    width = _number(text, "head_dim") or _number(text, "hidden_size") // heads
    # Gemma 4's global layers have heads of their own; older files of transformers say so by layer, newer ones by name.
    wide = _number(text, "global_head_dim") or width
    few = _number(text, "num_global_key_value_heads") or kv_heads
    single: Mapping[str, Any] = text.get("per_layer_config") or {}
    window = _number(text, "sliding_window") or None
    values: dict[int | None, int] = {}
    for number, kind in enumerate(kinds):
        sliding = kind == "sliding_attention"
        own = single.get(str(number)) or {}
        each = (_number(own, "num_key_value_heads") or (kv_heads if sliding else few)) * (
            _number(own, "head_dim") or (width if sliding else wide)
        )
        reach = window if sliding else None
        values[reach] = values.get(reach, 0) + 2 * each
    return tuple(Cache(count, reach) for reach, count in values.items())


def _number(source: Mapping[str, Any], *names: str) -> int:
    """The first of these keys that has a number, else 0."""
    return next((int(source[name]) for name in names if isinstance(source.get(name), int)), 0)
