# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Whoever changes containers is killed at every single step; the next run, whatever it asks, ends where it should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.container_box import NAME, NEXT, PREVIOUS, ROLLED_BACK, SimulatedBox
from unit.fake_engine import Killed

OLD, NEW, OTHER = {"seed": 1}, {"seed": 2}, {"seed": 3}


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> SimulatedBox:
    return SimulatedBox(tmp_path, monkeypatch, capsys)


def swap(box: SimulatedBox) -> None:
    box.run(spec=box.with_args(**NEW))


def roll_back(box: SimulatedBox) -> None:
    box.run("rolled_back")


def served_before(box: SimulatedBox) -> None:
    """OLD serves, and an older one is kept."""
    box.run()
    box.run(spec=box.with_args(**OLD))


def new_serves(box: SimulatedBox) -> None:
    """NEW serves, OLD is kept, and one was rolled back from earlier."""
    box.run(spec=box.with_args(**OLD))
    box.run(spec=box.with_args(**OTHER))
    roll_back(box)
    swap(box)


def killed_at_every_step(box: SimulatedBox, prepare: Any, act: Any) -> Iterator[int]:
    """Yields once for every step at which C(act) was killed, on a box as C(prepare) leaves it."""
    for step in range(100):
        for collection in (box.engine.containers, box.engine.ports, box.engine.creations):
            collection.clear()
        box.engine.kill_at = None
        prepare(box)
        box.forget_deeds()
        box.engine.kill_at = step
        try:
            act(box)
        except Killed:
            box.engine.kill_at = None
            yield step
        else:
            assert step > 3, "it did nothing that could be interrupted"
            return


def spec_of(box: SimulatedBox, name: str) -> int | None:
    """The seed that a container was made with: which of the specs it is."""
    found = box.engine.containers.get(name)
    if found is None:
        return None
    command = list(box.engine.creations[found.id].command)
    return int(command[command.index("--seed") + 1]) if "--seed" in command else 0


@pytest.mark.parametrize("reboot", [False, True])
def test_a_swap_that_is_asked_again_is_done(box: SimulatedBox, reboot: bool) -> None:
    for step in killed_at_every_step(box, served_before, swap):
        if reboot:
            box.engine.reboot()
        swap(box)
        assert box.engine.states() == {NAME: "running", PREVIOUS: "exited"}, step
        assert (spec_of(box, NAME), spec_of(box, PREVIOUS)) == (2, 1), step
        assert_settled(box, NEW)


@pytest.mark.parametrize("reboot", [False, True])
def test_a_swap_that_is_not_asked_any_more_is_taken_back(box: SimulatedBox, reboot: bool) -> None:
    for step in killed_at_every_step(box, served_before, swap):
        if reboot:
            box.engine.reboot()
        box.run(spec=box.with_args(**OLD))
        assert spec_of(box, NAME) == 1, step
        assert NEXT not in box.engine.containers, step
        assert_settled(box, OLD)


def test_a_swap_to_a_third_spec_goes_on_from_wherever_it_was(box: SimulatedBox) -> None:
    for step in killed_at_every_step(box, served_before, swap):
        box.run(spec=box.with_args(**OTHER))
        assert box.engine.states() == {NAME: "running", PREVIOUS: "exited"}, step
        assert spec_of(box, NAME) == 3, step
        # What had served, or what came to serve before the kill; never the one from before that.
        assert spec_of(box, PREVIOUS) in (1, 2), step
        assert_settled(box, OTHER)


@pytest.mark.parametrize("reboot", [False, True])
def test_half_a_swap_can_be_rolled_back(box: SimulatedBox, reboot: bool) -> None:
    for step in killed_at_every_step(box, served_before, swap):
        if reboot:
            box.engine.reboot()
        half_done = box.engine.states().get(NAME) != "running" or spec_of(box, NAME) == 2
        roll_back(box)
        # A swap that had not stopped anything is none, and rolling back means what it always means.
        assert spec_of(box, NAME) == (1 if half_done else 0), step
        assert box.engine.states()[NAME] == "running", step
        assert NEXT not in box.engine.containers, step


@pytest.mark.parametrize("reboot", [False, True])
def test_a_rollback_that_is_asked_again_is_done(box: SimulatedBox, reboot: bool) -> None:
    for step in killed_at_every_step(box, new_serves, roll_back):
        if reboot:
            box.engine.reboot()
        roll_back(box)
        assert box.engine.states() == {NAME: "running", ROLLED_BACK: "exited"}, step
        assert (spec_of(box, NAME), spec_of(box, ROLLED_BACK)) == (1, 2), step
        assert not box.run("rolled_back")["changed"], step


