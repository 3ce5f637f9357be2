# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""From the times and token counts of streams to tok/s.

N is the server's count of completion tokens, t_send the moment before the request is sent on an open connection.

    ttft_ms        = (t of the first visible output - t_send) · 1000
    decode_tok_s   = (N - n_first) / (t_last - t_first)
    e2e_tok_s      = N / (t_last - t_send)
    aggregate      = sum of N / (last t_last - first t_send), over requests that start together

t_first is when the first visible output arrived and n_first how many tokens were there by then: all of the first chunk's, which speculative
decoding makes several of, all that came in the same packet, and those that a parser swallowed before. t_last is when the count reached N.
Both counts come from the usage in each chunk (continuous_usage_stats). A server that counts only at the end gives no n_first; then each of
its c output chunks is taken to hold N / c tokens, which is exact where every chunk holds equally many.

Output that was held back and comes at once would make this rate absurd, for its tokens were generated before t_first. Chunks right after
the first one that follow each other five times closer than on average were held back (or catch up with a late first one): t_first and
n_first are those of the last of them then. If less than 5 % of the time passed after t_first, all of it was one burst, and there is no
decode rate (null), only the e2e rate.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Arrival, Reply

# Closer than this share of the mean gap, two chunks came out of one buffer.
_BURST_GAP = 0.2
# With less of the whole time than this after the first output, nothing was streamed.
_STREAMED_SHARE = 0.05


class MeasureError(Exception):
    """A stream cannot be measured; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """One measured request. Rates are in tokens per second; C(started) and C(ended) in seconds of the same clock."""

    tokens: int
    decode_tok_s: float | None
    e2e_tok_s: float
    ttft_ms: float | None
    started: float
    ended: float
    # How many tokens had come with the last visible character; None when the server counts only at the end.
    text_tokens: int | None

    def result(self) -> dict[str, Any]:
        """The run in the shape that modules return."""
        return {
            "tokens": self.tokens,
            "decode_tok_s": _rounded(self.decode_tok_s),
            "e2e_tok_s": _rounded(self.e2e_tok_s),
            "ttft_ms": _rounded(self.ttft_ms),
        }


@dataclass(frozen=True)
class _Point:
    """So many tokens were here at this time."""

    at: float
    tokens: float


def measure(reply: Reply) -> Run:
    """Measure one stream. Raises MeasureError when the server does not count tokens, or nothing came."""
    total = reply.completion_tokens
    if total is None:
        raise MeasureError(
            "the server sent no usage, so its tokens are not known: it must support stream_options.include_usage (a proxy in between"
            " may drop it)"
        )
    first = next((index for index, arrival in enumerate(reply.arrivals) if arrival.visible), None)
    counted = [arrival for arrival in reply.arrivals if arrival.tokens]
    if total == 0 or not reply.arrivals or (first is None and not counted):
        raise MeasureError("the stream brought no token")
    points = _points(reply.arrivals, first, float(total))
    last = points[-1].at
    return Run(
        tokens=total,
        decode_tok_s=_decode(points, reply.sent),
        e2e_tok_s=total / (last - reply.sent),
        ttft_ms=None if first is None else (reply.arrivals[first].at - reply.sent) * 1000,
        started=reply.sent,
        ended=last,
        text_tokens=_text_tokens(reply.arrivals),
    )


def _points(arrivals: Sequence[Arrival], first: int | None, total: float) -> list[_Point]:
    """When how many tokens were here, from the first visible output (or the first token, if all of them are invisible) on."""
    continuous = [arrival for arrival in arrivals if arrival.tokens is not None and (arrival.visible or arrival.ends)]
    if len(continuous) > 1 or first is None:
        points: list[_Point] = []
        for arrival in arrivals[first or 0 :]:
            if arrival.tokens and (not points or arrival.tokens > points[-1].tokens):
                points.append(_Point(arrival.at, arrival.tokens))
        return points
    output = [arrival for arrival in arrivals if arrival.visible or arrival.ends]
    return [_Point(arrival.at, total * number / len(output)) for number, arrival in enumerate(output, 1)]


def _decode(points: Sequence[_Point], sent: float) -> float | None:
    begin, end = points[0], points[-1]
    span = end.at - begin.at
    if len(points) < 2 or span <= 0:
        return None
    if span < _STREAMED_SHARE * (end.at - sent):
        return None
    gap = _BURST_GAP * span / (len(points) - 1)
    for point in points[1:-1]:
        if point.at - begin.at > gap:
            break
        begin = point
    return (end.tokens - begin.tokens) / (end.at - begin.at)


def _text_tokens(arrivals: Sequence[Arrival]) -> int | None:
    return max((arrival.tokens for arrival in arrivals if arrival.visible and arrival.tokens is not None), default=None)


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """{mean, stdev, cv, min, max} of what is known; stdev is the sample's, cv is stdev / mean, both null for fewer than two values."""
    known = [value for value in values if value is not None]
    if not known:
        return dict.fromkeys(("mean", "stdev", "cv", "min", "max"))
    mean = statistics.fmean(known)
    stdev = statistics.stdev(known) if len(known) > 1 else None
    return {
        "mean": _rounded(mean),
        "stdev": _rounded(stdev),
        "cv": None if stdev is None or mean == 0 else round(stdev / mean, 5),
        "min": _rounded(min(known)),
        "max": _rounded(max(known)),
    }


