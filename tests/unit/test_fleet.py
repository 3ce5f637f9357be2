# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which box of a run is the seed, whatever order the boxes come in: on made-up times, with the real file between them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.plugin_utils import _fleet
from ansible_collections.dgx.spark.plugins.plugin_utils._fleet import ALONE, DONE, HAS, LACKS, LOOKING, Fleet, Part


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Run:
    """Boxes of one run, each seen by its own process."""

    def __init__(self, folder: Path, boxes: int, slots: int) -> None:
        self.clock = Clock()
        self.hosts = [f"spark-{number}" for number in range(1, boxes + 1)]
        self.boxes = {
            host: Fleet(folder, ("hub", "repo", "commit"), host, self.hosts, slots, self.clock, self.clock.sleep) for host in self.hosts
        }

    def __getitem__(self, number: int) -> Fleet:
        return self.boxes[f"spark-{number}"]

    def note(self, state: str, *numbers: int) -> None:
        for number in numbers:
            self[number].note(state)

    def waited(self, number: int) -> tuple[Part, float]:
        """A box' part, and the seconds that it waited for that."""
        began = self.clock.now
        return self[number].part(), round(self.clock.now - began, 1)


def test_the_first_that_lacks_the_files_seeds_and_the_rest_follow(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(LACKS, 1, 2, 3)
    part, seconds = run.waited(2)
    assert part.seed and part.whom == "spark-2" and seconds == 0
    assert run[2].beat("http://10.0.0.2:6881/x")
    assert run.waited(1) == (Part(follow="http://10.0.0.2:6881/x", whom="spark-2"), 0)
    assert run.waited(3)[0].follow
    assert run[2].wanted()
    run.note(DONE, 1, 3)
    assert not run[2].wanted()


def test_a_box_that_has_the_files_seeds_whoever_looked_first(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(LACKS, 1, 2)
    run.note(HAS, 3)
    assert run.waited(3)[0].seed
    run[3].beat("http://3")
    assert run.waited(1)[0].follow == "http://3"


def test_where_nobody_lacks_anything_nobody_seeds(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(HAS, 1, 2, 3)
    assert [run.waited(number) for number in (1, 2, 3)] == [(ALONE, 0)] * 3


def test_a_box_that_lacks_them_alone_fetches_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(DONE, 1)
    run.note(LACKS, 2)
    assert run.waited(2) == (ALONE, 0)


def test_nobody_waits_for_boxes_for_which_there_is_no_fork_and_they_find_the_seed(tmp_path: Path) -> None:
    run = Run(tmp_path, 100, 5)
    run.note(LACKS, 1, 2, 3, 4, 5)
    part, seconds = run.waited(1)
    assert part.seed and seconds == 0
    run[1].beat("http://1")
    run.note(DONE, 2, 3, 4, 5)
    assert run[1].wanted()  # the next may be about to begin
    run.note(LOOKING, 6)
    run.clock.sleep(100)
    run[1].beat("http://1")
    assert run[1].wanted()
    run.note(LACKS, 6)
    assert run.waited(6)[0].follow == "http://1"
    run.note(DONE, 6)
    run.clock.sleep(_fleet.IDLE_S + 1)
    assert not run[1].wanted()  # the others never come: their task is skipped


def test_boxes_that_skip_the_task_are_waited_for_for_seconds_only(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(LACKS, 1, 2)
    part, seconds = run.waited(1)
    assert part.seed
    assert _fleet.IDLE_S <= seconds < _fleet.IDLE_S + 1


def test_a_box_that_looks_for_long_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(LOOKING, 1)
    run.note(LACKS, 2)
    part, seconds = run.waited(2)
    assert part.seed
    assert _fleet.SETTLE_S <= seconds < _fleet.SETTLE_S + 1


def test_a_seed_that_ends_is_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(LACKS, 1, 2, 3)
    first = run[1].part()
    run[1].beat("http://1")
    run.note(DONE, 1)
    second = run[2].part()
    assert second.seed and second.seed != first.seed
    run[2].beat("http://2")
    assert run.waited(3)[0].follow == "http://2"


@pytest.mark.parametrize(("serves", "seconds"), [(True, _fleet.PULSE_S), (False, _fleet.START_S)])
def test_a_seed_that_is_not_seen_alive_is_replaced_and_learns_it(tmp_path: Path, serves: bool, seconds: float) -> None:
    run = Run(tmp_path, 3, 20)
    run.note(LACKS, 1, 2, 3)
    assert run[1].part().seed
    if serves:
        run[1].beat("http://1")
        assert run[1].alive("spark-1")
    run.clock.sleep(seconds + 1)
    assert not run[2].alive("spark-1")
    assert run[2].part().seed
    assert not run[1].beat("http://1")
    run[2].beat("http://2")
    assert run.waited(1)[0].follow == "http://2"


def test_what_the_run_knows_is_for_its_user_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(LACKS, 1, 2)
    run[1].part()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o77 == 0
