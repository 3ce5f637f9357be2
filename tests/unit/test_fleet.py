# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Which box of a run is the seed, whatever order the boxes come in: on made-up times, with the real file between them."""

from __future__ import annotations

import math
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

    def __init__(self, folder: Path, boxes: int, slots: int, failures: float = math.inf) -> None:
        self.clock = Clock()
        self.hosts = [f"spark-{number}" for number in range(1, boxes + 1)]
        self.boxes = {
            host: Fleet(folder, ("hub", "repo", "commit"), host, self.hosts, slots, self.clock, self.clock.sleep, failures)
            for host in self.hosts
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


def test_a_seed_that_has_nothing_yet_is_waited_for_as_long_as_it_lives(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(LACKS, 1, 2)
    assert run[1].part().seed
    heard: list[tuple[str, str]] = []

    def waiting(whom: str, says: str) -> None:
        """Meanwhile it pulls, and says so, for ten minutes."""
        heard.append((whom, says))
        ready = run.clock.now > 1600
        run[1].beat("http://1" if ready else None, {"size": 5} if ready else None, "pulling")

    assert run[2].part(waiting=waiting) == Part(follow="http://1", whom="spark-1", about={"size": 5})
    assert (run.clock.now > 1600, heard[0], heard[-1]) == (True, ("spark-1", ""), ("spark-1", "pulling"))
    # It has a bound, too.
    assert run[1].beat(None)

    def alive(whom: str, says: str) -> None:
        run[1].beat(None)

    began = run.clock.now
    part = run[2].part(60, alive)
    assert 60 <= run.clock.now - began < 61
    assert part == Part(why="spark-1 was not ready to give it within 60 s")


def test_what_has_said_nothing_more_for_a_while_is_replaced_although_it_serves_nothing_yet(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(LACKS, 1, 2)
    assert run[1].part().seed
    run[1].beat(None)
    part, seconds = run.waited(2)
    assert (bool(part.seed), part.why) == (True, "spark-1 was not seen alive for 20 s")
    assert _fleet.PULSE_S <= seconds < _fleet.PULSE_S + 1


def test_after_so_many_failures_all_are_on_their_own_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, 4, 20, failures=2)
    run.note(LACKS, 1, 2, 3, 4)
    assert run[1].part().seed
    run[1].failed("its disk is full")
    run[1].failed("and said twice")
    part, seconds = run.waited(2)
    assert (bool(part.seed), part.why, seconds) == (True, "its disk is full", 0)
    run[2].failed("no port is free")
    assert [run.waited(number) for number in (3, 4)] == [(Part(why="no port is free"), 0)] * 2


def test_a_seed_knows_whether_anybody_asks_for_what_it_has(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, 2)
    run.note(HAS, 1)
    run.note(LOOKING, 2)
    assert not run[1].asked()
    run.note(LACKS, 2)
    assert run[1].part().seed
    assert run[1].asked()
    run.note(DONE, 2)
    assert (run[1].asked(), run[1].wanted()) == (False, True)  # the third may still come: nothing is made for it


def test_what_the_run_knows_is_for_its_user_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, 20)
    run.note(LACKS, 1, 2)
    run[1].part()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o77 == 0
