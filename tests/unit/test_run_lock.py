# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Module run_lock: one run at a time changes a box, and what a killed run leaves can be taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._exclusive import Occupied, exclusive
from ansible_collections.dgx.spark.plugins.module_utils._run_lock import Holder, duration, holder
from ansible_collections.dgx.spark.plugins.modules import run_lock
from ansible_collections.dgx.spark.plugins.plugin_utils import _controller
from unit.run_module import run_module

MINE: dict[str, Any] = {"run": "mine", "owner": "anna@laptop", "process": "boot pid 1 1"}
OTHERS: dict[str, Any] = {"run": "theirs", "owner": "ben@desk", "process": "boot pid 2 2"}


class Lock:
    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys

    def ask(self, who: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module(run_lock.main, self._capsys, check=check, path=str(self.path), **who, **options)

    def holder(self) -> str | None:
        return str(json.loads(self.path.read_text())["run"]) if self.path.exists() else None


@pytest.fixture
def lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Lock:
    return Lock(tmp_path / "held" / "run.json", capsys)


def test_a_run_takes_it_once_and_gives_it_back_once(lock: Lock) -> None:
    assert "missing required arguments: run" in lock.ask({})["msg"]
    assert lock.ask(MINE, check=True)["changed"]
    assert lock.holder() is None
    assert lock.ask(MINE)["changed"]
    assert lock.holder() == "mine"
    assert not lock.ask(MINE)["changed"]
    assert lock.ask(MINE, check=True, state="absent")["changed"]
    assert lock.holder() == "mine"
    assert lock.ask(MINE, state="absent")["changed"]
    assert lock.holder() is None
    assert not lock.ask(MINE, state="absent")["changed"]


def test_another_run_is_refused_with_owner_age_and_the_way_to_break_it(lock: Lock) -> None:
    lock.ask(MINE)
    record = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps(record | {"since": record["since"] - 600}))
    refused = lock.ask(OTHERS)
    assert (refused["failed"], refused["changed"], refused["holder"]["owner"]) == (True, False, "anna@laptop")
    assert "the run mine of anna@laptop, since 10 min" in refused["msg"]
    assert "-e rollout_break_lock=true" in refused["msg"]
    assert 599 <= refused["holder"]["age_s"] <= 660
    looked = lock.ask(OTHERS, check=True)
    assert "failed" not in looked
    assert "held by the run mine" in str(looked["warnings"])
    assert lock.holder() == "mine"


def test_who_breaks_it_has_it_and_the_other_run_sees_that(lock: Lock) -> None:
    lock.ask(MINE)
    broken = lock.ask(OTHERS, force=True)
    assert "taken over from the run mine" in str(broken["warnings"])
    assert lock.holder() == "theirs"
    assert lock.ask(MINE)["failed"]
    released = lock.ask(MINE, state="absent")
    assert not released["changed"]
    assert "held by the run theirs" in str(released["warnings"])
    assert lock.holder() == "theirs"


def test_only_the_run_that_is_over_is_replaced(lock: Lock) -> None:
    lock.ask(MINE)
    assert lock.ask(OTHERS, instead_of="boot pid 3 3")["failed"]
    assert lock.ask(OTHERS, instead_of=MINE["process"])["changed"]
    assert lock.holder() == "theirs"


def test_two_runs_of_the_same_second_are_two(lock: Lock) -> None:
    lock.ask(MINE)
    assert lock.ask({**MINE, "process": "boot pid 7 7"})["failed"]


def test_a_record_that_cannot_be_read_is_a_lock(lock: Lock) -> None:
    lock.ask(MINE)
    lock.path.write_text("{")
    assert "the run unknown of unknown" in lock.ask(MINE)["msg"]
    lock.path.write_text("")
    assert lock.ask(MINE)["changed"]


def test_a_record_keeps_all_of_a_holder() -> None:
    made = Holder("r", "o", 1.5, "p")
    assert holder(made.text()) == made
    assert [duration(seconds) for seconds in (-3, 40, 150, 7300, 200000)] == ["0 s", "40 s", "2 min", "2 h", "2 days"]


def test_one_process_at_a_time_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    path, tries = str(tmp_path / "lock"), list[int]()
    script = f"import fcntl, os, time; h = os.open({path!r}, os.O_CREAT | os.O_RDWR); fcntl.flock(h, fcntl.LOCK_EX)"
    child = subprocess.Popen([sys.executable, "-c", f"{script}; print('held', flush=True); time.sleep(60)"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(Occupied, match="for 1 s"), exclusive(path, 1, lambda: tries.append(1)):
        pass
    assert tries
    child.kill()
    child.wait()
    with exclusive(path, 0):
        pass


def test_a_process_is_known_to_be_over_only_when_it_is() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = _controller.process(child.pid)
    assert not _controller.is_over(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _controller.is_over(name), "it has ended, although nobody has collected it"
    child.wait()
    assert _controller.is_over(name)
    # A number is used again, and another machine has numbers of its own.
    machine = name.rsplit(" ", 2)[0]
    assert _controller.is_over(f"{machine} {os.getpid()} 1")
    assert not _controller.is_over(_controller.process(os.getpid()))
    for unknown in ("", "x", f"another machine {child.pid} 1"):
        assert not _controller.is_over(unknown)
    assert "@" in _controller.owner()
