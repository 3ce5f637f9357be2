# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Files between controller and box, in slices: the commands are run for real here, and the connection is lost when a test says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.dgx.spark.plugins.plugin_utils import _carry
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import Carrier, CarryError

CONTENT = os.urandom(1000)


class Action:
    """An action plugin whose box is this machine. C(lost) says at which command the connection is lost."""

    def __init__(self) -> None:
        self._connection = self
        self.commands: list[str] = []
        self.greeting = ""
        self.lost: dict[int, int] = {}  # number of the command → bytes that come before the connection is lost

    def _low_level_execute_command(self, command: str, in_data: bytes) -> dict[str, Any]:
        self.commands.append(command)
        number = len(self.commands)
        cut = self.lost.get(number)
        ended = subprocess.run(["sh", "-c", command], input=in_data if cut is None else in_data[:cut], capture_output=True, check=False)
        if cut is not None:
            raise AnsibleConnectionFailure("gone")
        return {"rc": ended.returncode, "stdout": self.greeting + ended.stdout.decode(), "stderr": ended.stderr.decode()}

    def exec_command(self, command: str, in_data: bytes | None, sudoable: bool) -> tuple[int, bytes, bytes]:
        self.commands.append(command)
        ended = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        return ended.returncode, self.greeting.encode() + ended.stdout, ended.stderr

    def fetch_file(self, source: str, target: str) -> None:
        self.commands.append(f"fetch {source}")
        if len(self.commands) in self.lost:
            raise AnsibleConnectionFailure("gone")
        shutil.copyfile(source, target)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_carry, "SLICE", 300)
    monkeypatch.setattr(_carry, "PIECE", 300)


def carrier(action: Any, lines: list[str] | None = None) -> Carrier:
    """One for a thousand bytes, which says a line after each slice to C(lines)."""
    said: list[str] = [] if lines is None else lines
    return Carrier(action, {"inventory_hostname": "spark-1"}, 0 if lines is None else 1e-9, said.append, 1000, sleep=lambda seconds: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "it's a source"
    path.write_bytes(CONTENT)
    return path


def test_a_box_may_greet_at_every_command(source: Path, tmp_path: Path) -> None:
    action = Action()
    action.greeting = "Welcome to spark-1!\n"
    carrier(action).push(source, str(tmp_path / "there"))
    carrier(action).pull(str(tmp_path / "there"), tmp_path / "back", 1000)
    assert (tmp_path / "back").read_bytes() == CONTENT


def test_a_file_comes_to_the_box_in_slices(source: Path, tmp_path: Path) -> None:
    action, lines = Action(), list[str]()
    moving = carrier(action, lines)
    moving.push(source, str(tmp_path / "the target"))
    assert (tmp_path / "the target").read_bytes() == CONTENT
    assert (len(action.commands), moving.carried) == (4, 1000)
    assert lines[-1].startswith("spark-1: carrying it's a source to the box: 1.0 of 1.0 kB (100 %)")


@pytest.mark.parametrize("have", [100, 450])
def test_a_file_goes_on_where_an_earlier_run_ended(source: Path, tmp_path: Path, have: int) -> None:
    target, action = tmp_path / "target", Action()
    # More may be there than was counted when that run ended.
    target.write_bytes(CONTENT[:have] + b"?")
    moving = carrier(action)
    moving.push(source, str(target), have)
    assert (target.read_bytes(), moving.carried) == (CONTENT, 1000 - have)


def test_a_connection_that_is_lost_in_a_slice_loses_that_slice(source: Path, tmp_path: Path) -> None:
    target, action = tmp_path / "target", Action()
    action.lost = {2: 17, 3: 0}
    carrier(action).push(source, str(target))
    assert target.read_bytes() == CONTENT
    assert len(action.commands) == 6


def test_a_box_that_stays_away_ends_it_and_what_came_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, action = tmp_path / "target", Action()
    action.lost = dict.fromkeys(range(2, 1000), 0)
    monkeypatch.setattr(_carry, "LOST_S", 0)
    with pytest.raises(CarryError, match=r"the box is not reached any more: gone\. What came is kept; run again"):
        carrier(action).push(source, str(target))
    assert target.read_bytes() == CONTENT[:300]


def test_what_the_box_says_is_in_the_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CarryError, match="No such file or directory"):
        carrier(Action()).push(source, str(tmp_path / "none" / "target"))


def test_a_file_comes_from_the_box_and_goes_on_where_an_earlier_run_ended(source: Path, tmp_path: Path) -> None:
    target, action = tmp_path / "new" / "target", Action()
    moving = carrier(action)
    action.lost = {3: 0}
    moving.pull(str(source), target, 1000)
    assert (target.read_bytes(), moving.carried) == (CONTENT, 1000)

    target.rename(target.with_name("target.part"))
    os.truncate(target.with_name("target.part"), 700)
    again = carrier(Action())
    again.pull(str(source), target, 1000)
    assert (target.read_bytes(), again.carried) == (CONTENT, 300)
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_small_file_comes_without_a_copy_of_it(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    action = Action()
    carrier(action).pull(str(tmp_path / "small"), tmp_path / "target", 5)
    assert (tmp_path / "target").read_bytes() == b"small"
    assert action.commands == [f"fetch {tmp_path / 'small'}"]


def test_a_file_that_changed_its_size_meanwhile_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CarryError, match="it has another size now"):
        carrier(Action()).pull(str(source), tmp_path / "target", 1200)
    assert not (tmp_path / "target").exists()
