# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The repositories that the lab's Hub serves."""

from __future__ import annotations

import ast
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from sim import repos


def header(content: bytes) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and how many bytes of data follow it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), len(content) - 8 - length


def test_the_shards_are_valid_safetensors() -> None:
    for name, content in repos.article().items():
        if not name.endswith(".safetensors"):
            continue
        tensors, size = header(content)
        assert tensors.pop("__metadata__") == {"format": "pt"}
        position = 0
        for tensor in tensors.values():
            begin, end = tensor["data_offsets"]
            assert begin == position
            assert end - begin == math.prod(tensor["shape"]) * repos.BYTES[tensor["dtype"]]
            position = end
        assert position == size
        megabytes = len(content) / 1e6
        assert 0.9 < megabytes < 4


def test_the_index_names_every_tensor_of_every_shard() -> None:
    files = repos.article()
    index = json.loads(files["model.safetensors.index.json"])
    named = {name: set(header(files[name])[0]) - {"__metadata__"} for name in set(index["weight_map"].values())}
    assert {tensor: name for name, tensors in named.items() for tensor in tensors} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(header(files[name])[1] for name in named)


def test_the_names_are_those_of_gemma_4() -> None:
    tensors = {name for shard in repos.shards() for name in shard}
    assert {
        f"model.language_model.layers.3.moe.experts.7.down_proj.{s}" for s in ("weight", "weight_scale", "weight_scale_2", "input_scale")
    } <= tensors
    assert "model.language_model.layers.4.self_attn.v_proj.weight" in tensors
    assert "model.language_model.layers.5.self_attn.v_proj.weight" not in tensors  # a global layer: K is V
    assert not [name for name in tensors if "lm_head" in name]  # tied to the embedding


def test_the_patch_is_python() -> None:
    ast.parse(repos.article()["gemma4_patched.py"])


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    (tiny / "model.safetensors").write_bytes(b"weights")
    root = tmp_path / "hub"
    repos.ensure(root, tiny)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    repos.ensure(root, tiny)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before

    (root / repos.ARTICLE / "config.json").write_text("spoilt")
    (root / repos.ARTICLE / "stray").write_text("stray")
    (tiny / "model.safetensors").write_bytes(b"others!")
    os.utime(tiny / "model.safetensors", ns=(1, 1))
    repos.ensure(root, tiny)
    assert json.loads((root / repos.ARTICLE / "config.json").read_text()) == repos.config()
    assert not (root / repos.ARTICLE / "stray").exists()
    assert (root / repos.TINY / "model.safetensors").read_bytes() == b"others!"
