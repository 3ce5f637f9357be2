# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Where the report's bars, lines and dots lie."""

from __future__ import annotations

import pytest
from ansible_collections.dgx.spark.plugins.plugin_utils._report_chart import (
    DOT,
    LEFT,
    NAMED,
    PITCH,
    RIGHT,
    STACK,
    WIDTH,
    Chart,
    Group,
    Mark,
    Strip,
    bar_chart,
    strip,
)

ARTICLE = [
    Group(
        "run",
        [f"run {number}" for number in range(1, 6)],
        [51.6, 51.5, 51.5, 51.6, 51.6],
        [Mark("threshold", 46.8), Mark("limit", 83.2), Mark("last", None)],
        46.8,
    ),
    Group("long", ["long run"], [51.0], [Mark("limit", 82.0)]),
]


def drawn(groups: list[Group]) -> Chart:
    chart = bar_chart(groups)
    assert chart is not None
    return chart


def striped(values: list[tuple[str, float, bool]], *marks: Mark) -> Strip:
    found = strip(values, marks)
    assert found is not None
    return found


def inside(chart: Chart | Strip) -> bool:
    """Everything but texts, whose size only a browser knows."""
    if isinstance(chart, Strip):
        shapes = [(dot.x - DOT, dot.y - DOT, dot.x + DOT, dot.y + DOT) for dot in chart.dots]
    else:
        shapes = [(rect.x, rect.y, rect.x + rect.width, rect.y + rect.height) for rect in chart.bars]
    shapes += [(line.x, line.top, line.x, line.bottom) for line in chart.lines]
    shapes += [(tick.x, tick.y, tick.x, tick.y) for tick in chart.ticks]
    return all(min(left, top) >= 0 and right <= chart.width and bottom <= chart.height for left, top, right, bottom in shapes)


def test_bars_are_as_long_as_their_values_and_the_limit_is_the_end_of_the_scale() -> None:
    chart = drawn(ARTICLE)
    plot = WIDTH - LEFT - RIGHT
    assert [rect.width for rect in chart.bars] == pytest.approx([value / 83.2 * plot for value in (51.6, 51.5, 51.5, 51.6, 51.6, 51.0)])
    limit = next(line for line in chart.lines if line.kind == "limit")
    assert limit.x == pytest.approx(LEFT + plot)
    assert inside(chart)


def test_a_line_spans_the_rows_that_it_is_for() -> None:
    lines = drawn(ARTICLE).lines
    assert [line.kind for line in lines] == ["threshold", "limit", "limit"], "a value that nobody knows has no line"
    assert (lines[0].top, lines[0].bottom) == (0, 5 * PITCH)
    assert lines[2].bottom - lines[2].top == PITCH
    assert lines[2].top > lines[0].bottom
    assert lines[2].x < lines[1].x, "the long run's own limit is lower"


def test_a_bar_below_its_threshold_is_low() -> None:
    chart = drawn([Group("run", ["a", "b", "c"], [46.7, 46.8, 60], least=46.8), Group("long", ["d"], [1.0])])
    assert [rect.low for rect in chart.bars] == [True, False, False, False]


def test_a_run_without_a_rate_has_a_name_a_dash_and_no_bar() -> None:
    chart = drawn([Group("run", ["run 1", "run 2"], [None, 10.0])])
    assert len(chart.bars) == 1
    assert [label.text for label in chart.names] == ["run 1", "run 2"]
    assert [label.text for label in chart.values] == ["-", "10.0"]
    assert chart.bars[0].y > PITCH, "it stays beside its name"


@pytest.mark.parametrize("groups", [[], [Group("run", [], [])], [Group("run", ["a"], [None], [Mark("limit", 83.2)])]])
def test_without_a_value_there_is_no_chart(groups: list[Group]) -> None:
    assert bar_chart(groups) is None


def test_values_of_zero_are_drawn() -> None:
    chart = drawn([Group("run", ["a"], [0.0])])
    assert chart.bars[0].width == 0
    assert inside(chart)


def test_many_requests_take_no_more_room_than_a_few_and_are_named_together() -> None:
    many = drawn([Group("request", [f"request {number}" for number in range(64)], [20.0 + number / 10 for number in range(64)])])
    few = drawn([Group("request", ["request"] * NAMED, [20.0] * NAMED)])
    assert many.height == pytest.approx(few.height)
    assert len(many.bars) == 64
    assert [label.text for label in (*many.names, *many.values)] == ["64 requests", "20-26"]
    assert inside(many)


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (83.2, ["0", "20", "40", "60", "80"]),
        (170.8, ["0", "50", "100", "150"]),
        (1.2, ["0.00", "0.25", "0.50", "0.75", "1.00"]),
        (9000, ["0", "2,000", "4,000", "6,000", "8,000"]),
        (110.0, ["0", "25", "50", "75", "100"]),
    ],
)
def test_ticks_are_round_and_few(most: float, ticks: list[str]) -> None:
    assert [tick.text for tick in drawn([Group("run", ["a"], [most])]).ticks] == ticks


def test_dots_of_equal_boxes_are_stacked_and_the_stack_is_bounded() -> None:
    found = striped([(f"spark-{number}", 51.6, False) for number in range(100)], Mark("threshold", 46.8))
    assert len({dot.x for dot in found.dots}) == 1
    assert len({dot.y for dot in found.dots}) == 100
    assert max(dot.y for dot in found.dots) - min(dot.y for dot in found.dots) <= STACK
    assert inside(found)


def test_a_dot_lies_where_its_value_is() -> None:
    found = striped([("slow", 31.2, True), ("fast", 51.6, False)], Mark("threshold", 46.8))
    by_name = {dot.name: dot for dot in found.dots}
    slow, fast = by_name["slow: 31.2"], by_name["fast: 51.6"]
    assert (slow.bad, fast.bad) == (True, False)
    assert slow.x < found.lines[0].x < fast.x
    ticks = {tick.text: tick.x for tick in found.ticks}
    a_unit = (ticks["50"] - ticks["35"]) / 15
    assert slow.x == pytest.approx(ticks["35"] - 3.8 * a_unit, abs=DOT)
    assert fast.x == pytest.approx(ticks["50"] + 1.6 * a_unit, abs=DOT)


def test_a_bad_dot_stands_at_the_foot_of_its_stack() -> None:
    found = striped([("a", 50.0, False), ("bad", 50.0, True), ("b", 50.0, False)])
    assert max(found.dots, key=lambda dot: dot.y).bad


@pytest.mark.parametrize("value", [0.0, 0.001, 51.6, 123456.0])
def test_one_box_of_any_speed_is_drawn_inside(value: float) -> None:
    assert inside(striped([("spark-1", value, False)]))


def test_without_a_box_there_is_no_strip() -> None:
    assert strip([], [Mark("threshold", 46.8)]) is None
