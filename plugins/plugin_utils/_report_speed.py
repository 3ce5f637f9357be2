# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What the report's page says of a measurement: the numbers that matter, the charts, each request, and how to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._report_boxes import Box
from ansible_collections.dgx.spark.plugins.plugin_utils._report_chart import Chart, Group, Mark, bar_chart
from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import at, clean, figure, mappings, number, percent, text, texts

_MARKS = {"threshold": "threshold", "limit": "memory-bound limit", "last": "last time"}


@dataclass(frozen=True)
class Figure:
    """A measured number with its unit and what it is compared with. C(bad): it misses its threshold."""

    name: str
    value: str
    unit: str
    note: str
    bad: bool = False


@dataclass(frozen=True)
class Drawing:
    """A chart with its title and the values of its marks as (kind, text)."""

    title: str
    chart: Chart
    legend: list[tuple[str, str]]


def figures(box: Box) -> list[Figure]:
    """The four numbers that matter, with what each is compared with; none without a measurement."""
    speed, previous = at(box.seen, "throughput"), at(box.seen, "previous")
    if not speed:
        return []
    decode_min, aggregate_min = number(speed, "thresholds", "decode_tok_s_min"), number(speed, "thresholds", "aggregate_tok_s_min")
    ttft_max, share_min = number(speed, "thresholds", "ttft_ms_max"), number(speed, "thresholds", "roofline_share_min")
    limit, deviation = number(speed, "roofline", "limit_tok_s"), number(speed, "sequential", "decode_tok_s", "stdev")
    requests = len(mappings(speed, "parallel", "requests"))
    return [
        Figure(
            "Decode" + (f" ± {figure(deviation, 2)}" if deviation is not None else ""),
            figure(box.decode),
            "tok/s",
            _beside(("at least", decode_min, 1, ""), ("last time", number(previous, "decode_tok_s"), 1, "")),
            _below(box.decode, decode_min),
        ),
        Figure(
            "Time to first token",
            figure(box.ttft, 0),
            "ms",
            _beside(("at most", ttft_max, 0, ""), ("last time", number(previous, "ttft_ms"), 0, "")),
            _below(ttft_max, box.ttft),
        ),
        Figure(
            f"Aggregate of {requests}" if requests else "Aggregate",
            figure(box.aggregate),
            "tok/s",
            _beside(("at least", aggregate_min, 1, ""), ("last time", number(previous, "aggregate_tok_s"), 1, "")),
            _below(box.aggregate, aggregate_min),
        ),
        Figure(
            "Of the memory-bound limit",
            percent(box.share).removesuffix(" %"),
            "%" if box.share is not None else "",
            _beside(("limit", limit, 1, "tok/s"), ("at least", None if share_min is None else share_min * 100, 0, "%")),
            _below(box.share, share_min),
        ),
    ]


def _beside(*parts: tuple[str, float | None, int, str]) -> str:
    """What is known of (word, value, digits, unit), in one line."""
    return ", ".join(f"{word} {figure(value, digits, unit)}" for word, value, digits, unit in parts if value is not None)


def _below(value: float | None, bound: float | None) -> bool:
    return value is not None and bound is not None and value < bound


