# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The start-up log of the scripted vLLM: what each version prints, and how a start ends."""

from __future__ import annotations

from datetime import datetime

import pytest
from sim.vllm_scripted import scenario, startup
from sim.vllm_scripted.flags import parse
from sim.vllm_scripted.scenario import ScenarioError, Start
from sim.vllm_scripted.server import ARTICLE, VERSION
from sim.vllm_scripted.startup import Checkpoint, Ended

PATCHED = Checkpoint(shards=2, needs_patch=True, patched=True)
STOCK = Checkpoint(shards=2, needs_patch=True)
FREE = Checkpoint(shards=2)


def log(
    version: str = VERSION, checkpoint: Checkpoint = PATCHED, start: Start | None = None, argv: list[str] | None = None
) -> tuple[str, Ended]:
    flags = parse(ARTICLE if argv is None else argv, version)
    lines, ended = startup.scripted(flags, version, checkpoint, start or Start())
    return "\n".join(line.render(datetime(2026, 6, 21, 10)) for line in lines), ended


def test_the_article_s_five_lines() -> None:
    text, ended = log()
    for line in (
        "(EngineCore pid=77) INFO 06-21 10:00:00 [nvfp4_utils.py:85] Using NvFp4LinearBackend.FLASHINFER_CUTLASS for NVFP4 GEMM",
        "Using 'MARLIN' NvFp4 MoE backend",
        "Model loading took 15.76 GiB memory",
        "Available KV cache memory: 81.8 GiB",
        "GPU KV cache size: 714,768 tokens",
    ):
        assert line in text
    assert text.splitlines()[-1] == "(APIServer pid=1) INFO:     Application startup complete."
    assert ended == Ended("serve")
    assert f"version {VERSION}" in text
    assert " 50% Completed | 1/2 [" in text


@pytest.mark.parametrize(
    ("version", "linear", "kv"),
    [
        ("0.19.0", "Using NvFp4LinearBackend.FLASHINFER_CUTLASS for NVFP4 GEMM", "GPU KV cache size: 714,768 tokens\n"),
        ("0.20.2", "Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM", " tokens\n"),
        ("0.29.0", "Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM", " tokens\n"),
        (
            "0.30.0",
            "Using FlashInferCutlassNvFp4LinearKernel for NVFP4 GEMM",
            " tokens, Maximum concurrency for 131,072 tokens",
        ),
    ],
)
def test_lines_that_differ_by_version(version: str, linear: str, kv: str) -> None:
    text, ended = log(version, FREE)
    assert linear in text
    assert "GPU KV cache size: " in text
    assert kv in text[text.index("GPU KV cache size") :]
    assert ended.how == "serve"


def test_later_versions_count_many_more_tokens() -> None:
    assert startup.kv_numbers(parse(ARTICLE, "0.24.0"), "0.24.0")[1] > 5_000_000


def test_the_moe_line_follows_the_flag() -> None:
    without = [word for word in ARTICLE if word not in ("--moe-backend", "marlin")]
    assert "Using 'VLLM_CUTLASS' NvFp4 MoE backend" in log(argv=without)[0]
    text = log(argv=[*without, "--moe-backend", "flashinfer_cutlass"])[0]
    assert "Using 'FLASHINFER_CUTLASS' NvFp4 MoE backend" in text
    assert "does not have native support for FP4" not in text


def test_0_18_crashes_after_the_weights() -> None:
    text, ended = log("0.18.2.dev0", FREE)
    assert text.index("Model loading took") < text.index("RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm120")
    assert "Application startup complete" not in text
    assert ended == Ended("exit", 1)


