# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The startup log: every version's words, expectations, fatal lines, and that nothing is ever invented."""

from __future__ import annotations

import json
import random
import re
import time
import tracemalloc
import urllib.parse
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._log_follow import End
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import ExpectError, canonical, check, startup, unmet
from ansible_collections.dgx.spark.plugins.module_utils._startup_fatal import RULES, recognise
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import TRIGGERS, StartupLog, plain
from ansible_collections.dgx.spark.plugins.module_utils._startup_verdict import failures, sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.vllm_scripted.flags import parse
from sim.vllm_scripted.server import ARTICLE as COMMAND
from sim.vllm_scripted.startup import Checkpoint, natural
from unit.startup_logs import ARTICLE_FACTS, startup_log

ARTICLE = "0.19.1-gemma4-cu130.log"
ARTICLE_EXPECT = {
    "vllm_version": ">=0.19,<0.20",
    "linear_backend": "FLASHINFER_CUTLASS",
    "moe_backend": "marlin",
    "model_memory_gib": {"min": 15, "max": 17},
    "kv_cache_memory_gib": {"min": 60},
}


def read(data: bytes | str, expect: dict[str, Any] | None = None, block: int = 1 << 18, one_start: bool = False) -> StartupLog:
    """The log of these bytes, fed in blocks."""
    log = StartupLog((expect or {}).get("absent", ()), one_start)
    raw = data if isinstance(data, bytes) else startup_log(data)
    for at in range(0, len(raw), block):
        log.feed(raw[at : at + block])
    log.close()
    return log


def verdict(name: str, expect: dict[str, Any], kind: str = "ready") -> list[dict[str, str]]:
    return failures(read(name, expect), End(kind, waited=1.0), check(expect), 900)


