# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The measurement: its formulas on made-up streams, and every way to stream against a scripted vLLM's own clock."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _throughput_run
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Arrival, Client, ClientError, Reply
from ansible_collections.dgx.spark.plugins.module_utils._roofline import Ceiling, Checkpoint
from ansible_collections.dgx.spark.plugins.module_utils._throughput import (
    MeasureError,
    Run,
    contradictions,
    measure,
    parallel,
    spread,
    too_slow,
)
from ansible_collections.dgx.spark.plugins.module_utils._throughput_run import PROMPT, Workload, run
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import Metrics, other_traffic, read, speculation
from ansible_collections.dgx.spark.plugins.modules import openai_throughput
from sim.vllm_scripted import server as scripted_server
from sim.vllm_scripted.server import ScriptedServer
from unit.checkpoints import MOE_26B, NVFP4, write
from unit.run_module import run_module

MODEL = "gemma-4-26b"


def reply(*arrivals: tuple[float, int | None, bool], total: int | None = None, ends: bool = True) -> Reply:
    """A stream of (seconds after it was sent, tokens so far, visible); the last one carries the reason of the end."""
    last = len(arrivals) - 1
    made = tuple(Arrival(100 + at, tokens, visible, ends and number == last) for number, (at, tokens, visible) in enumerate(arrivals))
    count = total if total is not None else max((arrival[1] or 0 for arrival in arrivals), default=None)
    return Reply("x", None, (), "length", count, None, 100.0, 100 + arrivals[-1][0], made)


def steady(count: int, gap: float = 0.02, start: float = 0.05, each: int = 1, counted: bool = True) -> list[tuple[float, int | None, bool]]:
    return [(start + gap * k, (k + 1) * each if counted else None, True) for k in range(count)]


# --- formulas


def test_the_formulas_on_a_steady_stream() -> None:
    measured = measure(reply(*steady(101)))
    assert measured.tokens == 101
    assert measured.decode_tok_s == pytest.approx(50)
    assert measured.ttft_ms == pytest.approx(50)
    assert measured.e2e_tok_s == pytest.approx(101 / 2.05)


@pytest.mark.parametrize("counted", [True, False])
def test_the_first_chunks_tokens_do_not_count_as_generated_after_it(counted: bool) -> None:
    """Four tokens a chunk: (400 - 4) / 99 gaps, which clients that subtract one token overstate."""
    assert measure(reply(*steady(100, each=4, counted=counted), total=400)).decode_tok_s == pytest.approx(4 / 0.02)


def test_a_chunk_with_the_role_only_is_no_output() -> None:
    measured = measure(reply((0.001, 0, False), *steady(50)))
    assert measured.ttft_ms == pytest.approx(50)
    assert measured.decode_tok_s == pytest.approx(50)


def test_tokens_that_a_parser_swallowed_before_the_first_output_are_subtracted() -> None:
    stream = [(at, (tokens or 0) + 9, visible) for at, tokens, visible in steady(50)]
    measured = measure(reply(*stream))
    assert measured.tokens == 59
    assert measured.decode_tok_s == pytest.approx(50)


def test_tokens_that_only_the_last_usage_counts_end_the_stream_there() -> None:
    measured = measure(reply(*steady(50), (0.05 + 0.02 * 51, 52, False)))
    assert measured.decode_tok_s == pytest.approx(50)


def test_an_end_of_turn_without_text_is_a_token_too() -> None:
    stream = [*steady(50, counted=False), (0.05 + 0.02 * 50, None, False)]
    assert measure(reply(*stream, total=51)).decode_tok_s == pytest.approx(50)


def test_an_answer_of_invisible_tokens_has_a_rate_but_no_first_output() -> None:
    measured = measure(reply(*[(at, tokens, False) for at, tokens, _visible in steady(50)]))
    assert measured.ttft_ms is None
    assert measured.decode_tok_s == pytest.approx(50)
    assert measured.text_tokens is None


