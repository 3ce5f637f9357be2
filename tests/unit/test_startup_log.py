# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The startup log: every version's words, expectations, fatal lines, and that nothing is ever invented."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._log_follow import End
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import ExpectError, canonical, check, startup, unmet
from ansible_collections.dgx.spark.plugins.module_utils._startup_fatal import RULES, recognise
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import TRIGGERS, StartupLog, plain
from ansible_collections.dgx.spark.plugins.module_utils._startup_verdict import failures, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.startup_logs import startup_log

ARTICLE = "0.19.1-gemma4-cu130.log"
ARTICLE_EXPECT = {
    "vllm_version": ">=0.19,<0.20",
    "linear_backend": "FLASHINFER_CUTLASS",
    "moe_backend": "marlin",
    "model_memory_gib": {"min": 15, "max": 17},
    "kv_cache_memory_gib": {"min": 60},
}


def read(data: bytes | str, expect: dict[str, Any] | None = None, block: int = 1 << 18) -> StartupLog:
    """The log of these bytes, fed in blocks."""
    log = StartupLog((expect or {}).get("absent", ()))
    raw = data if isinstance(data, bytes) else startup_log(data)
    for at in range(0, len(raw), block):
        log.feed(raw[at : at + block])
    log.close()
    return log


def verdict(name: str, expect: dict[str, Any], kind: str = "ready") -> list[dict[str, str]]:
    return failures(read(name, expect), End(kind, waited=1.0), check(expect), 900)


FACTS: dict[str, dict[str, Any]] = {
    ARTICLE: {
        "vllm_version": "0.19.1.dev6+g6d4a8e6d2",
        "linear_backend": "FLASHINFER_CUTLASS",
        "moe_backend": "MARLIN",
        "attention_backend": "TRITON_ATTN",
        "model_memory_gib": 15.76,
        "kv_cache_memory_gib": 81.8,
        "kv_cache_tokens": 714768,
        "max_concurrency": 29.41,
        "weights_seconds": 84.07,
        "compile_seconds": 23.44,
        "graph_capture_seconds": 13.0,
        "speculative": None,
        "ready": True,
    },
    "0.20.2-colours.log": {
        "vllm_version": "0.20.2",
        "linear_backend": "FLASHINFER_CUTLASS",
        "moe_backend": "MARLIN",
        "attention_backend": "FLASHINFER",
        "model_memory_gib": 17.12,
        "kv_cache_memory_gib": 74.33,
        "kv_cache_tokens": 5070112,
        "max_concurrency": 19.34,
        "weights_seconds": 71.2,
        "compile_seconds": None,
        "ready": True,
    },
    "0.27.1-runner-v2.log": {
        "vllm_version": "0.27.1",
        "linear_backend": "MARLIN",
        "moe_backend": "MARLIN",
        "attention_backend": None,
        "model_memory_gib": 15.81,
        "weights_seconds": 60.31,  # no line of its own: what the whole loading took
        "max_concurrency": 40.44,
        "ready": True,
    },
    "0.33.0-mtp.log": {
        "vllm_version": "0.33.0",
        "moe_backend": "FLASHINFER_B12X",  # the draft model's TRITON comes later and is not the model's
        "attention_backend": "TRITON_ATTN",
        "model_memory_gib": 18.41,
        "kv_cache_tokens": 4812301,
        "max_concurrency": 18.36,
        "weights_seconds": 40.31,
        "speculative": "method='mtp', model='google/gemma-4-26B-A4B-it-assistant', num_spec_tokens=4",
        "ready": True,
    },
    "0.32.0-cpu.log": {
        "vllm_version": "0.32.0",
        "linear_backend": None,
        "moe_backend": "CPU",
        "attention_backend": None,  # "Cannot use … TRITON_ATTN" names one that is not used
        "model_memory_gib": None,
        "kv_cache_memory_gib": None,
        "kv_cache_tokens": 332222,
        "max_concurrency": 162.22,
        "ready": True,
    },
}


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("block", [1 << 18, 7])
def test_every_version_tells_the_same_facts(name: str, block: int) -> None:
    told = startup(read(name, block=block), 90.5)
    assert {key: told[key] for key in FACTS[name]} == FACTS[name]
    assert told["seconds"] == 90.5


def test_prefixes_do_not_matter() -> None:
    lines = startup_log(ARTICLE).decode().splitlines()
    stamped = "\r\n".join(f"2026-11-23T10:00:00.{number:09d}Z vllm-1  | {line}" for number, line in enumerate(lines)) + "\n"
    assert startup(read(stamped.encode()), None) == startup(read(ARTICLE), None)