def drawings(seen: Mapping[str, Any]) -> list[Drawing]:
    """The charts of single and of parallel requests, as far as they were measured."""
    speed = at(seen, "throughput")
    decode_min, aggregate_min = number(speed, "thresholds", "decode_tok_s_min"), number(speed, "thresholds", "aggregate_tok_s_min")
    limit, long_limit = number(speed, "roofline", "limit_tok_s"), number(speed, "roofline", "long_limit_tok_s")
    last = number(seen, "previous", "decode_tok_s")
    runs = [number(run, "decode_tok_s") for run in mappings(speed, "sequential", "runs")]
    long = [number(speed, "long", "decode_tok_s")] if at(speed, "long") else []
    single = [Mark("threshold", decode_min), Mark("limit", limit), Mark("last", last)]
    # The mean of the runs is what is judged; the long run is, where there are no others.
    of_long = [Mark("limit", long_limit if long_limit is not None else limit), *([] if runs else [single[0], single[2]])]
    alone = [
        Group("run", [f"run {index}" for index in range(1, len(runs) + 1)], runs, single if runs else [], decode_min),
        Group("long", ["long run"] * len(long), long, of_long if long else [], None if runs else decode_min),
    ]
    requests = [number(request, "decode_tok_s") for request in mappings(speed, "parallel", "requests")]
    marks = [
        Mark("threshold", aggregate_min),
        Mark("limit", number(speed, "roofline", "aggregate_limit_tok_s")),
        Mark("last", number(seen, "previous", "aggregate_tok_s")),
    ]
    together = [
        Group("all", ["together"], [number(speed, "parallel", "aggregate_tok_s")], marks, aggregate_min),
        Group("request", [f"request {index}" for index in range(1, len(requests) + 1)], requests),
    ]
    tokens = number(speed, "long", "tokens")
    found = [
        ("One request at a time" + (f"; the long run has {figure(tokens, 0)} tokens" if tokens else ""), alone, single),
        (f"{len(requests) or 'Several'} requests at once", together, marks),
    ]
    return [Drawing(title, chart, legend(shown)) for title, groups, shown in found if (chart := bar_chart(groups))]


def legend(marks: Sequence[Mark]) -> list[tuple[str, str]]:
    """What the marks of a chart say, as (kind, text)."""
    return [(mark.kind, f"{_MARKS[mark.kind]} {figure(mark.value)}") for mark in marks if mark.value is not None]


def runs(seen: Mapping[str, Any]) -> list[list[str]]:
    """Each request in numbers: name, tokens, decode tok/s, end-to-end tok/s, TTFT in ms."""
    speed = at(seen, "throughput")
    long = at(speed, "long")
    found = [
        *((f"run {index}", run) for index, run in enumerate(mappings(speed, "sequential", "runs"), 1)),
        *([("long run", long)] if long else []),
        *((f"request {index}", run) for index, run in enumerate(mappings(speed, "parallel", "requests"), 1)),
    ]
    return [
        [name, figure(number(run, "tokens"), 0), *(figure(number(run, key)) for key in ("decode_tok_s", "e2e_tok_s", "ttft_ms"))]
        for name, run in found
    ]


def remarks(seen: Mapping[str, Any]) -> list[str]:
    """What one has to know to read the measurement, as sentences."""
    speed = at(seen, "throughput")
    found = texts(speed, "notes")
    bandwidth, weights, cache = (number(speed, "roofline", key) for key in ("bandwidth_gb_s", "weights_gb", "kv_gb"))
    if bandwidth is not None and weights is not None:
        context = number(speed, "roofline", "context_tokens")
        found.append(
            f"The limit: {figure(bandwidth, 0)} GB/s of memory, over {figure(weights, 3)} GB of weights"
            + (f" and {figure(cache, 3)} GB of KV cache" if cache is not None else "")
            + " that each token reads"
            + (f" (at {figure(context, 0)} tokens of context)." if context is not None else ".")
        )
    formats = at(speed, "roofline", "formats")
    if isinstance(formats, Mapping) and formats:
        found.append("Weights: " + ", ".join(f"{clean(str(part))} {text(formats, part)}" for part in formats) + ".")
    fairness = number(speed, "parallel", "fairness")
    if fairness is not None:
        found.append(f"The slowest parallel request had {percent(fairness)} of the fastest one's speed.")
    accepted = number(speed, "speculation", "acceptance_length")
    if accepted is not None:
        steps = number(speed, "speculation", "steps_s")
        found.append(f"Speculation: {figure(accepted, 2)} tokens a step" + (f", {figure(steps)} steps/s." if steps is not None else "."))
    if at(speed, "other_traffic", "seen"):
        before, foreign = (number(speed, "other_traffic", key) for key in ("running_before", "foreign_tokens"))
        found.append(
            "Others used the server meanwhile"
            + (f": {figure(before, 0)} requests ran before" if before is not None else "")
            + (f", {figure(foreign, 0)} tokens were not ours." if foreign is not None else ".")
        )
    return found