@pytest.mark.parametrize(
    "arrivals",
    [
        [(1.0, 300, True)],
        [(1.0, None, True)],
        [(1.0 + k * 1e-5, k + 1, True) for k in range(300)],
        [(1.0 + k * 1e-5, None, True) for k in range(300)],
        [(1.0, k + 1, True) for k in range(300)],
    ],
    ids=["one-chunk", "one-chunk-uncounted", "burst", "burst-uncounted", "same-instant"],
)
def test_a_burst_has_no_decode_rate(arrivals: list[tuple[float, int | None, bool]]) -> None:
    measured = measure(reply(*arrivals, total=300))
    assert measured.decode_tok_s is None
    assert measured.e2e_tok_s == pytest.approx(300, rel=0.01)


@pytest.mark.parametrize("counted", [True, False])
def test_output_that_was_held_back_does_not_count_as_fast(counted: bool) -> None:
    """280 tokens come at once after 1.4 s, 199 more at 5 ms each: it generates 200 tok/s, not 479."""
    held = [(1.4 + k * 2e-4, k + 1 if counted else None, True) for k in range(280)]
    rest = [(held[-1][0] + 0.005 * (k + 1), 281 + k if counted else None, True) for k in range(199)]
    assert measure(reply(*held, *rest, total=479)).decode_tok_s == pytest.approx(200, rel=0.001)


def test_a_late_first_chunk_does_not_count_as_fast() -> None:
    stream = steady(100)
    stream[0] = (0.0699, 1, True)
    assert measure(reply(*stream)).decode_tok_s == pytest.approx(50)


