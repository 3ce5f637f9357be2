# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's command line and its parts that need no Docker engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim import images, shell
from sim.names import SIM
from sim.shell import LabError


def lab(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lab.py where no engine answers."""
    env = {**os.environ, "DOCKER_HOST": "tcp://127.0.0.1:1", "SIM_SHARED": "", **environment}
    return subprocess.run([sys.executable, str(SIM / "lab.py"), *args], capture_output=True, text=True, env=env, timeout=60, check=False)


def test_status_without_an_engine_says_what_to_do() -> None:
    done = lab("status")
    assert done.returncode == 0
    assert "none answers" in done.stdout
    assert "lab.py engine" in done.stdout


@pytest.mark.parametrize("command", [("up",), ("images",), ("down",)])
def test_a_command_without_an_engine_fails_with_the_remedy(command: tuple[str, ...]) -> None:
    done = lab(*command)
    assert done.returncode == 1
    assert "lab.py engine" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("target", ["demo", "sim", "unit", "integration", "molecule", "faults", "e2e", "bench-noop"])
def test_what_needs_an_engine_starts_one_first(target: str) -> None:
    """On a new machine nobody has called `make engine`."""
    done = subprocess.run(["make", "--dry-run", target], cwd=SIM.parents[1], capture_output=True, text=True, timeout=60, check=True)
    commands = done.stdout.splitlines()
    engine = next((number for number, line in enumerate(commands) if line.endswith("lab.py engine")), None)
    assert engine is not None, done.stdout
    assert not any("lab.py up" in line or "pytest" in line or "molecule" in line for line in commands[:engine])


def test_status_without_docker_installed() -> None:
    done = lab("status", PATH="/nonexistent")
    assert done.returncode == 0
    assert "none answers" in done.stdout


@pytest.mark.parametrize(
    ("apt", "given", "mirror"),
    [
        ("echo http://mirror.example/debian/; echo http://other.example/debian/", "", "http://mirror.example/debian"),
        ("echo http://mirror.example/debian/", "http://given.example/debian", "http://given.example/debian"),
        ("echo cdrom:[disc]/", "", ""),
        ("exit 100", "", ""),
        (None, "", ""),
    ],
)
def test_debians_packages_come_from_where_apt_takes_them(
    apt: str | None, given: str, mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apt:
        (tmp_path / "apt-get").write_text(f"#!/bin/sh\n{apt}\n")
        (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(images, "GIVEN_MIRROR", given)
    assert images.mirror() == mirror


def test_the_digest_sees_content_names_and_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "SIM", tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    seen = [images.digest([folder])]
    assert images.digest([folder]) == seen[0]
    (folder / "a").write_text("2")
    seen.append(images.digest([folder]))
    (folder / "a").chmod(0o755)
    seen.append(images.digest([folder]))
    (folder / "a").rename(folder / "b")
    seen.append(images.digest([folder]))
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__/a.pyc").write_text("x")
    assert images.digest([folder]) == seen[-1]
    assert len(set(seen)) == len(seen)


def test_a_slow_command_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shell, "LOGS", tmp_path)
    monkeypatch.setattr(shell, "PROGRESS_S", 0.1)
    shell.stream("slow thing", ["sh", "-c", "echo step one; sleep 0.4"], timeout=10)
    assert "step one" in capsys.readouterr().out
    assert (tmp_path / "slow_thing.log").read_text() == "step one\n"


def test_a_failing_command_shows_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "LOGS", tmp_path)
    with pytest.raises(LabError, match="no such package"):
        shell.stream("install", ["sh", "-c", "echo no such package; exit 3"], timeout=10)


def test_a_hanging_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "LOGS", tmp_path)
    monkeypatch.setattr(shell, "PROGRESS_S", 0.1)
    with pytest.raises(LabError, match="did not end within"):
        shell.stream("hang", ["sleep", "60"], timeout=0.2)


def test_a_wait_ends_with_its_evidence() -> None:
    with pytest.raises(LabError, match="the thing: not within 0 s.\nthe log's tail"):
        shell.wait_for("the thing", lambda: False, timeout=0, evidence=lambda: "the log's tail")


def test_of_a_shared_lab_nothing_is_taken_away() -> None:
    done = lab("down", SIM_SHARED="1")
    assert done.returncode == 0
    assert "nothing is removed" in done.stdout + done.stderr
