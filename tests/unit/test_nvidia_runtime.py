# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.modules import nvidia_runtime
from unit.run_module import run_module

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "docker" / "daemon.json"


@pytest.fixture
def docker_knows(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | None], None]:
    def say(answer: bool | None) -> None:
        monkeypatch.setattr(nvidia_runtime, "docker_has_it", lambda module: answer)

    say(None)
    return say


@pytest.fixture
def run(config: Path, docker_knows: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(check: bool = False, **arguments: Any) -> dict[str, Any]:
        return run_module(nvidia_runtime.main, capsys, check=check, config=str(config), **arguments)

    return call


def test_ladder(run: Run, config: Path) -> None:
    would = run(check=True)
    assert (would["changed"], would["restart_needed"]) == (True, True)
    assert not config.parent.exists()

    made = run()
    assert made["changed"]
    assert made["diff"] == would["diff"]
    assert made["diff"]["before"] == ""
    assert made["diff"]["after"] == config.read_text()
    assert json.loads(config.read_text()) == {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}
    assert config.stat().st_mode & 0o777 == 0o644

    again = run()
    assert (again["changed"], again["restart_needed"]) == (False, False)

    assert run(path="/usr/bin/nvidia-container-runtime", set_default=True)["changed"]
    assert json.loads(config.read_text())["default-runtime"] == "nvidia"
    assert not run(path="/usr/bin/nvidia-container-runtime", set_default=True)["changed"]
    # Not asked for any more is not the same as not wanted.
    assert not run(path="/usr/bin/nvidia-container-runtime")["changed"]

    assert run(state="absent")["changed"]
    assert json.loads(config.read_text()) == {}
    assert not run(state="absent")["changed"]


def test_the_mode_and_everything_else_survive(run: Run, config: Path) -> None:
    config.parent.mkdir()
    config.write_text('{\n  "registry-mirrors": ["http://172.30.99.2"],\n  "runtimes": {"soft": {"path": "/x"}}\n}\n')
    config.chmod(0o640)
    run()
    assert list(json.loads(config.read_text())) == ["registry-mirrors", "runtimes"]
    assert list(json.loads(config.read_text())["runtimes"]) == ["soft", "nvidia"]
    assert config.stat().st_mode & 0o777 == 0o640
    assert os.listdir(config.parent) == ["daemon.json"]


def test_a_link_stays_a_link(run: Run, config: Path, tmp_path: Path) -> None:
    config.parent.mkdir()
    real = tmp_path / "managed.json"
    real.write_text("{}")
    config.symlink_to(real)
    run()
    assert config.is_symlink()
    assert "nvidia" in real.read_text()


def test_a_file_that_is_right_is_not_written(run: Run, config: Path) -> None:
    config.parent.mkdir()
    text = '{"runtimes":   {"nvidia": {"path": "nvidia-container-runtime"}}}'
    config.write_text(text)
    assert not run()["changed"]
    assert config.read_text() == text


def test_a_broken_file_is_named_and_not_touched(run: Run, config: Path) -> None:
    config.parent.mkdir()
    config.write_text('{"runtimes": {,}}')
    result = run()
    assert result["failed"]
    assert f"{config} is not valid JSON (line 1, column 15" in result["msg"]
    assert "repair it by hand. It was not touched" in result["msg"]
    assert config.read_text() == '{"runtimes": {,}}'


def test_a_restart_that_an_interrupted_run_owes_is_still_asked_for(
    run: Run, docker_knows: Callable[[bool | None], None], config: Path
) -> None:
    run()
    docker_knows(False)
    owed = run()
    assert (owed["changed"], owed["restart_needed"]) == (False, True)
    docker_knows(True)
    assert not run()["restart_needed"]
    assert run(state="absent")["restart_needed"]
    assert run(state="absent")["restart_needed"]
    docker_knows(False)
    assert not run(state="absent")["restart_needed"]


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ('echo \'{"runc": {}, "nvidia": {"path": "x"}}\'', True),
        ("echo '{\"runc\": {}}'", False),
        ("echo null", None),
        ("echo Cannot connect to the Docker daemon; exit 1", None),
    ],
)
def test_the_running_docker_is_asked_what_it_knows(
    script: str, answer: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = tmp_path / "daemon.json"
    config.write_text('{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}}')
    result = run_module(nvidia_runtime.main, capsys, config=str(config))
    assert (result["changed"], result["restart_needed"]) == (False, answer is False)