@pytest.mark.parametrize(
    ("version", "checkpoint", "words"),
    [
        ("0.20.2", PATCHED, "TypeError: FusedMoE.__init__() got an unexpected keyword argument 'reduce_results'"),
        (VERSION, STOCK, "KeyError: 'layers.0.moe.experts.0.down_proj.weight_scale'"),
        ("0.19.1", STOCK, "KeyError: 'layers.0.moe.moe.experts.0.down_proj.weight_scale'"),
        ("0.19.1", PATCHED, ""),
        ("0.20.0", PATCHED, ""),
        ("0.21.0", STOCK, ""),
        (VERSION, FREE, ""),
    ],
)
def test_the_patch_and_the_version_must_match(version: str, checkpoint: Checkpoint, words: str) -> None:
    text, ended = log(version, checkpoint)
    assert ended.how == ("exit" if words else "serve")
    assert words in text
    assert ("Engine core initialization failed" in text) == bool(words)


def test_an_api_key_stays_out_of_the_log() -> None:
    assert "secret" not in log(argv=[*ARTICLE, "--api-key", "secret"])[0]


@pytest.mark.parametrize(
    ("name", "words", "ended"),
    [
        ("cutlass-moe", "Using 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: ['FLASHINFER_TRTLLM'", Ended("serve")),
        ("fp4-crash", "Failed to run cutlass FP4 gemm on sm120", Ended("exit", 1)),
        ("exit-in-start", "50% Completed | 1/2", Ended("exit", 137)),
        ("hang-in-start", "Loading weights took", Ended("hang", 1)),
        ("crash-loop", "CUDA driver version is insufficient", Ended("exit", 1)),
        ("oom", "is less than desired GPU memory utilization (0.85, 101.75 GiB)", Ended("exit", 1)),
        ("kv-too-small", "estimated maximum model length is 57344", Ended("exit", 1)),
    ],
)
def test_what_scenarios_do_to_the_start(name: str, words: str, ended: Ended) -> None:
    text, how = log(start=scenario.load(name).start)
    assert words in text
    assert how == ended
    assert ("Application startup complete" in text) == (ended.how == "serve")


def test_a_scenario_may_change_any_line() -> None:
    start = scenario.make(
        {"start": {"drop": ["Available KV"], "insert": {"Model loading took": ["a line", "another"]}, "last_words": ["the end"]}}
    ).start
    rows = log(start=start)[0].splitlines()
    assert not any("Available KV" in row for row in rows)
    at = next(index for index, row in enumerate(rows) if "Model loading took" in row)
    assert rows[at + 1 : at + 3] == ["a line", "another"]
    assert rows[-1] == "the end"


def test_every_shipped_scenario_can_be_played() -> None:
    shipped = scenario.names()
    assert {"good", "hung-engine", "no-usage", "tools-in-text", "mid-stream-error", "slow", "nan-logprobs", "crash-loop"} <= set(shipped)
    assert {"garbage-empty", "garbage-bang", "garbage-loop"} <= set(shipped)
    for name in shipped:
        played = scenario.load(name)
        assert (played == scenario.Scenario()) == (name == "good"), name
        for part in (played.start.stop_after, *played.start.replace):
            assert part in log()[0], f"{name}: no line has {part!r}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("godo", "there is no scenario godo: choose "),
        ('{"stream": {"toks": 3}}', "stream.toks is not known"),
        ('{"steam": {}}', "steam: a scenario has"),
        ('{"stream": {"tok_s": "fast"}}', "must be a float"),
        ('{"fault": {"garbage": "bangs"}}', "choose"),
        ('{"stream": {"tok_s": 0}}', "tok_s must be above 0"),
        ('{"stream": {"tcp_merge": 0}}', "tcp_merge must be at least 1"),
        ("{", "SIM_SCENARIO"),
    ],
)
def test_a_wrong_scenario_is_refused(text: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words.replace("{", r"\{")):
        scenario.load(text)


def test_a_scenario_changes_another_one() -> None:
    played = scenario.load('{"base": "slow", "stream": {"ttft_ms": 10}}')
    assert (played.stream.tok_s, played.stream.ttft_ms) == (16.0, 10.0)