def test_a_spec_that_is_asked_in_the_middle_of_a_rollback_serves(box: SimulatedBox) -> None:
    for asked in (OLD, NEW):
        for step in killed_at_every_step(box, new_serves, roll_back):
            box.run(spec=box.with_args(**asked))
            assert spec_of(box, NAME) == asked["seed"], step
            assert_settled(box, asked)


def test_a_first_start_that_was_interrupted_is_done(box: SimulatedBox) -> None:
    for step in killed_at_every_step(box, lambda box: None, first_start):
        first_start(box)
        assert box.engine.states() == {NAME: "running"}, step


def first_start(box: SimulatedBox) -> None:
    # The second run makes enough steps for killed_at_every_step to believe in it.
    box.run(spec=box.with_args(**OLD))
    box.run("stopped")
    box.run(spec=box.with_args(**OLD))


@pytest.mark.parametrize("act", [swap, roll_back])
def test_everything_can_be_taken_away_from_anywhere(box: SimulatedBox, act: Any) -> None:
    for step in killed_at_every_step(box, new_serves if act is roll_back else served_before, act):
        box.run("absent")
        assert box.engine.containers == {}, step


def test_what_is_taken_away_can_be_interrupted(box: SimulatedBox) -> None:
    for _step in killed_at_every_step(box, new_serves, lambda box: box.run("absent")):
        # The one that serves goes last.
        assert NAME in box.engine.containers
        box.run("absent")
        assert box.engine.containers == {}


@pytest.mark.parametrize("act", [swap, roll_back])
def test_no_step_loses_what_served(box: SimulatedBox, act: Any) -> None:
    for step in killed_at_every_step(box, new_serves if act is roll_back else served_before, act):
        specs = {spec_of(box, name) for name in box.engine.containers}
        assert {1} <= specs, step  # the one that served before the swap, or that the rollback goes to
        assert sum(container.running for container in box.engine.containers.values()) <= 1, step


def test_a_failed_start_after_an_interruption_still_starts_what_served(box: SimulatedBox) -> None:
    for step in killed_at_every_step(box, served_before, swap):
        if any(container.running for container in box.engine.containers.values()):
            continue
        box.engine.refuse_start = lambda container, creation: "driver not loaded" if container.name == NEXT else None
        result = box.run(spec=box.with_args(**NEW))
        box.engine.refuse_start = lambda container, creation: None
        assert "gemma4-nvfp4 was started again as it was" in result["msg"], step
        assert (spec_of(box, NAME), box.engine.states()[NAME]) == (1, "running"), step


@pytest.mark.parametrize("reboot", [False, True])
def test_a_proven_way_back_outlives_an_interrupted_swap(box: SimulatedBox, reboot: bool) -> None:
    def unproven_serves(box: SimulatedBox) -> None:
        box.run(spec=box.with_args(**OTHER))
        box.prove()
        box.run(spec=box.with_args(**OLD))

    for step in killed_at_every_step(box, unproven_serves, swap):
        if reboot:
            box.engine.reboot()
        swap(box)
        assert (spec_of(box, NAME), spec_of(box, PREVIOUS)) == (2, 3), step
        assert box.engine.states() == {NAME: "running", PREVIOUS: "exited"}, step
        assert_settled(box, NEW)


def test_an_api_key_survives_an_interrupted_swap(box: SimulatedBox) -> None:
    def with_key(box: SimulatedBox) -> None:
        box.run(spec=box.with_args(**NEW), api_key="sk-key")

    for step in killed_at_every_step(box, served_before, with_key):
        with_key(box)
        assert spec_of(box, PREVIOUS) == 1, step  # and not a second swap because of another salt
        assert not box.run(spec=box.with_args(**NEW), api_key="sk-key")["changed"], step


def assert_settled(box: SimulatedBox, asked: dict[str, int]) -> None:
    """The asked spec serves, comes back after a reboot, and another run has nothing to do."""
    assert not box.run(spec=box.with_args(**asked))["changed"]
    box.engine.reboot()
    assert box.engine.states()[NAME] == "running"
    assert sum(container.running for container in box.engine.containers.values()) == 1
    assert all(c.restart_policy == "no" for name, c in box.engine.containers.items() if name != NAME)
