# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The geometry of the report's charts, in units of the drawing: nothing here knows SVG, colours or boxes.

A drawing is WIDTH units wide, so that its text is readable on a phone. Values are rates, and None is a rate that nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import figure

WIDTH = 440.0
LEFT, RIGHT = 84.0, 58.0  # the columns of names and of values
PITCH, BAR = 20.0, 0.65  # from row to row, and the share of it that a bar takes
GAP = 7.0  # between groups
AXIS = 22.0
NAMED = 8  # a group of more rows is drawn as one block of the height of so many
DOT = 3.2  # radius
STACK = 110.0  # the height of the highest stack of dots
_LEAST = 0.01  # a scale that ends below has no end


@dataclass(frozen=True)
class Mark:
    """A value to compare with: C(kind) is threshold, limit or last."""

    kind: str
    value: float | None


@dataclass(frozen=True)
class Group:
    """Rows of one kind (C(kind) is run, long, all or request), and what they are compared with. C(least) is too slow below it."""

    kind: str
    names: Sequence[str]
    values: Sequence[float | None]
    marks: Sequence[Mark] = ()
    least: float | None = None


@dataclass(frozen=True)
class Bar:
    kind: str
    x: float
    y: float
    width: float
    height: float
    low: bool


@dataclass(frozen=True)
class Line:
    kind: str
    x: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Label:
    """A text whose baseline ends (names, values), or has its middle (ticks), at x and y."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    name: str
    bad: bool


@dataclass(frozen=True)
class Chart:
    """Horizontal bars; names at the left, values at the right, a scale from zero below."""

    height: float
    bars: list[Bar]
    lines: list[Line]
    names: list[Label]
    values: list[Label]
    ticks: list[Label]
    width: float = WIDTH


@dataclass(frozen=True)
class Strip:
    """A dot for each box on a scale that begins near the least; dots that would cover each other are stacked."""

    height: float
    radius: float
    dots: list[Dot]
    lines: list[Line]
    ticks: list[Label]
    width: float = WIDTH


def bar_chart(groups: Sequence[Group]) -> Chart | None:
    """The bars of C(groups), one below the other; None when no value is known."""
    known = [value for group in groups for value in group.values if value is not None]
    if not known:
        return None
    most = max([*known, *(mark.value for group in groups for mark in group.marks if mark.value is not None), _LEAST])
    scale = (WIDTH - LEFT - RIGHT) / most
    bars: list[Bar] = []
    lines: list[Line] = []
    names: list[Label] = []
    values: list[Label] = []
    y = 0.0
    for group in groups:
        count = len(group.values)
        if not count:
            continue
        pitch = PITCH if count <= NAMED else PITCH * NAMED / count
        height = pitch * count
        for index, value in enumerate(group.values):
            if value is not None:
                top = y + pitch * (index + (1 - BAR) / 2)
                low = group.least is not None and value < group.least
                bars.append(Bar(group.kind, LEFT, top, max(value, 0.0) * scale, pitch * BAR, low))
        written = _written(group)
        step = height / len(written)
        for index, (name, value_text) in enumerate(written):
            baseline = y + step * (index + 0.5) + 4
            names.append(Label(LEFT - 8, baseline, name))
            values.append(Label(WIDTH - 2, baseline, value_text))
        lines += [Line(mark.kind, LEFT + mark.value * scale, y, y + height) for mark in group.marks if mark.value is not None]
        y += height + GAP
    bottom = y - GAP
    ticks = [Label(LEFT + value * scale, bottom + AXIS - 6, _tick(value, step)) for value, step in _ticks(0.0, most, 5)]
    return Chart(bottom + AXIS, bars, lines, names, values, ticks)


def strip(values: Sequence[tuple[str, float, bool]], marks: Sequence[Mark]) -> Strip | None:
    """Boxes as (name, value, bad); None when there is none."""
    if not values:
        return None
    values = [(name, max(value, 0.0), bad) for name, value, bad in values]
    shown = [value for _name, value, _bad in values] + [mark.value for mark in marks if mark.value is not None]
    pad = max((max(shown) - min(shown)) * 0.04, max(shown) * 0.005, _LEAST)
    least = max(0.0, min(shown) - pad)
    most = max(shown) + pad
    side = 16.0  # a tick's text reaches over the ends of the scale
    scale = (WIDTH - 2 * side) / (most - least)
    # Dots of one column stand on each other, at most a radius beside their value.
    columns: dict[int, list[tuple[str, float, bool]]] = {}
    for entry in sorted(values, key=lambda entry: (not entry[2], entry[1])):
        columns.setdefault(round((entry[1] - least) * scale / (2 * DOT)), []).append(entry)
    highest = max(len(entries) for entries in columns.values())
    pitch = min(2 * DOT + 0.6, STACK / highest)
    bottom = pitch * (highest - 1) + 2 * DOT + 6
    dots = [
        Dot(side + column * 2 * DOT, bottom - DOT - 2 - pitch * index, f"{name}: {figure(value)}", bad)
        for column, entries in columns.items()
        for index, (name, value, bad) in enumerate(entries)
    ]
    lines = [Line(mark.kind, side + (mark.value - least) * scale, 0, bottom) for mark in marks if mark.value is not None]
    ticks = [Label(side + (value - least) * scale, bottom + AXIS - 6, _tick(value, step)) for value, step in _ticks(least, most, 6)]
    return Strip(bottom + AXIS, DOT, dots, lines, ticks)


def _written(group: Group) -> list[tuple[str, str]]:
    """The texts (name, value) beside a group: of each row, or of all together where rows are too thin."""
    if len(group.values) <= NAMED:
        return [(name, figure(value)) for name, value in zip(group.names, group.values, strict=True)]
    known = [value for value in group.values if value is not None]
    spread = f"{min(known):.0f}-{max(known):.0f}" if known else figure(None)
    return [(f"{len(group.values)} {group.kind}s", spread)]


def _ticks(least: float, most: float, wanted: int) -> list[tuple[float, float]]:
    """Round values between the ends, at most C(wanted) of them and one, each with the distance between two."""
    raw = (most - least) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999999)
    first = math.ceil(least / step - 1e-9)
    return [(index * step, step) for index in range(first, math.floor(most / step + 1e-9) + 1)]


def _tick(value: float, step: float) -> str:
    """As many digits as the step needs."""
    digits = next((count for count in range(6) if math.isclose(step * 10**count, round(step * 10**count))), 6)
    return f"{value:,.{digits}f}"
