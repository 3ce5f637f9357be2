# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The memory-bound limit of published checkpoints, on their tensors' shapes.

Expected figures: gigabytes a token and the limits at 273 GB/s (specified) and 232 GB/s (measured read bandwidth of a GB10,
github.com/antirez/ds4/issues/773), calculated by hand from the published configurations.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _roofline
from ansible_collections.dgx.spark.plugins.module_utils._roofline import Checkpoint, RooflineError, Tensor, kv_value_bytes, understand
from unit.checkpoints import BF16, DENSE_31B, FP8, INT4, MOE_26B, NVFP4, Shape, tensors, write

ALL_NVFP4 = {"attention": NVFP4, "dense_mlp": NVFP4, "experts": NVFP4}
ALL_FP8 = {"attention": FP8, "dense_mlp": FP8, "experts": FP8}


def checkpoint(shape: Shape, formats: dict[str, str]) -> Checkpoint:
    return understand(tensors(shape, formats), shape.config())


@pytest.fixture(scope="module")
def article() -> Checkpoint:
    """bg-digitalservices' checkpoint: all linears NVFP4, router and lm_head BF16."""
    return checkpoint(MOE_26B, ALL_NVFP4)


@pytest.mark.parametrize(
    ("shape", "formats", "gigabytes", "specified", "measured"),
    [
        (MOE_26B, ALL_NVFP4, 3.235, 83.2, 70.7),
        (MOE_26B, {"experts": NVFP4}, 5.621, 48.2, 40.9),
        (MOE_26B, {"experts": NVFP4, "dense_mlp": NVFP4}, 4.851, 55.7, 47.4),
        (MOE_26B, ALL_FP8, 4.585, 58.9, 50.1),
        (MOE_26B, {}, 7.672, 35.4, 30.0),
        (MOE_26B, {**ALL_NVFP4, "lm_head": FP8}, 2.496, 107.3, 91.2),
        (MOE_26B, {**ALL_NVFP4, "lm_head": NVFP4}, 2.173, 122.9, 104.4),
    ],
    ids=["bg", "nvidia", "experts-and-mlp", "fp8", "bf16", "fp8-head", "nvfp4-head"],
)
def test_a_mixture_of_experts_is_limited_by_what_a_token_reads(
    shape: Shape, formats: dict[str, str], gigabytes: float, specified: float, measured: float
) -> None:
    found = checkpoint(shape, formats)
    assert found.weight_bytes() / 1e9 == pytest.approx(gigabytes, abs=0.002)
    assert found.limit_tok_s(273, 430, 1) == pytest.approx(specified, abs=0.1)
    assert found.limit_tok_s(232, 430, 1) == pytest.approx(measured, abs=0.1)


@pytest.mark.parametrize(
    ("formats", "gigabytes", "specified", "measured"),
    [
        ({}, 61.5, 4.4, 3.8),
        ({"dense_mlp": NVFP4}, 31.7, 8.6, 7.3),
        ({"attention": NVFP4, "dense_mlp": NVFP4}, 19.4, 14.1, 12.0),
        ({"attention": INT4, "dense_mlp": INT4}, 18.0, 15.2, 12.9),
    ],
    ids=["bf16", "nvidia", "nvfp4", "awq"],
)
def test_the_dense_31b_is_slow_whatever_its_format(formats: dict[str, str], gigabytes: float, specified: float, measured: float) -> None:
    found = checkpoint(DENSE_31B, formats)
    assert found.weight_bytes() / 1e9 == pytest.approx(gigabytes, rel=0.01)
    assert 273e9 / found.weight_bytes() == pytest.approx(specified, abs=0.1)
    assert 232e9 / found.weight_bytes() == pytest.approx(measured, abs=0.1)


def test_the_articles_52_is_62_5_percent_of_the_limit(article: Checkpoint) -> None:
    assert 52 / article.limit_tok_s(273, 430, 1) == pytest.approx(0.625, abs=0.001)
    assert 52 / article.limit_tok_s(232, 430, 1) == pytest.approx(0.736, abs=0.001)


@pytest.mark.parametrize(
    ("context", "specified", "measured"), [(8192, 79.7, 67.8), (32768, 74.3, 63.1), (830, 82.0, 69.7)], ids=["8k", "32k", "long-run"]
)
def test_a_longer_context_costs_its_kv_cache(article: Checkpoint, context: int, specified: float, measured: float) -> None:
    assert article.limit_tok_s(273, context, 1) == pytest.approx(specified, abs=0.15)
    assert article.limit_tok_s(232, context, 1) == pytest.approx(measured, abs=0.15)