def test_the_warnings_that_matter_are_kept_once() -> None:
    warnings = startup(read(startup_log(ARTICLE).replace(b"INFO:     Application", b"x")), None)["warnings"]
    assert [text.split(".")[0][:40] for text in warnings] == [
        "Your GPU does not have native support fo",
        "Using KV cache scaling factor 1",
        "Using uncalibrated q_scale 1",
    ]
    twice = read(startup_log(ARTICLE).replace(b"Application startup", b"x").replace(b"version ", b"") * 2)
    assert len(twice.warnings) == 3


def test_the_articles_log_meets_the_articles_expectations() -> None:
    assert verdict(ARTICLE, ARTICLE_EXPECT) == []


def test_another_moe_backend_is_condemned_although_every_line_names_marlin() -> None:
    [failed] = verdict("0.19.1-cutlass-moe.log", ARTICLE_EXPECT)
    assert failed["expected"] == "moe_backend MARLIN"
    assert failed["seen"] == "VLLM_CUTLASS"
    assert failed["line"].startswith("Using 'VLLM_CUTLASS' NvFp4 MoE backend out of")
    assert "`--moe-backend marlin` was not picked up" in failed["remedy"]
    assert "VLLM_CUTLASS" in sentence(failed)


def test_a_second_backend_in_the_same_start_counts_too() -> None:
    line = b"INFO 11-23 10:00:20 [nvfp4.py:202] Using 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: ['MARLIN'].\n"
    log = read(startup_log(ARTICLE) + line)
    assert [entry["seen"] for entry in unmet(log, check({"moe_backend": "marlin"}))] == ["VLLM_CUTLASS"]


def test_an_old_starts_good_lines_do_not_pass_a_new_bad_one() -> None:
    log = read("two-starts.log")
    assert not log.ready
    assert startup(log, None)["moe_backend"] == "VLLM_CUTLASS"
    assert startup(log, None)["kv_cache_tokens"] is None


@pytest.mark.parametrize(
    ("expect", "seen"),
    [
        ({"vllm_version": ">=0.20,<0.21"}, "0.19.1.dev6+g6d4a8e6d2"),
        ({"linear_backend": ["marlin", "b12x"]}, "FLASHINFER_CUTLASS"),
        ({"attention_backend": "FLASHINFER"}, "TRITON_ATTN"),
        ({"model_memory_gib": {"max": 15}}, "15.76 GiB"),
        ({"kv_cache_memory_gib": {"min": 90.5}}, "81.8 GiB"),
        ({"max_concurrency": {"min": 30, "max": 40}}, "29.41"),
        ({"kv_cache_tokens": {"min": 1000000}, "vllm_version": ">=0.19"}, "714,768 tokens"),
        ({"absent": ["scaling factor 1\\.0"]}, "one"),
        ({"absent": ["^Using uncalibrated"]}, "one"),
    ],
)
def test_what_is_not_as_expected_is_said(expect: dict[str, Any], seen: str) -> None:
    [failed] = verdict(ARTICLE, expect)
    assert failed["seen"] == seen
    assert failed["line"]
    assert failed["remedy"]


@pytest.mark.parametrize(
    "expect",
    [
        {"linear_backend": "FlashInferCutlassNvFp4LinearKernel"},
        {"linear_backend": "NvFp4LinearBackend.FLASHINFER_CUTLASS"},
        {"linear_backend": "flashinfer-cutlass"},
        {"moe_backend": ["flashinfer_b12x", "marlin"]},
        {"kv_cache_tokens": {"min": 714768, "max": "714768"}, "vllm_version": ">=0.19,<0.20"},
        {"absent": ["CUTLASS_FP4"]},
        {"moe_backend": None, "model_memory_gib": {}},
    ],
)
def test_what_is_as_expected_passes(expect: dict[str, Any]) -> None:
    assert verdict(ARTICLE, expect) == []


