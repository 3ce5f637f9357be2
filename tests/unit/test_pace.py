# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What is said of work on bytes while it goes on; the clock is made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._manifest import make_file
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace, Reading, amount, rate_of, share
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import read_all

GB = 10**9


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("count", "text"), [(0, "0 bytes"), (1500, "1.5 kB"), (16_541_000_000, "16.5 GB"), (999, "999 bytes")])
def test_amounts_are_readable(count: int, text: str) -> None:
    assert amount(count) == text


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(6_200_000_000, 16_541_000_000, "6.2 of 16.5 GB (37 %)"), (300, 900, "300 of 900 bytes (33 %)"), (0, 0, "0 of 0 bytes (100 %)")],
)
def test_a_share_is_in_the_unit_of_the_whole(done: int, total: int, text: str) -> None:
    assert share(done, total) == text


@pytest.mark.parametrize(("rate", "text"), [(112e6, "112 MB/s"), (1.14e9, "1.1 GB/s"), (2.5e6, "2.5 MB/s"), (12, "12 bytes/s")])
def test_speeds_are_readable(rate: float, text: str) -> None:
    assert rate_of(rate) == text


def test_a_pace_says_how_far_how_fast_and_how_long() -> None:
    clock = Clock()
    pace = Pace(16 * GB, 1 * GB, clock)
    assert pace.at(1 * GB) == "1.0 of 16.0 GB (6 %)"
    clock.now += 10
    assert pace.at(2 * GB) == "2.0 of 16.0 GB (12 %), 100 MB/s, 140 s left"


def test_the_speed_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    pace = Pace(100 * GB, 0, clock)
    done = 0
    for second in range(80):
        clock.now += 1
        done += GB // 10 if second < 60 else GB // 1000
        text = pace.at(done)
    assert ", 1.0 MB/s, " in text
    assert text.endswith(" 26 h left")


def test_a_pace_that_stands_still_says_for_how_long() -> None:
    clock = Clock()
    pace = Pace(2 * GB, 0, clock)
    clock.now += 1
    pace.at(GB)
    for _second in range(30):
        clock.now += 1
        text = pace.at(GB)
    assert text == "1.0 of 2.0 GB (50 %), no byte for 30 s"
    assert pace.silence() == 30
    clock.now += 1
    pace.at(GB + 1)
    assert pace.silence() == 0


def test_reading_says_which_file_and_how_fast_and_not_too_often() -> None:
    clock, said = Clock(), list[str]()
    reading = Reading(9, 18 * GB, said.append, clock)
    for _piece in range(10):
        reading.read(GB // 100)
    assert said == []
    reading.ended()
    reading.ended()
    clock.now += 2
    reading.read(2 * GB - GB // 10)
    assert said == ["verifying 3 of 9 files, 2.0 of 18.0 GB (11 %), 1.0 GB/s, 16 s left"]


def test_files_that_are_hashed_are_counted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(Reading, "read", lambda self, count: counted.append(count))
    files = [make_file(name, 1, "a" * 64, None) for name in ("a", "b")]
    paths = {}
    for number, file in enumerate(files, 1):
        (tmp_path / file.path).write_bytes(bytes(number * 1_500_000))
        paths[file.path] = str(tmp_path / file.path)
    assert set(read_all(paths, files)) == {"a", "b"}
    assert sum(counted) == 4_500_000
