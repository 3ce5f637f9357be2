# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The report as a screen of text, for one box and for a hundred: the bad ones with their reasons, the rest summed up."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._report_boxes import BAD, REGRESSED, VERDICTS, Box, boxes, counts
from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import MISSING, figure, percent

LINES = 20  # what the playbook adds below still fits on a screen
WIDTH = 110
_EACH = 8  # up to so many boxes are listed one by one
_EXPLAINED = 5  # of so many the reasons are told
_NAME = 26  # characters
_WHY_LINES = 6

Row = dict[str, str]
_RIGHT = ("probes", "decode tok/s", "TTFT ms", "aggregate", "of limit")


def summary(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines for C(rows), mappings of C(box), C(state), C(evidence), C(failed) and C(why)."""
    found = boxes(rows)
    if not found:
        return []
    troubled = [box for box in found if box.verdict in (*BAD, REGRESSED)][:_EXPLAINED]
    listed = found if len(found) <= _EACH else troubled
    rest = [box for box in found if box not in listed]
    groups = [[box for box in rest if box.verdict == verdict] for verdict in VERDICTS]
    lines = table([*(_row(box) for box in listed), *(_sum(group) for group in groups if group)])
    if len(found) > 1:
        total = ", ".join(f"{count} {verdict}" for verdict, count in counts(found).items())
        lines = [f"{len(found)} boxes: {total}", "", *lines]
    if unlocked := [box.name for box in found if box.port_is_open]:
        names = ", ".join(map(_short, unlocked[:_EXPLAINED])) + (", …" if len(unlocked) > _EXPLAINED else "")
        lines += ["", f"No API key on {names}: whoever reaches the port may use it."]
    if troubled:
        room = min(_WHY_LINES, max(1, (LINES - len(lines) - 1) // len(troubled)))
        lines += ["", *(line for box in troubled for line in _why(box, room))]
    return lines


def table(rows: Sequence[Row]) -> list[str]:
    """Rows of equal keys as aligned lines with a header, numbers to the right; an empty list gives no line."""
    if not rows:
        return []
    keys = list(rows[0])
    width = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}

    def line(cells: Mapping[str, str]) -> str:
        return "  ".join(cells[key].rjust(width[key]) if key in _RIGHT else cells[key].ljust(width[key]) for key in keys).rstrip()

    return [line({key: key for key in keys}), "  ".join("-" * width[key] for key in keys), *(line(row) for row in rows)]


def _row(box: Box) -> Row:
    return {
        "box": _short(box.name),
        "was": box.state,
        "vLLM": box.vllm,
        "log": box.log,
        "probes": box.probes,
        "decode tok/s": figure(box.decode),
        "TTFT ms": figure(box.ttft, 0),
        "aggregate": figure(box.aggregate),
        "of limit": percent(box.share),
        "verdict": box.verdict,
    }


def _sum(group: Sequence[Box]) -> Row:
    """Boxes of one verdict as one row: what all have, or from the least to the most."""
    return {
        "box": f"{len(group)} boxes" if len(group) > 1 else _short(group[0].name),
        "was": _common([box.state for box in group]),
        "vLLM": _common([box.vllm for box in group]),
        "log": _common([box.log for box in group]),
        "probes": _common([box.probes for box in group]),
        "decode tok/s": _range([box.decode for box in group], figure),
        "TTFT ms": _range([box.ttft for box in group], lambda value: figure(value, 0)),
        "aggregate": _range([box.aggregate for box in group], figure),
        "of limit": _range([box.share for box in group], percent),
        "verdict": group[0].verdict,
    }


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else "various"


def _range(values: Sequence[float | None], show: Callable[[float | None], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    least, most = show(min(known)), show(max(known))
    return least if least == most else f"{least.removesuffix(' %')}-{most}"


def _why(box: Box, room: int) -> list[str]:
    lines = textwrap.wrap(box.why, WIDTH, initial_indent=f"{_short(box.name)}: ", subsequent_indent="  ", max_lines=room, placeholder=" …")
    return lines or [f"{_short(box.name)}: it does not say why"]


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