def sequential(runs: Sequence[Run]) -> dict[str, Any]:
    """Runs one after the other, in the shape that modules return."""
    return {
        "runs": [run.result() for run in runs],
        "decode_tok_s": spread([run.decode_tok_s for run in runs]),
        "e2e_tok_s": spread([run.e2e_tok_s for run in runs]),
        "ttft_ms": spread([run.ttft_ms for run in runs]),
    }


def parallel(runs: Sequence[Run]) -> dict[str, Any]:
    """Runs that started together. C(fairness) is the slowest one's end-to-end rate over the fastest one's: 1 when all are served alike."""
    rates = [run.e2e_tok_s for run in runs]
    span = max(run.ended for run in runs) - min(run.started for run in runs)
    return {
        "aggregate_tok_s": _rounded(sum(run.tokens for run in runs) / span),
        "fairness": round(min(rates) / max(rates), 4),
        "decode_tok_s": spread([run.decode_tok_s for run in runs]),
        "ttft_ms": spread([run.ttft_ms for run in runs]),
        "requests": [run.result() for run in runs],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


# --- what is too slow

THRESHOLDS = ("decode_tok_s_min", "aggregate_tok_s_min", "ttft_ms_max", "roofline_share_min")
_SLOW = (
    "look whether something else uses the box ('nvidia-smi', 'ollama ps', 'docker stats'), whether the clocks are capped"
    " ('nvidia-smi -q -d CLOCK'), and which backends the startup log names"
)


def contradictions(thresholds: Mapping[str, float | None], parts: Mapping[str, Any]) -> list[str]:
    """Thresholds that nothing could be held against. C(parts) are the options sequential, long, parallel and roofline."""
    problems = []
    wanted = {name for name, value in thresholds.items() if value is not None}
    single = parts.get("sequential") or parts.get("long")
    for name in ("decode_tok_s_min", "ttft_ms_max", "roofline_share_min"):
        if name in wanted and not single:
            problems.append(f"thresholds.{name} needs sequential or long")
    if "aggregate_tok_s_min" in wanted and not parts.get("parallel"):
        problems.append("thresholds.aggregate_tok_s_min needs parallel")
    if "roofline_share_min" in wanted and not parts.get("roofline"):
        problems.append("thresholds.roofline_share_min needs roofline")
    return problems


def too_slow(thresholds: Mapping[str, float | None], measured: Mapping[str, Any]) -> list[str]:
    """What misses its threshold: one sentence each, with the threshold, the measured value and what to do.

    C(measured) has the results sequential, long, parallel and roofline, each may be null.
    """
    decode, ttft = single_stream(measured)
    aggregate = (measured.get("parallel") or {}).get("aggregate_tok_s")
    roofline = measured.get("roofline") or {}
    limit = roofline.get("limit_tok_s")
    checks: list[tuple[str, float | None, str, str, Callable[[float, float], bool]]] = [
        ("decode_tok_s_min", decode, "tok/s", _SLOW, lambda value, bound: value < bound),
        ("aggregate_tok_s_min", aggregate, "tok/s over all requests", _SLOW + "; see max-num-seqs", lambda value, bound: value < bound),
        (
            "ttft_ms_max",
            ttft,
            "ms to the first output",
            "the first request after a start compiles kernels: raise warmup; otherwise requests wait, or the prompt is long",
            lambda value, bound: value > bound,
        ),
        (
            "roofline_share_min",
            roofline.get("share"),
            f"of the limit of {limit:.4g} tok/s" if limit else "of the limit, which is not known",
            _SLOW,
            lambda value, bound: value < bound,
        ),
    ]
    failures = []
    for name, value, unit, remedy, misses in checks:
        bound = thresholds.get(name)
        if bound is None:
            continue
        side = "at most" if name.endswith("_max") else "at least"
        if value is None:
            failures.append(
                f"{name}: nothing to hold against it, because the output came in one burst or not at all, or the checkpoint could not be"
                f" read; wanted {side} {bound:g} {unit}"
            )
        elif misses(value, bound):
            failures.append(f"{name}: measured {value:.4g} {unit}, wanted {side} {bound:g}. {remedy[0].upper()}{remedy[1:]}")
    return failures


def single_stream(measured: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """(decode tok/s, TTFT in ms) of one request alone: the means of the sequential runs, else the long run's."""
    runs = measured.get("sequential")
    if runs:
        return runs["decode_tok_s"]["mean"], runs["ttft_ms"]["mean"]
    run = measured.get("long") or {}
    return run.get("decode_tok_s"), run.get("ttft_ms")