FACTS: dict[str, dict[str, Any]] = {
    ARTICLE: ARTICLE_FACTS,
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
    "0.25.1.log": {
        "vllm_version": "0.25.1",
        "linear_backend": "FLASHINFER_CUTLASS",
        "moe_backend": "FLASHINFER_CUTLASS",
        "attention_backend": "TRITON_ATTN",  # the vision tower's line is not the model's
        "model_memory_gib": 17.31,
        "kv_cache_memory_gib": 75.02,
        "kv_cache_tokens": 5214208,
        "max_concurrency": 39.78,
        "weights_seconds": 68.42,
        "graph_capture_seconds": 7.0,
        "ready": True,
    },
    "0.28.0-json.log": {
        "vllm_version": "0.28.0",
        "linear_backend": "MARLIN",
        "moe_backend": "MARLIN",
        "model_memory_gib": 15.8,
        "kv_cache_memory_gib": 80.1,
        "kv_cache_tokens": 5287936,
        "max_concurrency": 40.34,
        "warnings": ["Using uncalibrated q_scale 1.0 and/or prob_scale 1.0 with fp8 attention. This may cause accuracy issues."],
        "ready": True,
    },
    "0.30.0-host-pool.log": {
        "vllm_version": "0.30.0",
        "linear_backend": "FLASHINFER_CUTEDSL_W4A16",
        "moe_backend": "MARLIN",
        "model_memory_gib": 15.79,
        "kv_cache_memory_gib": 79.6,
        "kv_cache_tokens": 6120448,
        "max_concurrency": 46.7,
        "weights_seconds": 49.87,
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


@pytest.mark.parametrize("version", ["0.19.0", "0.20.2", "0.23.1rc1.dev790+g85d9", "0.25.1", "0.27.1", "0.30.0", "0.32.0+cpu", "0.33.0"])
def test_the_scripted_vllms_log_of_every_version_is_understood(version: str) -> None:
    lines, _ended = natural(parse(COMMAND, version), version, Checkpoint())
    told = startup(read("".join(f"{line.render(datetime.now())}\n" for line in lines).encode()), None)
    assert {key for key, value in told.items() if value is None} == {"speculative", "seconds"}
    assert (told["vllm_version"], told["linear_backend"], told["moe_backend"]) == (version, "FLASHINFER_CUTLASS", "MARLIN")


@pytest.mark.parametrize("name", sorted(FACTS))
def test_the_banner_tells_the_version_before_the_engine_does(name: str) -> None:
    head = startup_log(name).partition(b"Initializing a V1")[0]
    assert startup(read(head), None)["vllm_version"] == FACTS[name]["vllm_version"]


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
    log = read(startup_log(ARTICLE).replace(b"INFO:     Started", line + b"INFO:     Started"))
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
        ({"kv_cache_tokens": {"min": 1000000}, "vllm_version": ">=0.19, <0.20"}, "714,768 tokens"),
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
        ({"kv_cache_tokens": {"min": 1}, "vllm_version": ">=0.19"}, "with an upper end"),
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
        ("0.24.0-tie-weights.log", "in tie_weights", "0.25.1 or later"),
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


def test_a_fatal_line_in_a_crash_loop_says_that_it_is_one() -> None:
    failed = failures(read("0.18.2-fp4-crash.log"), End("fatal", waited=1.0, restarts=3), {}, 900)[0]
    assert failed["remedy"].endswith("Docker started it again (3 times so far), a crash loop: stop the container to end it")


def test_an_error_without_words_is_an_error() -> None:
    log = read(b"(EngineCore pid=9) ERROR 09-01 08:00:04 [core.py:1110] MemoryError\n")
    assert log.last_error == "MemoryError"


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


@pytest.mark.parametrize("line", startup_log("serving-only.log").splitlines(keepends=True), ids=["statistics", "request"])
def test_a_server_whose_start_is_no_longer_in_its_log_is_seen_at_once(line: bytes) -> None:
    log = read(line)
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


# --- what clients write


def as_request(text: str) -> str:
    """As vLLM logs prompts with --enable-log-requests."""
    return f"(APIServer pid=1) INFO 11-23 10:05:00 [logger.py:40] Received request chatcmpl-1: prompt: {text!r}, params: None\n"


def as_path(text: str) -> str:
    return f'(APIServer pid=1) INFO:     10.0.0.7:51234 - "GET /{urllib.parse.quote(text)} HTTP/1.1" 404 Not Found\n'


def as_error(text: str) -> str:
    """As vLLM logs an error that quotes a request: every line gets the header."""
    head = "(APIServer pid=1) ERROR 11-23 10:05:00 [serving.py:200] "
    return "".join(f"{head}{line}\n" for line in f"ValueError: cannot render {text}".split("\n"))


def as_traceback(text: str) -> str:
    """As uvicorn logs an error that nobody caught: as it is."""
    return f"(APIServer pid=1) ERROR:    Exception in ASGI application\nTraceback (most recent call last):\nValueError: {text}\n"


ON_ONE_LINE = (as_request, as_path)
VESSELS: tuple[Callable[[str], str], ...] = (*ON_ONE_LINE, as_error, as_traceback)
OTHER_START = startup_log("0.33.0-mtp.log").decode()
FORGED = [
    "Using 'VLLM_CUTLASS' NvFp4 MoE backend",
    "\nUsing 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: ['VLLM_CUTLASS'].",
    "\nUsing MarlinNvFp4LinearKernel for NVFP4 GEMM\n",
    "\nAvailable KV cache memory: 1.5 GiB\n",
    "\nvLLM server version 0.33.0, serving model x\nApplication startup complete.",
    "\nINFO 11-23 10:00:20 [x.py:1] Loading weights took 1.00 seconds\n",
    "\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.38 GiB.\n",
    "\nRuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n",
    "\nUsing uncalibrated q_scale 1.0, and a line that is not wanted\n",
    f"\n{OTHER_START}",
]


def stamped(text: str, second: float) -> str:
    return "".join(f"2026-11-23T10:{int(second) // 60:02d}:{second % 60:012.9f}Z {line}" for line in text.splitlines(keepends=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(VESSELS), st.sampled_from(FORGED) | st.text()), min_size=1, max_size=5), st.booleans())
def test_nothing_that_a_client_writes_says_anything_about_a_containers_start(written: list[Any], docker: bool) -> None:
    good, forged = startup_log(ARTICLE).decode(), "".join(vessel(text) for vessel, text in written)
    if docker:
        good, forged = stamped(good, 100), stamped(forged, 101)
    expect = check(ARTICLE_EXPECT | {"absent": ["a line that is not wanted", "Exception in ASGI"]})
    log = read((good + forged).encode(), expect, one_start=True)
    assert startup(log, None) == startup(read(good.encode(), one_start=True), None)
    assert failures(log, End("ready", waited=1.0), expect, 900) == []
    assert log.fatal is None


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("vessel", ON_ONE_LINE)
def test_what_a_client_writes_on_one_line_begins_no_other_start_in_a_file(vessel: Callable[[str], str], forged: str) -> None:
    log = read(startup_log(ARTICLE) + vessel(forged).encode())
    assert startup(log, None) == startup(read(ARTICLE), None)


@pytest.mark.parametrize("vessel", ON_ONE_LINE)
@pytest.mark.parametrize("forged", FORGED)
def test_a_log_that_begins_late_is_not_completed_by_what_clients_ask(vessel: Callable[[str], str], forged: str) -> None:
    log = read(startup_log("serving-only.log") + vessel(forged).encode(), one_start=True)
    assert (log.begins_late, log.ready) == (True, False)
    assert startup(log, None)["moe_backend"] is None


def test_a_forbidden_line_of_an_earlier_start_in_the_same_file_does_not_count() -> None:
    second = startup_log("0.25.1.log")
    log = read(startup_log(ARTICLE) + second, {"absent": ["uncalibrated q_scale"]})
    assert (startup(log, None)["vllm_version"], log.present) == ("0.25.1", {})
    assert read(second + startup_log(ARTICLE), {"absent": ["uncalibrated q_scale"]}).present


def test_the_first_request_may_stand_before_the_ready_line() -> None:
    good = startup_log(ARTICLE).decode()
    ready = "(APIServer pid=1) INFO:     Application startup complete.\n"
    assert ready in good
    swapped = good.replace(ready, '(APIServer pid=1) INFO:     10.0.0.7:5 - "GET /health HTTP/1.1" 200 OK\n' + ready)
    log = read(swapped.encode(), one_start=True)
    assert (log.ready, log.begins_late) == (True, False)
    assert startup(log, None) == startup(read(ARTICLE), None)


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


@pytest.mark.parametrize("line", startup_log(ARTICLE).splitlines(), ids=lambda line: line.decode()[-30:])
def test_a_line_that_another_process_interrupts_anywhere_gives_its_value_or_none(line: bytes) -> None:
    for other in (
        b"(APIServer pid=1) INFO 11-23 10:00:09 [model.py:549] Resolved architecture: x\n",
        b"INFO:     Started server process [1]\n",
    ):
        for place in range(len(line)):
            never_invents(line[:place] + other + line[place:] + b"\n", 1 << 18)


@pytest.mark.parametrize(
    ("version", "believed"),
    [("0.19.1.dev6+g6d4a8e6d2", True), ("0.11.0+582e4e37.nv25.11", True), ("0.20.0rc1+cu130", True), ("0.19.1.dev6+9.41x", False)],
)
def test_a_version_in_the_logo_that_was_torn_is_not_ended_by_another_line(version: str, believed: bool) -> None:
    """The last one is the logo's row, cut off after the plus sign, and the end of the KV cache's line."""
    row = f"(APIServer pid=1) INFO 11-23 10:00:02 [utils.py:299]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version {version}\n"
    assert startup(read(row.encode()), None)["vllm_version"] == (version if believed else None)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_lines_of_two_processes_that_are_mixed_in_their_middle_give_true_values_or_none(data: st.DataObject) -> None:
    """A pipe tears what is longer than 4096 bytes; forty are enough for no piece to be a number or a version alone."""
    lines = startup_log(ARTICLE).splitlines(keepends=True)
    pieces = []
    for api in (True, False):
        text, torn, start = b"".join(line for line in lines if line.startswith(b"(API") == api), [], 0
        # In the middle of what is looked for, or anywhere.
        values = re.finditer(rb"(?:took|memory:|size:|request:|finished in|Using) (\S+)", text)
        places = [place for value in values for place in range(value.start(1) + 1, value.end(1))]
        for end in sorted(data.draw(st.lists(st.sampled_from(places) | st.integers(0, len(text)), max_size=12))):
            if end - start >= 40:
                torn.append(text[start:end])
                start = end
        pieces.append([*torn, text[start:]])
    mixed = b""
    while any(pieces):
        # Whoever has nothing left to write lets the other finish.
        turn = data.draw(st.sampled_from([writer for writer in (0, 1) if pieces[writer]]))
        mixed += pieces[turn].pop(0)
    never_invents(mixed, data.draw(st.integers(1, 5000)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Model loading took 15.76 GiB memory and 8", "Loading weights took 84.88321 seconds"),
        ("Loading weights took 8", "(EngineCore pid=77) INFO 11-23 10:01:44 [x.py:1] torch.compile took 1.00 s in total"),
        ("Using 'MARLIN' NvFp4 M", "Using 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: ['MARLIN']."),
        ("noise", "Initializing a V1 LLM engine (v0.33.0) with config: model='x'"),
        ("noise", "GPU KV cache size: 1 tokens, Maximum concurrency for 1 tokens per request: 1.00x"),
    ],
)
def test_a_fact_in_the_middle_of_a_line_is_not_believed(first: str, second: str) -> None:
    told = startup(read(f"(EngineCore pid=77) INFO 11-23 10:01:44 [x.py:1] {first}{second}\n".encode()), None)
    # The first writer's words may be true as far as they go.
    assert {key for key, value in told.items() if value} <= {"model_memory_gib"}


@pytest.mark.parametrize("line", ['{"message": ' + "[" * 30000, '{"message": 5}', '{"x', '{"message": "Using"} trailing'])
def test_a_line_that_looks_like_json_and_is_none_does_no_harm(line: str) -> None:
    never_invents(f"{line} rror\n".encode(), 1 << 18)


def test_levels_in_json_count_as_levels() -> None:
    for level, fatal in (("WARNING", False), ("ERROR", True)):
        record = json.dumps({"levelname": level, "message": "torch.OutOfMemoryError: CUDA out of memory."})
        assert (read(f"{record}\n".encode()).fatal is not None) == fatal


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


@pytest.mark.parametrize("unit", ["a.", "A", "AError ", 'GET "/', "Using A ", "(x pid=1) ", "INFO 11-23 1 [", "1,", "startup complete "])
def test_no_long_line_makes_a_pattern_run_wild(unit: str) -> None:
    """A linear pattern takes milliseconds of the processor for a line of 32 KiB, a quadratic one seconds."""
    started = time.process_time()
    read(f"rror Using KV cache size: {unit * 20000}\n".encode())
    assert time.process_time() - started < 1


def test_a_fatal_line_without_cause_is_its_own() -> None:
    fatal = recognise("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", "")
    assert fatal is not None
    assert fatal.line.startswith("RuntimeError: Engine core")