def test_the_kv_cache_is_that_of_the_windows_and_of_the_global_layers(article: Checkpoint) -> None:
    assert article.kv_bytes(430, 1) / 1e9 == pytest.approx(0.048, abs=0.001)
    assert article.kv_bytes(1, 1) == 102_400 + 10_240
    # Beyond the window only the global layers read more.
    assert article.kv_bytes(5000, 1) - article.kv_bytes(4999, 1) == 10_240
    assert article.kv_bytes(430, kv_value_bytes("auto")) == 2 * article.kv_bytes(430, kv_value_bytes("fp8_e4m3"))


@pytest.mark.parametrize(
    ("requests", "gigabytes", "specified", "measured"), [(3, 4.69, 170.8, 145.2), (8, None, 277, 235)], ids=["three", "eight"]
)
def test_requests_share_the_weights_and_spread_over_the_experts(
    article: Checkpoint, requests: int, gigabytes: float | None, specified: float, measured: float
) -> None:
    assert gigabytes is None or article.weight_bytes(requests) / 1e9 == pytest.approx(gigabytes, abs=0.01)
    assert article.limit_tok_s(273, 300, 1, requests) == pytest.approx(specified, rel=0.002)
    assert article.limit_tok_s(232, 300, 1, requests) == pytest.approx(measured, rel=0.002)


def test_the_formats_are_told_by_part(article: Checkpoint) -> None:
    assert article.formats == {"attention": NVFP4, "dense_mlp": NVFP4, "experts": NVFP4, "router": BF16, "lm_head": BF16}
    assert checkpoint(MOE_26B, {"experts": NVFP4, "lm_head": FP8}).formats == {
        "attention": BF16,
        "dense_mlp": BF16,
        "experts": NVFP4,
        "router": BF16,
        "lm_head": FP8,
    }
    assert checkpoint(DENSE_31B, {"dense_mlp": INT4}).formats["dense_mlp"] == INT4


def test_fused_experts_count_as_those_of_single_files() -> None:
    config = {"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 8, "num_experts": 8, "top_k_experts": 2}
    fused = [
        Tensor("model.layers.0.experts.gate_up_proj", "BF16", (8, 4, 8), 512),
        Tensor("model.layers.0.self_attn.qkv_proj.weight", "BF16", (8, 8), 128),
        Tensor("model.embed_tokens.weight", "BF16", (16, 8), 256),
    ]
    assert understand(fused, config).weight_bytes() == 512 / 4 + 128 + 256


def test_heads_that_are_said_by_layer_are_understood() -> None:
    config = {
        **{"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 256, "head_dim": 64, "num_key_value_heads": 2},
        **{"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 1024},
        "per_layer_config": {"1": {"head_dim": 128, "num_key_value_heads": 1}},
    }
    attention = [Tensor("model.layers.0.self_attn.q_proj.weight", "BF16", (1,), 2)]
    assert understand(attention, config).kv_bytes(10, 2) == 10 * 2 * (2 * 2 * 64 + 2 * 1 * 128)


def test_a_checkpoint_on_the_disk_is_read_by_its_headers(tmp_path: Path) -> None:
    write(tmp_path, MOE_26B, ALL_NVFP4)
    assert _roofline.read(str(tmp_path)).weight_bytes() / 1e9 == pytest.approx(3.235, abs=0.002)


def _config(tmp_path: Path, content: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(RooflineError, match="no checkpoint can be read"):
        _roofline.read(str(tmp_path / "nowhere"))
    _config(tmp_path, {})
    with pytest.raises(RooflineError, match="has no safetensors file"):
        _roofline.read(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"<html>this is not it</html>")
    with pytest.raises(RooflineError, match="is no safetensors file"):
        _roofline.read(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"[1, 2, 3]")
    with pytest.raises(RooflineError, match="the header of .* cannot be read"):
        _roofline.read(str(tmp_path))
    attention = Tensor("model.layers.0.self_attn.q_proj.weight", "BF16", (1,), 2)
    with pytest.raises(RooflineError, match="how many experts"):
        understand([attention, Tensor("model.layers.0.experts.0.up_proj.weight", "U8", (1,), 1)], {})
    with pytest.raises(RooflineError, match="no attention"):
        understand([Tensor("blk.0.ffn", "BF16", (1,), 2)], {})
