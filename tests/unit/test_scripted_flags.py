# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The scripted vLLM's command line is as strict as vLLM's."""

from __future__ import annotations

import pytest
from sim.vllm_scripted.flags import FlagError, UsageError, parse
from sim.vllm_scripted.server import ARTICLE, VERSION


def test_the_article_s_command() -> None:
    flags = parse(ARTICLE, VERSION)
    assert flags.model == "/models/gemma4"
    assert flags.served_names == ["gemma-4-26b"]
    assert flags.max_model_len == 131072
    assert flags.number("gpu-memory-utilization", 0) == 0.85
    assert flags.gemma_tools
    assert flags.gemma_reasoning


def test_a_misspelt_flag_is_refused_with_vllm_s_words() -> None:
    with pytest.raises(UsageError) as error:
        parse([*ARTICLE, "--moe-backnd", "marlin"], VERSION)
    assert error.value.text.splitlines()[-1] == "vllm: error: unrecognized arguments: --moe-backnd marlin"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["m", "--moe-backend", "marlyn"], "vllm serve: error: argument --moe-backend: invalid choice: 'marlyn'"),
        (["m", "--port", "http"], "argument --port: invalid int value: 'http'"),
        (["m", "--max-model-len", "long"], "argument --max-model-len: invalid human_readable_int value: 'long'"),
        (["m", "--speculative-config", "{method}"], "argument --speculative-config: Value {method} cannot be converted"),
        (["m", "--kv-cache-dtype"], "argument --kv-cache-dtype: expected one argument"),
        (["m", "other"], "vllm: error: unrecognized arguments: other"),
    ],
)
def test_a_wrong_value_is_refused(argv: list[str], words: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(argv, VERSION)
    assert words in error.value.text


def test_a_flag_of_a_later_version_is_unknown_before() -> None:
    with pytest.raises(UsageError):
        parse(["m", "--linear-backend", "marlin"], "0.19.1")
    assert parse(["m", "--linear-backend", "marlin"], "0.22.1").text("linear-backend") == "marlin"
    assert parse(["m", "--calculate-kv-scales"], "0.19.1").on("calculate-kv-scales")
    with pytest.raises(UsageError):
        parse(["m", "--calculate-kv-scales"], "0.32.0")


def test_the_ways_to_write_a_flag() -> None:
    argv = ["m", "--max_model_len=128k", "--served-model-name", "a", "b", "--no-enable-prefix-caching", "-tp", "2", "-cc.level", "3"]
    flags = parse([*argv, "--speculative-config", '{"method": "mtp"}'], VERSION)
    assert flags.max_model_len == 128_000
    assert flags.served_names == ["a", "b"]
    assert flags.given["enable-prefix-caching"] is False
    assert flags.given["tensor-parallel-size"] == 2
    assert flags.given["compilation-config"] == {"level": "3"}
    assert flags.given["speculative-config"] == {"method": "mtp"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["m", "--enable-auto-tool-choice"], "requires --tool-call-parser"),
        (["m", "--enable-auto-tool-choice", "--tool-call-parser", "gemma5"], "invalid tool call parser: gemma5"),
        (["m", "--reasoning-parser", "gemma5"], "invalid reasoning parser: gemma5"),
        (["m", "--gpu-memory-utilization", "1.5"], "less than or equal to 1"),
    ],
)
def test_what_vllm_notices_after_parsing(argv: list[str], words: str) -> None:
    with pytest.raises(FlagError, match=words):
        parse(argv, VERSION)
