# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report as a screen of text."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.plugin_utils._report_boxes import boxes, counts
from ansible_collections.dgx.spark.plugins.plugin_utils._report_text import WIDTH, summary, table
from unit import report_rows

SCREEN = 24 - 3  # the playbook adds three lines


def test_one_box_is_one_row_with_its_figures() -> None:
    lines = summary([report_rows.row()])
    assert len(lines) == 3
    assert lines[2].split() == ["spark-1", "fresh", "0.19.1.dev6", "ok", "9/9", "51.6", "53", "114.6", "62", "%", "proven"]


def test_numbers_are_aligned_to_the_right() -> None:
    assert table([{"box": "spark-1", "probes": "9/9"}, {"box": "s", "probes": "10/10"}]) == [
        "box      probes",
        "-------  ------",
        "spark-1     9/9",
        "s         10/10",
    ]
    assert table([]) == []


def test_what_was_not_measured_is_a_dash() -> None:
    row = report_rows.row(evidence=report_rows.evidence() | {"throughput": {}})
    assert summary([row])[2].split()[5:9] == ["-", "-", "-", "-"]


def test_a_box_without_evidence_says_so() -> None:
    assert summary([report_rows.row(evidence=None)])[2].split() == ["spark-1", "fresh", *["-"] * 7, "no", "evidence"]


def test_an_open_port_is_said_to_be_open() -> None:
    def row(name: str, wants_key: bool) -> dict[str, Any]:
        seen = report_rows.evidence()
        return report_rows.row(box=name, evidence=seen | {"container": seen["container"] | {"wants_key": wants_key}})

    assert not any("API key" in line for line in summary([row("spark-1", wants_key=True), report_rows.row()]))
    assert "No API key on spark-1: whoever reaches the port may use it." in summary([row("spark-1", wants_key=False)])
    many = summary([row(f"spark-{number}", wants_key=False) for number in range(1, 101)])
    assert "No API key on spark-1, spark-2, spark-3, spark-4, spark-5, …: whoever reaches the port may use it." in many
    assert len(many) <= SCREEN


def test_a_small_fleet_has_a_row_for_each_box_the_worst_first() -> None:
    lines = summary([report_rows.row(), report_rows.regressed(), report_rows.lost(), report_rows.slow()])
    assert lines[0] == "4 boxes: 1 failed, 1 stopped, 1 regressed, 1 proven"
    assert [line.split()[0] for line in lines[4:8]] == ["spark-2", "spark-4", "spark-5", "spark-1"]


def test_a_failed_box_says_why_in_full_below_the_table() -> None:
    row = report_rows.slow()
    lines = summary([row, report_rows.row()])
    begin = next(index for index, line in enumerate(lines) if line.startswith("spark-2: "))
    assert " ".join(" ".join(lines[begin:]).split()) == "spark-2: " + row["why"]


def test_a_box_that_failed_is_shown_with_what_failed_and_not_with_what_serves() -> None:
    line = next(line for line in summary([report_rows.slow()]) if line.startswith("spark-2 "))
    assert "31.2" in line
    assert "51.6" not in line


def test_a_server_that_is_ready_with_the_wrong_backend_has_no_good_log() -> None:
    assert boxes([report_rows.garbage()])[0].log == "failed"
    assert boxes([report_rows.slow()])[0].log == "ok"


def test_of_a_hundred_boxes_the_bad_one_has_a_row_and_the_others_are_summed_up() -> None:
    lines = summary(report_rows.fleet(100))
    assert lines[0] == "100 boxes: 1 failed, 99 proven"
    assert lines[4].split()[0] == "spark-07"
    assert " ".join(lines[5].split()) == "99 boxes serving 0.19.1.dev6 ok 9/9 51.1-52.0 52-54 113.2-115.9 61-63 % proven"
    assert any(line.startswith("spark-07: ") for line in lines)


def test_boxes_that_differ_are_summed_up_as_various() -> None:
    rows = report_rows.fleet(100)
    rows[50]["evidence"]["startup"]["vllm_version"] = "0.20.2"
    assert "various" in summary(rows)[5]


@pytest.mark.parametrize("bad", [0, 1, 3, 5, 9, 50, 100])
@pytest.mark.parametrize("total", [8, 100])
def test_it_stays_within_a_screen(total: int, bad: int) -> None:
    kinds = (report_rows.slow, report_rows.garbage, report_rows.lost, report_rows.regressed)
    rows: list[dict[str, Any]] = [kinds[index % 4](f"spark-{index}") for index in range(min(bad, total))]
    rows += [report_rows.row(f"a-quite-long-name-of-a-spark-{index}.example.internal") for index in range(total - len(rows))]
    if len(rows) > 90:
        rows[90] = report_rows.row("untouched", evidence=None)
    lines = summary(rows)
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= max(WIDTH, 120)
    shown = [line for line in lines if line.startswith("spark-") and ": " in line]
    assert len(shown) == min(bad, total, 5), "some of the reasons are always told"


def test_no_box_gives_no_line() -> None:
    assert summary([]) == []


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert "\x1b" not in "\n".join(summary([report_rows.row(why="\x1b[2Jcleared")]))


def test_boxes_are_sorted_as_people_count() -> None:
    names = [box.name for box in boxes([report_rows.row(name) for name in ("spark-10", "spark-2", "spark-1", "10.0.0.9", "a")])]
    assert names == ["10.0.0.9", "a", "spark-1", "spark-2", "spark-10"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (report_rows.row(), "proven"),
        (report_rows.slow(), "failed"),
        (report_rows.row(evidence=report_rows.evidence(verdict="failed", failures=["x"])), "failed"),
        (report_rows.lost(), "stopped"),
        (report_rows.row(why="the disk is full"), "stopped"),
        (report_rows.row(why="No route to host.", outcome="lost"), "lost"),
        (report_rows.slow() | {"outcome": "lost"}, "lost"),
        (report_rows.regressed(), "regressed"),
        (report_rows.row(evidence=None), "no evidence"),
        ({"box": "spark-1"}, "no evidence"),
    ],
)
def test_the_verdict_follows_from_what_happened(row: dict[str, Any], verdict: str) -> None:
    assert counts(boxes([row])) == {verdict: 1}


def test_the_effect_is_what_the_message_says_beside_the_failures() -> None:
    assert boxes([report_rows.slow()])[0].effect == "gemma4-nvfp4 is not proven. What served before was restored and answers again."
    assert boxes([report_rows.lost()])[0].effect == report_rows.lost()["why"]
    assert boxes([report_rows.row(evidence=report_rows.evidence(verdict="failed", failures=["x", "y"]))])[0].effect == ""
