# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The fault table says what the tests show: every row names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 5


def rows() -> list[list[str]]:
    """The cells of every row."""
    lines = (ROOT / "docs" / "reliability.md").read_text().splitlines()
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [row for row in found if row[0] != "fault"]


def test_there_are_at_least_forty_rows_and_none_is_there_twice() -> None:
    faults = [row[0] for row in rows()]
    assert len(faults) >= 40
    assert [fault for fault in faults if faults.count(fault) > 1] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_is_whole_and_its_tests_exist(row: list[str]) -> None:
    assert len(row) == COLUMNS
    assert all(row), f"an empty cell: {row}"
    named = re.findall(r"`((?:\w+/)+test_\w+\.py)::(test_\w+)`", row[-1])
    assert named, f"no test is named in {row[-1]}"
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"{file} has no {name}"
