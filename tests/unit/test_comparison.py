# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The comparison of vLLM with Ollama: what the document and the table say of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils._recipe import load
from ansible_collections.dgx.spark.plugins.plugin_utils._comparison import document, lines

RECIPES = Path(__file__).parents[2] / "roles/recipe/vars"
SPLIT = {"name": "gemma4:26b", "cpu_percent": 66, "gpu_percent": 34}


def recipe(name: str, engine: str) -> dict[str, Any]:
    return load(yaml.safe_load((RECIPES / f"{name}.yml").read_text()), "/srv/models", engine)


def measured(decode: float | None, ttft: float, aggregate: float, alone: float, why: str = "", **throughput: Any) -> dict[str, Any]:
    """One side, in the modules' shapes."""
    sequential = {"decode_tok_s": {"mean": decode}, "e2e_tok_s": {"mean": alone}, "ttft_ms": {"mean": ttft}}
    return {
        "throughput": {"sequential": sequential, "parallel": {"aggregate_tok_s": aggregate}, "notes": [], **throughput},
        "tools": {"probes": [{"name": "tool_call", "ok": not why, "why": why}]},
    }


def vllm(decode: float | None = 51.6, **throughput: Any) -> dict[str, Any]:
    return measured(decode, 53.0, 114.6, 51.2, **throughput)


def ollama(decode: float = 40.0, loaded: Any = (), after: Any = (), aggregate: float = 39.4) -> dict[str, Any]:
    side = measured(decode, 102.0, aggregate, 39.6, why="HTTP 400: it does not support tools")
    model = {"name": "gemma4:26b", "size": 17_000_000_000, "quantization": "Q4_K_M"}
    return side | {"loaded": {"models": [model], "split": list(loaded)}, "after": {"models": [model], "split": list(after)}}


def compared(vllm_side: dict[str, Any], ollama_side: dict[str, Any], failure: str = "", **evidence: Any) -> dict[str, Any]:
    spark = {"model": {"bytes": 16_520_000_000}, "evidence": {"startup": {"kv_cache_memory_gib": 81.8}, **evidence}}
    return document(
        spark,
        box="spark-1",
        recipe=recipe("gemma4-26b-a4b-nvfp4", "vllm"),
        ollama_recipe=recipe("gemma4-26b-ollama", "ollama"),
        workload={"parallel": {"requests": 3, "tokens": 300}},
        vllm=vllm_side,
        ollama=ollama_side,
        failure=failure,
    )


def row(comparison: dict[str, Any], label: str) -> list[str]:
    """The cells of a row: vLLM's and Ollama's."""
    (line,) = [line for line in lines(comparison) if line.startswith(label)]
    return [cell.strip() for cell in line.removeprefix(label).split("  ") if cell.strip()]


def test_the_articles_table() -> None:
    assert lines(compared(vllm(), ollama())) == [
        "                                vLLM NVFP4             Ollama Q4_K_M",
        "------------------------------  ---------------------  -----------------------------",
        "decode, tok/s                   51.6                   40.0",
        "TTFT, ms                        53.0                   102.0",
        "aggregate at 3 parallel, tok/s  114.6                  39.4",
        "model size, GB                  16.5                   17.0",
        "KV cache available, GiB         81.8                   N/A",
        "concurrent requests             yes (2.2 x one alone)  no, in turn (1.0 x one alone)",
        "tool calling                    yes                    no",
        "share of the memory limit       unknown                unknown",
        "",
        "Ollama, tool calling: HTTP 400: it does not support tools",
        "vLLM wins by 29 % (51.6 against 40.0 tok/s).",
    ]


@pytest.mark.parametrize(
    ("rate", "winner", "sentence"),
    [
        (40.0, "vllm", "vLLM wins by 29 % (51.6 against 40.0 tok/s)."),
        (60.0, "ollama", "Ollama wins by 16 % (51.6 against 60.0 tok/s)."),
        (51.3, None, "Nobody wins: 51.6 against 51.3 tok/s."),
    ],
)
def test_who_decodes_faster_wins(rate: float, winner: str | None, sentence: str) -> None:
    comparison = compared(vllm(), ollama(rate))
    assert (comparison["winner"], lines(comparison)[-1]) == (winner, sentence)


@pytest.mark.parametrize("side", [ollama(16.0, loaded=[SPLIT]), ollama(16.0, after=[SPLIT])], ids=["loaded", "after"])
def test_a_split_stands_above_the_table_and_nobody_wins(side: dict[str, Any]) -> None:
    comparison = compared(vllm(), side)
    told = lines(comparison)
    assert told[0] == "66% CPU / 34% GPU: Ollama split the weights of gemma4:26b, its figure is not its speed."
    assert "'systemctl restart ollama'" in told[1]
    assert row(comparison, "decode, tok/s") == ["51.6", "16.0 (split)"]
    assert (comparison["winner"], comparison["percent"]) == (None, None)
    assert told[-1] == "Nobody wins: Ollama's weights were split."


def test_requests_at_once_are_measured_and_not_claimed() -> None:
    comparison = compared(vllm(), ollama(aggregate=79.2))
    assert row(comparison, "concurrent requests") == ["yes (2.2 x one alone)", "yes (2.0 x one alone)"]


def test_the_share_of_the_limit_is_that_of_this_measurement() -> None:
    deployed = {"roofline": {"limit_tok_s": 83.2, "share": 0.9}}
    assert row(compared(vllm(), ollama(), throughput=deployed), "share of the memory limit") == ["62 % of 83.2 tok/s", "unknown"]
    here = vllm(roofline={"limit_tok_s": 100.0, "share": 0.516})
    assert row(compared(here, ollama(), throughput=deployed), "share of the memory limit") == ["52 % of 100.0 tok/s", "unknown"]


def test_without_a_decode_rate_nobody_wins() -> None:
    comparison = compared(vllm(None), ollama())
    assert row(comparison, "decode, tok/s") == ["-", "40.0"]
    assert lines(comparison)[-1] == "Nobody wins: the output of a side came in one burst, so it has no decode rate."


def test_what_the_measurement_noted_is_told() -> None:
    assert "vLLM: others were served meanwhile" in lines(compared(vllm(notes=["others were served meanwhile"]), ollama()))


def test_a_side_that_failed_leaves_the_other_and_the_reason() -> None:
    comparison = compared(vllm(), {}, failure="Measure the throughput: the runner has terminated")
    assert (comparison["ollama"], comparison["failure"]) == (None, "Measure the throughput: the runner has terminated")
    assert row(comparison, "decode, tok/s") == ["51.6"]
    assert lines(comparison)[-1] == "No comparison: Measure the throughput: the runner has terminated"


def test_the_words_of_ollama_go_before_those_of_the_recipe() -> None:
    side = ollama()
    side["loaded"]["models"][0]["quantization"] = None
    assert "Ollama Q4_K_M" in lines(compared(vllm(), side))[0]
    side["loaded"]["models"][0]["quantization"] = "Q8_0"
    assert "Ollama Q8_0" in lines(compared(vllm(), side))[0]