def test_a_line_that_should_tell_and_is_not_there_fails() -> None:
    [failed] = verdict("0.32.0-cpu.log", {"model_memory_gib": {"min": 1}})
    assert (failed["seen"], failed["line"]) == ("nothing", "")


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        ({"moe_backed": "marlin"}, "did you mean moe_backend?"),
        ({"kv_cache_tokens": {"min": 1}}, "kv_cache_tokens needs vllm_version"),
        ({"model_memory_gib": 15}, "model_memory_gib must be a mapping with min, max or both"),
        ({"model_memory_gib": {"minimum": 15}}, "with min, max or both"),
        ({"model_memory_gib": {"min": "much"}}, "model_memory_gib.min must be a number"),
        ({"model_memory_gib": {"min": 17, "max": 15}}, "min 17 is more than max 15"),
        ({"vllm_version": "~0.19"}, "vllm_version: '~0.19' is not a range"),
        ({"absent": ["("]}, "'(' is not a regular expression"),
        ({"moe_backend": 5}, "moe_backend must be a text or a list of texts"),
    ],
)
def test_expectations_that_make_no_sense_are_refused(expect: dict[str, Any], words: str) -> None:
    with pytest.raises(ExpectError) as caught:
        check(expect)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "one"),
    [
        ("cutlass", "VLLM_CUTLASS"),
        ("CUTLASS_FP4", "VLLM_CUTLASS"),
        ("CutlassNvFp4LinearKernel", "VLLM_CUTLASS"),
        ("FlashInferCuteDslNvFp4W4A16LinearKernel", "FLASHINFER_CUTEDSL_W4A16"),
        ("FlashInferB12xNvFp4LinearKernel", "FLASHINFER_B12X"),
        ("b12x", "B12X"),
        ("brand_new", "BRAND_NEW"),
    ],
)
def test_names_have_one_spelling(name: str, one: str) -> None:
    assert canonical(name) == one


# --- what ends a start


@pytest.mark.parametrize(
    ("name", "line", "remedy"),
    [
        ("0.18.2-fp4-crash.log", "Failed to run cutlass FP4 gemm on sm120/sm121", "gemma4-cu130"),
        ("unrecognized-flag.log", "unrecognized arguments: --moe-backnd marlin", "did you mean --moe-backend?"),
        ("0.20.2-patched.log", "unexpected keyword argument 'reduce_results'", "fits vLLM 0.19.x only"),
        ("0.19.1-out-of-memory.log", "Free memory on device", "ollama ps"),
        ("unknown-cause.log", "ZeroDivisionError: integer division or modulo by zero", "tail"),
    ],
)
def test_a_fatal_line_is_known_with_its_remedy(name: str, line: str, remedy: str) -> None:
    log = read(name)
    assert log.ended
    assert not log.ready
    failed = failures(log, End("fatal", waited=1.0), {}, 900)[0]
    assert line in failed["line"]
    assert remedy in failed["remedy"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.pattern.pattern[:40])
def test_every_fatal_line_is_found_by_the_parser_and_has_a_remedy(rule: Any) -> None:
    log = read(f"noise\n(EngineCore pid=9) ERROR 09-01 08:00:04 [core.py:1110] {rule.example}\nmore\n".encode())
    assert log.fatal is not None
    assert log.fatal.line == plain(rule.example)
    assert len(log.fatal.remedy) > 20
    assert "{" not in log.fatal.remedy


def test_what_vllm_only_tries_out_is_not_fatal() -> None:
    for level in ("DEBUG", "INFO", "WARNING"):
        text = "RuntimeError: [FP4 gemm Runner] Failed to run cutlass FP4 gemm on sm120"
        assert not read(f"(EngineCore pid=9) {level} 09-01 08:00:04 [x.py:1] {text}\n".encode()).ended


def test_facts_that_contradict_are_told_beside_the_crash() -> None:
    expect = {"moe_backend": "flashinfer_b12x", "kv_cache_memory_gib": {"min": 60}}
    crash, moe = failures(read("0.18.2-fp4-crash.log"), End("fatal", waited=1.0), check(expect), 900)
    assert "FP4 gemm" in crash["seen"]
    assert moe["seen"] == "MARLIN"  # while the missing KV line is no news: it never got that far


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (End("died", 2.0, exit_code=3, progress="loading weights 50%"), "exited with code 3 while loading weights 50%"),
        (End("died", 2.0, exit_code=137, oom_killed=True), "for want of memory"),
        (End("died", 2.0, exit_code=137), "it was killed"),
        (End("died", 2.0, exit_code=127, error="no such file"), "(no such file)"),
        (End("died", 2.0, exit_code=0, progress="ready"), "after it was ready"),
        (
            End("crash_loop", 2.0, exit_code=1, restarts=3, earlier="KeyError: 'x'"),
            "3 times so far): a crash loop in the line 'KeyError: 'x''",
        ),
        (End("timeout", 12.0, progress="loading weights 50%"), "within 12 s, saw still loading weights 50% after 12 s"),
        (End("begins_late", 1.0), "was rotated away"),
    ],
)
def test_every_other_end_is_explained(end: End, words: str) -> None:
    [failed] = failures(StartupLog(), end, check(ARTICLE_EXPECT), 12)
    assert words in sentence(failed)


def test_a_server_whose_start_is_no_longer_in_its_log_is_seen_at_once() -> None:
    log = read("serving-only.log")
    assert log.ended
    assert log.begins_late
    assert not log.ready


