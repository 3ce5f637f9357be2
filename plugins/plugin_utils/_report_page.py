# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The report as one HTML file: no script, no network, for one box and for a hundred.

Answers, log lines and error texts are somebody else's. The template escapes all that it is given (Ansible's own engine does not), and the
page forbids scripts and requests to itself.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._report_boxes import BAD, Box, boxes, counts
from ansible_collections.dgx.spark.plugins.plugin_utils._report_chart import Mark, Strip, strip
from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import clean, figure, moment, number, percent, text
from ansible_collections.dgx.spark.plugins.plugin_utils._report_section import section
from ansible_collections.dgx.spark.plugins.plugin_utils._report_speed import legend
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

SPREAD = 5  # from so many measured boxes on, their spread is drawn


@dataclass(frozen=True)
class Fleet:
    """What many boxes have in common: a drawing of their decode speeds, and the least, middle and largest of each figure."""

    strip: Strip
    legend: list[tuple[str, str]]
    spread: list[list[str]]


def page(rows: Sequence[Mapping[str, Any]], run: str, recipe: Mapping[str, Any]) -> str:
    """The page for C(rows) (see the filter report_page) of the run C(run), which asked for C(recipe)."""
    found, asked = boxes(rows), text(recipe, "name")
    return _template().render(
        run=moment(clean(run)),
        recipe=asked,
        about=text(recipe, "summary"),
        counts=counts(found),
        fleet=_fleet(found),
        sections=[section(box, index, len(found), asked) for index, box in enumerate(found, 1)],
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": figure, "percent": percent, "unit": _unit}
    return environment.get_template("_report_page.html.j2")


def _unit(value: float) -> str:
    """A coordinate: tenths of a unit are finer than anybody sees."""
    return f"{value:.1f}"


def _fleet(found: Sequence[Box]) -> Fleet | None:
    measured = [(box, box.decode) for box in found if box.decode is not None]
    if len(measured) < SPREAD:
        return None
    # The limit would squeeze the boxes together, and is in each one's own chart.
    marks = [Mark("threshold", _shared([number(box.seen, "throughput", "thresholds", "decode_tok_s_min") for box, _value in measured]))]
    drawn = strip([(box.name, value, box.verdict in BAD) for box, value in measured], marks)
    if drawn is None:
        return None
    lines = [("Decode tok/s", 1, "decode"), ("TTFT ms", 0, "ttft"), ("Aggregate tok/s", 1, "aggregate")]
    spread = [_spread(title, digits, [(getattr(box, name), box.name) for box in found]) for title, digits, name in lines]
    return Fleet(drawn, legend(marks), [line for line in spread if line])


def _shared(values: Sequence[float | None]) -> float | None:
    """The value that all have, or None."""
    return values[0] if len(set(values)) == 1 else None


def _spread(title: str, digits: int, values: Sequence[tuple[float | None, str]]) -> list[str]:
    known = sorted((value, name) for value, name in values if value is not None)
    if not known:
        return []
    (least, lowest), (most, highest) = known[0], known[-1]
    middle = statistics.median(value for value, _name in known)
    return [title, figure(least, digits), lowest, figure(middle, digits), figure(most, digits), highest]