@pytest.mark.parametrize("counted", [True, False])
def test_the_tokens_of_the_first_packet_do_not_count_as_generated_after_it(counted: bool) -> None:
    """Three events a packet, each with one token: 99 of 102 tokens were generated in the 33 gaps between the first packet and the last."""
    stream = [(0.05 + 0.06 * min(k // 3, 33), k + 1 if counted else None, True) for k in range(102)]
    assert measure(reply(*stream, total=102)).decode_tok_s == pytest.approx(50)


def test_without_usage_nothing_is_guessed() -> None:
    silent = Reply("x", None, (), "length", None, None, 100.0, 101.0, (Arrival(100.5, None, True, False), Arrival(101, None, True, True)))
    with pytest.raises(MeasureError, match="the server sent no usage"):
        measure(silent)
    with pytest.raises(MeasureError, match="no token"):
        measure(reply((0.1, 0, False), total=0))


def test_spread() -> None:
    assert spread([51.6, 51.5, 51.5]) == {"mean": 51.533, "stdev": 0.058, "cv": 0.00112, "min": 51.5, "max": 51.6}
    assert spread([50.0]) == {"mean": 50.0, "stdev": None, "cv": None, "min": 50.0, "max": 50.0}
    assert spread([None, 50.0])["mean"] == 50.0
    assert set(spread([None]).values()) == {None}


def test_the_aggregate_counts_from_the_first_start_to_the_last_end() -> None:
    def one(started: float, ended: float) -> Run:
        return Run(100, 50.0, 100 / (ended - started), 50.0, started, ended, None)

    result = parallel([one(0.0, 2.0), one(0.5, 3.0), one(1.0, 4.0)])
    assert result["aggregate_tok_s"] == 75.0
    assert result["fairness"] == pytest.approx(2 / 3, abs=1e-4)
    assert len(result["requests"]) == 3


# --- thresholds

MEASURED = {
    "sequential": {"decode_tok_s": {"mean": 44.06}, "ttft_ms": {"mean": 151.0}},
    "long": {"decode_tok_s": 99.0, "ttft_ms": 1.0},
    "parallel": {"aggregate_tok_s": 99.04},
    "roofline": {"limit_tok_s": 83.2, "share": 0.5296},
}


@pytest.mark.parametrize(
    ("name", "bound", "words"),
    [
        ("decode_tok_s_min", 46.8, "decode_tok_s_min: measured 44.06 tok/s, wanted at least 46.8. Look whether"),
        ("aggregate_tok_s_min", 103.0, "aggregate_tok_s_min: measured 99.04 tok/s over all requests, wanted at least 103."),
        ("ttft_ms_max", 130.0, "ttft_ms_max: measured 151 ms to the first output, wanted at most 130. The first request"),
        ("roofline_share_min", 0.6, "roofline_share_min: measured 0.5296 of the limit of 83.2 tok/s, wanted at least 0.6."),
    ],
)
def test_a_missed_threshold_is_named_with_value_and_remedy(name: str, bound: float, words: str) -> None:
    [failure] = too_slow({name: bound, "other": None}, MEASURED)
    assert failure.startswith(words)
    better = 40.0 if name.endswith("_tok_s_min") else 0.5 if name == "roofline_share_min" else 160.0
    assert too_slow({name: better}, MEASURED) == []


def test_what_could_not_be_measured_misses_its_threshold() -> None:
    burst = {"sequential": {"decode_tok_s": {"mean": None}, "ttft_ms": {"mean": 5.0}}}
    [failure] = too_slow({"decode_tok_s_min": 10.0}, burst)
    assert "nothing to hold against it, because the output came in one burst" in failure


def test_thresholds_without_their_part_make_no_sense() -> None:
    everything = {"decode_tok_s_min": 1.0, "aggregate_tok_s_min": 1.0, "ttft_ms_max": 1.0, "roofline_share_min": 0.5}
    assert len(contradictions(everything, {})) == 5
    assert contradictions(everything, {"long": {"tokens": 5}, "parallel": {}, "roofline": {"checkpoint": "/x"}}) == [
        "thresholds.aggregate_tok_s_min needs parallel"
    ]
    assert contradictions(dict.fromkeys(everything), {}) == []


# --- metrics


def test_metrics_are_summed_over_engines() -> None:
    text = (
        "# HELP vllm:num_requests_running x\n"
        'vllm:num_requests_running{engine="0",model_name="a b}"} 1.0\nvllm:num_requests_running{engine="1"} 2\n'
        "vllm:generation_tokens_total{} 1.5e3\nnonsense\nvllm:spec_decode_num_drafts_total nix\n"
    )
    assert read(text) == Metrics(running=3.0, generated=1500.0)
    assert read("") == Metrics()


def test_other_traffic_and_speculation() -> None:
    before, after = Metrics(0, 0, 1000, 10, 20), Metrics(0, 0, 3000, 110, 270)
    assert other_traffic(before, after, 2000) == {"running_before": 0, "foreign_tokens": 0, "seen": False}
    assert other_traffic(before, after, 1500) == {"running_before": 0, "foreign_tokens": 500, "seen": True}
    assert other_traffic(Metrics(2, 1, 1000), after, 2000) == {"running_before": 3, "foreign_tokens": 0, "seen": True}
    assert other_traffic(Metrics(), after, 2000) is None
    assert speculation(before, after, 70.0) == {"acceptance_length": 3.5, "steps_s": 20.0}
    assert speculation(before, before, 70.0) is None
    assert speculation(Metrics(), Metrics(), 70.0) is None


# A token reads 1 MB of 2 MB, half of all experts; the memory gives 0.8 GB/s.
CEILING = Ceiling(Checkpoint({"attention": 0.0}, experts_bytes=2e6, experts=2, experts_used=1), 0.8, 1.0)


# --- every way to stream, against the server's own clock

MODES: dict[str, dict[str, Any]] = {
    "plain": {"role_chunk": "none"},
    "role-first": {"role_chunk": "at_once"},
    "several-tokens-a-chunk": {"tokens_per_chunk": 4},
    "reasoning": {"reasoning_first": 30},
    "swallowed": {"swallow_first": 6, "swallow_every": 7},
    "usage-at-the-end": {"usage": "end"},
    "several-tokens-and-usage-at-the-end": {"usage": "end", "tokens_per_chunk": 4},
    "keep-alive": {"keep_alive_every": 5},
    "split-over-packets": {"tcp_split": 23},
    "merged-in-packets": {"tcp_merge": 3},
    "merged-and-usage-at-the-end": {"tcp_merge": 3, "usage": "end"},
    "merged-and-split": {"tcp_merge": 6, "tcp_split": 400},
}


def on_schedule(reply: Reply, stream: Any, each: int) -> tuple[Reply, float, float]:
    """The reply as if all had left exactly on schedule, at 600 tok/s after 15 ms; its true decode tok/s, and its TTFT in ms.

    What is tested is the counting, for which no machine can be too busy. How exact the clock is shows the benchmark of the proof.
    """
    # What was sent together left together.
    groups = sorted(set(stream.whole))
    generated = [sum(1 for at in stream.whole if at <= group) for group in groups]
    left = {group: 0.015 + count / 600 for group, count in zip(groups, generated, strict=True)}
    arrivals, chunks = [], 0
    for arrival in reply.arrivals:
        chunks += arrival.visible or arrival.ends
        tokens = min(stream.tokens, chunks * each if arrival.tokens is None else arrival.tokens)
        arrivals.append(replace(arrival, at=left[stream.whole[tokens - 1]] if tokens else 0.0))
    first = next(index for index, group in enumerate(groups) if group >= stream.first_token)
    rate = (stream.tokens - generated[first]) / (left[groups[-1]] - left[groups[first]])
    return replace(reply, sent=0.0, arrivals=tuple(arrivals)), rate, 1000 * left[groups[first]]


@pytest.mark.parametrize("mode", MODES)
def test_every_stream_is_counted_as_the_server_sent_it(mode: str) -> None:
    script = {"tok_s": 600.0, "ttft_ms": 15.0, **MODES[mode]}
    body = {
        **{"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 60, "ignore_eos": True},
        **{"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    }
    with ScriptedServer({"stream": script}) as server:
        reply = Client(server.base_url).ask(body, 20)
        [stream] = server.streams()
    sent, rate, ttft = on_schedule(reply, stream, script.get("tokens_per_chunk", 1))
    measured = measure(sent)
    assert measured.tokens == 60
    assert measured.decode_tok_s == pytest.approx(rate, rel=1e-6)
    assert measured.ttft_ms == pytest.approx(ttft, rel=1e-6)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ({"usage": "none"}, "the server sent no usage"),
        ({"error_after": 20}, "the stream reported an error after 20 tokens: EngineCore"),
        ({"cut_after": 20}, "the stream ended after 20 tokens without a reason"),
    ],
)
def test_a_stream_that_cannot_be_measured_fails(stream: dict[str, Any], words: str) -> None:
    with ScriptedServer({"stream": {"tok_s": 5000.0, "ttft_ms": 2.0, **stream}}) as server:
        result = run(Client(server.base_url), Workload(MODEL, warmup=0, sequential=(2, 40), parallel=(2, 20)), 20)
    [failure] = result["failures"]
    assert words in failure
    assert result["sequential"] is None
    assert result["parallel"] is None


def test_the_whole_workload() -> None:
    with ScriptedServer({"stream": {"tok_s": 400.0, "ttft_ms": 10.0, "parallel_cost": 0.5}}) as server:
        workload = Workload(MODEL, sequential=(2, 60), long=120, parallel=(3, 60), ceiling=CEILING, thresholds={"roofline_share_min": 0.1})
        result = run(Client(server.base_url), workload, 20)
        asked = [stream.tokens for stream in server.streams()]
    assert result["failures"] == []
    # One warm-up as long as a sequential run and a short parallel round, which do not count.
    assert sorted(asked) == [16, 16, 16, 60, 60, 60, 60, 60, 60, 120]
    assert len(result["sequential"]["runs"]) == 2
    assert result["long"]["tokens"] == 120
    # 400 and 600 tok/s at the most; a busy machine makes it less.
    assert 100 < result["parallel"]["aggregate_tok_s"] < 640
    assert 0.1 < result["parallel"]["fairness"] <= 1
    roofline = result["roofline"]
    assert roofline["limit_tok_s"] == 800
    assert 0.1 < roofline["share"] < 0.55
    # Three requests read 7/4 of one request's weights.
    assert roofline["aggregate_limit_tok_s"] == pytest.approx(3 * 800 * 4 / 7, rel=1e-3)
    assert 0.05 < roofline["aggregate_share"] < 0.5
    assert result["other_traffic"] == {"running_before": 0, "foreign_tokens": 0, "seen": False}
    assert result["speculation"] is None


def test_every_prompt_begins_with_a_nonce_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original: Any = getattr(scripted_server, "check")  # noqa: B009

    def watch(body: Any, flags: Any, *, chat: bool) -> Any:
        seen.append(body["messages"][0]["content"])
        return original(body, flags, chat=chat)

    monkeypatch.setattr(scripted_server, "check", watch)
    with ScriptedServer("fast") as server:
        run(Client(server.base_url), Workload(MODEL, warmup=1, sequential=(2, 5), parallel=(3, 5)), 20)
    beginnings = [text[:8] for text in seen]
    assert len(beginnings) == len(set(beginnings)) == 9
    assert all(text.endswith("Write a long story about a lighthouse.") for text in seen)


def test_an_answer_that_ends_by_itself_is_a_failure_when_it_is_not_forced() -> None:
    with ScriptedServer("fast") as server:
        short = Workload(MODEL, prompt="What is the capital of France?", ignore_eos=False, warmup=0, sequential=(1, 100))
        [failure] = run(Client(server.base_url), short, 20)["failures"]
        assert "of 100 tokens, finish_reason stop: it ends by itself before that" in failure
        forced = Workload(MODEL, prompt="What is the capital of France?", warmup=0, sequential=(1, 100))
        assert run(Client(server.base_url), forced, 20)["failures"] == []


def test_garbage_that_shows_only_side_by_side_is_seen() -> None:
    with ScriptedServer({"stream": {"tok_s": 2000.0, "ttft_ms": 5.0}, "fault": {"garbage": "empty", "garbage_from": 2}}) as server:
        result = run(Client(server.base_url), Workload(MODEL, warmup=0, sequential=(2, 60), parallel=(3, 60)), 20)
    assert result["sequential"]["decode_tok_s"]["mean"] > 500
    assert len(result["failures"]) == 3
    assert all("garbage, empty: 60 completion tokens and no visible text" in failure for failure in result["failures"])


def test_other_traffic_is_reported_and_named_with_a_missed_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_throughput_run, "_SETTLE", 0.1)
    with ScriptedServer({"stream": {"tok_s": 400.0, "ttft_ms": 10.0}}) as server:
        other = {"model": MODEL, "messages": [{"role": "user", "content": "Write a long story."}], "stream": True, "max_tokens": 4000}
        exchange = Client(server.base_url).prepare(other)

        def somebody() -> None:
            with contextlib.suppress(ClientError):
                exchange.run(30)

        threading.Thread(target=somebody, daemon=True).start()
        time.sleep(0.2)
        workload = Workload(MODEL, warmup=0, sequential=(1, 60), thresholds={"decode_tok_s_min": 5000.0})
        result = run(Client(server.base_url), workload, 20)
    assert result["other_traffic"]["running_before"] == 1
    assert result["other_traffic"]["foreign_tokens"] > 20
    assert "others were served meanwhile: 1 requests ran before" in result["notes"][0]
    assert "others were served meanwhile" in result["failures"][0]


def test_the_time_for_everything_is_bounded() -> None:
    with ScriptedServer({"stream": {"tok_s": 50.0, "ttft_ms": 2.0}}) as server:
        started = time.monotonic()
        result = run(Client(server.base_url), Workload(MODEL, warmup=0, sequential=(50, 10)), 1.0)
    assert time.monotonic() - started < 8
    assert result["sequential"]["runs"]
    assert "raise timeout" in result["failures"][0]


def test_speculation_is_told_by_the_metrics() -> None:
    flags = ["--model", "m", "--served-model-name", MODEL, "--speculative-config", '{"method": "mtp", "num_speculative_tokens": 4}']
    with ScriptedServer({"stream": {"tok_s": 400.0, "ttft_ms": 5.0, "tokens_per_chunk": 4}}, flags) as server:
        result = run(Client(server.base_url), Workload(MODEL, warmup=0, sequential=(2, 80), parallel=(2, 20), ceiling=CEILING), 20)
    # The limit is one of steps: with four tokens in each the rate may exceed it.
    steps_s = result["speculation"]["steps_s"]
    assert result["roofline"]["share"] == pytest.approx(steps_s / 800, rel=0.02)
    assert result["speculation"]["acceptance_length"] == pytest.approx(4, rel=0.01)
    assert 30 < result["speculation"]["steps_s"] < 130


# --- the module


def module_run(capsys: pytest.CaptureFixture[str], base_url: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
    return run_module(openai_throughput.main, capsys, check, base_url=base_url, model=MODEL, **arguments)


def test_the_module_proves_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer({"stream": {"tok_s": 200.0, "ttft_ms": 5.0}}, api_key="geheim") as server:
        options: dict[str, Any] = {"api_key": "geheim", "warmup": 0, "sequential": {"runs": 2, "tokens": 20}}
        good = module_run(capsys, server.base_url, thresholds={"decode_tok_s_min": 20, "ttft_ms_max": None}, **options)
        assert "failed" not in good
        assert good["changed"] is False
        assert 30 < good["sequential"]["decode_tok_s"]["mean"] < 220
        assert good["roofline"] is None
        assert good["long"] is None
        slow = module_run(capsys, server.base_url, thresholds={"decode_tok_s_min": 300}, **options)
    assert slow["failed"]
    assert slow["msg"].startswith("The throughput is not proven. decode_tok_s_min: measured ")
    assert len(slow["sequential"]["runs"]) == 2
    assert "geheim" not in json.dumps([good, slow])


def test_the_module_reads_the_limit_from_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, MOE_26B, {"attention": NVFP4, "dense_mlp": NVFP4, "experts": NVFP4})
    wanted = {"checkpoint": str(tmp_path), "bandwidth_gb_s": 273, "kv_cache_dtype": "fp8"}
    with ScriptedServer({"stream": {"tok_s": 400.0, "ttft_ms": 5.0}}) as server:
        result = module_run(capsys, server.base_url, warmup=0, long={"tokens": 20}, roofline=wanted)
        limit = result["roofline"]["limit_tok_s"]
        assert limit == pytest.approx(84.3, abs=0.2)
        assert result["roofline"]["share"] == pytest.approx(result["long"]["decode_tok_s"] / limit, abs=1e-3)
        assert result["roofline"]["formats"]["experts"] == "NVFP4"
        missing = {**wanted, "checkpoint": "/nowhere"}
        unknown = module_run(capsys, server.base_url, warmup=0, long={"tokens": 20}, roofline=missing)
        assert "failed" not in unknown
        assert unknown["notes"][0].startswith("the memory-bound limit is not known: no checkpoint can be read in /nowhere")
        bound = {"roofline_share_min": 0.1}
        condemned = module_run(capsys, server.base_url, warmup=0, long={"tokens": 20}, roofline=missing, thresholds=bound)
    assert "roofline_share_min: nothing to hold against it" in condemned["msg"]


def test_in_check_mode_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer("fast") as server:
        assert module_run(capsys, server.base_url, check=True, sequential={"runs": 1, "tokens": 5})["skipped"]
        assert server.requests == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sequential": {"runs": 2}}, "missing required arguments: tokens found in sequential"),
        ({"sequential": {"runs": 0, "tokens": 5}}, "sequential.runs must be at least 1"),
        ({"thresholds": {"decode_tok_s_min": 1}}, "thresholds.decode_tok_s_min needs sequential or long"),
        ({"thresholds": {"decode_min": 1}}, "Unsupported parameters"),
        ({"long": {"tokens": 5}}, "cannot be reached"),
        ({"long": {"tokens": 5}, "prompt": "x" * 9000}, "prompt has 9000 characters, at most 8000 are sent"),
        ({"long": {"tokens": 5}, "thresholds": {"roofline_share_min": 0.5}}, "thresholds.roofline_share_min needs roofline"),
    ],
)
def test_the_module_refuses_what_makes_no_sense(arguments: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = module_run(capsys, "http://127.0.0.1:9", **arguments)
    assert result["failed"]
    assert words in result["msg"]