def test_the_tail_is_short_and_shows_progress_bars_once() -> None:
    tail = read(ARTICLE).tail()
    assert len(tail) == 30
    assert tail[-1].endswith("Application startup complete.")
    assert sum("checkpoint shards" in line for line in tail) == 3
    bars = b"".join(b"\rLoading safetensors checkpoint shards: %3d%% Completed" % done for done in range(100))
    assert read(b"first\n" + bars + b"\nlast\n").tail() == ["first", "Loading safetensors checkpoint shards:  99% Completed", "last"]


@pytest.mark.parametrize(
    ("until", "words"),
    [
        (b"[01:24<", "loading weights 100%"),
        (b"Loading weights took", "loading weights 100%"),
        (b"Available KV", "compiling"),
        (b"Graph capturing", "capturing CUDA graphs 100%"),
        (b"INFO:     Started", "starting the API"),
        (b"usage:", "ready"),
    ],
)
def test_progress_says_what_it_does_now(until: bytes, words: str) -> None:
    assert read(startup_log(ARTICLE).partition(until)[0]).progress() == words


# --- never crash, never invent


def true_values() -> dict[str, set[Any]]:
    told = startup(read(ARTICLE), None)
    return {key: {None, value} for key, value in told.items() if key not in ("warnings", "ready")} | {
        # The logo's row is cut off at its end unnoticed; the engine's line is not, and it wins when it is there.
        "vllm_version": {None, *(told["vllm_version"][:length] for length in range(5, 30))},
        # Without the loader's own line, what the whole loading took.
        "weights_seconds": {None, 84.07, 84.88321},
    }


TRUE = true_values()


def never_invents(data: bytes, block: int) -> None:
    log = StartupLog(("never there",))
    for at in range(0, len(data), block):
        log.feed(data[at : at + block])
    log.close()
    told = startup(log, None)
    assert {key: told[key] for key, allowed in TRUE.items() if told[key] not in allowed} == {}
    log.tail()
    log.progress()


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 999))
def test_random_bytes_give_nothing(data: bytes, block: int) -> None:
    never_invents(data, block)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_cut_and_mixed_lines_give_true_values_or_none(data: st.DataObject) -> None:
    lines = startup_log(ARTICLE).splitlines(keepends=True)
    piece = st.tuples(st.sampled_from(lines), st.integers(0, 400), st.sampled_from([b"", b"\n", b"\r", b"\0", b"\xff\xfe", b"\x1b[0m"]))
    pieces = data.draw(st.lists(piece, max_size=40))
    mixed = b"".join(line[: len(line) - cut if cut < len(line) else None] + end for line, cut, end in pieces)
    never_invents(mixed, data.draw(st.integers(1, 5000)))


def test_every_triggerless_pattern_would_be_deaf() -> None:
    """Each line that carries a fact has one of the parser's triggers."""
    for name in FACTS:
        for line in startup_log(name).splitlines():
            told = startup(read(line + b"\n"), None)
            if any(value for key, value in told.items() if key != "warnings") or told["warnings"]:
                assert any(trigger in line for trigger in TRIGGERS), line


def noise(size: int) -> bytes:
    generator = random.Random(7)
    lines = [
        b"(EngineCore pid=77) DEBUG 11-23 21:22:39 [weight_utils.py:500] Loading model.layers.%d.experts.%d.down_proj.weight as uint8\n"
        % (generator.randrange(30), generator.randrange(128))
        for _line in range(500)
    ]
    block = b"".join(lines)
    return (block * (size // len(block) + 1))[:size]


def test_memory_stays_constant_and_a_line_without_end_does_no_harm() -> None:
    block = noise(1 << 20)
    log = StartupLog()
    tracemalloc.start()
    for _block in range(40):
        log.feed(block)
        log.feed(b"x" * (1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    log.feed(b"\n" + startup_log(ARTICLE))
    assert peak < 8 << 20
    assert startup(log, None)["kv_cache_tokens"] == 714768


def test_parsing_is_fast() -> None:
    """The aim is 200 MB/s on a free core; the bound is what any machine reaches unless a pattern runs wild."""
    block, log = noise(1 << 18), StartupLog()
    started = time.process_time()
    for _block in range(128):
        log.feed(block)
    rate = 32 * 1.048576 / (time.process_time() - started)
    assert rate > 20, f"{rate:.0f} MB/s"


def test_a_fatal_line_without_cause_is_its_own() -> None:
    fatal = recognise("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", "")
    assert fatal is not None
    assert fatal.line.startswith("RuntimeError: Engine core")
