# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""haproxy_agent: what it brings to the gateway's host runs there by itself, and nobody else reads the key."""

from __future__ import annotations

import ast
import getpass
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._haproxy_agent import Settings
from ansible_collections.dgx.spark.plugins.module_utils._programs import PACKAGE, sources
from ansible_collections.dgx.spark.plugins.modules import haproxy_agent
from unit.run_module import run_module

BOX = {"name": "spark-1", "address": "192.0.2.11", "port": 8002}
KEY = "sk-of-the-fleet"
Agent = Callable[..., dict[str, Any]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """When the agent and HAProxy were started; None for what does not run."""
    times: dict[str, float | None] = {"agent": None, "haproxy": None}
    monkeypatch.setattr(haproxy_agent, "agent_started", lambda module, service: times["agent"])
    monkeypatch.setattr(haproxy_agent, "haproxy_started", lambda socket: times["haproxy"])
    return times


@pytest.fixture
def agent(tmp_path: Path, capsys: pytest.CaptureFixture[str], started: dict[str, float | None]) -> Agent:
    def run(check: bool = False, **arguments: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"boxes": [BOX], "listen": "127.0.0.1:8406", "interval": 10, "timeout": 20, "failures": 3, "successes": 1}
        given |= {"user": getpass.getuser(), "library": str(tmp_path / "lib"), "units": {str(tmp_path / "units" / "a.service"): "[Unit]\n"}}
        given |= {"settings_file": str(tmp_path / "etc" / "agent.json"), "key_file": str(tmp_path / "etc" / "key"), "api_key": KEY}
        given |= {"service": "agent", "configuration": str(tmp_path / "haproxy.cfg"), "socket": str(tmp_path / "no.sock")}
        return run_module(haproxy_agent.main, capsys, check=check, **{**given, **arguments})

    return run


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_the_ladder(agent: Agent, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments: boxes" in run_module(haproxy_agent.main, capsys)["msg"]
    checked = agent(check=True)
    assert (checked["changed"], checked["restart_needed"], files(tmp_path)) == (True, True, set())
    made = agent()
    assert (made["changed"], made["restart_needed"]) == (True, True)
    assert [entry["after_header"] for entry in made["diff"]] == [entry["after_header"] for entry in checked["diff"]]
    again = agent()
    assert (again["changed"], again["restart_needed"], again["diff"]) == (False, False, [])

    other = agent(interval=5)
    assert (other["changed"], other["restart_needed"], len(other["diff"])) == (True, True, 1)
    assert '"interval": 10' in other["diff"][0]["before"]
    assert '"interval": 5' in other["diff"][0]["after"]
    unit = str(tmp_path / "units" / "a.service")
    assert agent(interval=5, units={unit: "[Unit]\n# new\n"})["changed"]
    assert Path(unit).read_text() == "[Unit]\n# new\n"


def test_what_runs_and_is_older_than_what_is_written_is_said(agent: Agent, started: dict[str, float | None], tmp_path: Path) -> None:
    agent()
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text("global\n")
    for seconds, needed in ((-1.0, True), (1.0, False)):
        written = (tmp_path / "etc" / "key").stat().st_mtime
        started |= {"agent": written + seconds, "haproxy": configuration.stat().st_mtime + seconds}
        result = agent()
        assert (result["changed"], result["restart_needed"], result["reload_needed"]) == (False, needed, needed)
    started |= {"agent": None, "haproxy": None}
    result = agent()
    assert (result["restart_needed"], result["reload_needed"]) == (False, False)


def test_the_agent_understands_its_settings(agent: Agent, tmp_path: Path) -> None:
    agent()
    settings = Settings.read(str(tmp_path / "etc" / "agent.json"))
    assert settings == Settings(("127.0.0.1", 8406), 10, 20, 3, 1, [BOX], str(tmp_path / "etc" / "key"))
    assert settings.api_key == KEY
    assert agent(api_key="")["changed"]
    assert Settings.read(str(tmp_path / "etc" / "agent.json")).key_file == ""
    assert not (tmp_path / "etc" / "key").exists()


def test_both_programs_start_with_what_was_brought_and_python_alone(agent: Agent, tmp_path: Path) -> None:
    agent()
    # Without a site there is no Ansible, and no other copy of the collection.
    load = f"import sys; sys.path[:0] = [{str(tmp_path / 'lib')!r}]; import {PACKAGE}"
    for name in haproxy_agent.PROGRAMS:
        subprocess.run([sys.executable, "-S", "-E", "-c", f"{load}.{name}"], cwd=tmp_path, check=True)


def test_what_is_brought_needs_the_standard_library_alone() -> None:
    needed = set()
    for text in sources(haproxy_agent.PROGRAMS).values():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                needed |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(f"{PACKAGE}."):
                needed.add((node.module or "").partition(".")[0])
    assert needed <= sys.stdlib_module_names


def test_a_program_that_was_changed_is_brought_again_and_one_that_nobody_needs_goes(agent: Agent, tmp_path: Path) -> None:
    agent()
    home = tmp_path / "lib" / Path(*PACKAGE.split("."))
    right = (home / "_haproxy_agent.py").read_text()
    (home / "_haproxy_agent.py").write_text("# older\n")
    (home / "_gone.py").write_text("")
    result = agent()
    assert {Path(entry["after_header"]).name for entry in result["diff"]} == {"_haproxy_agent.py", "_gone.py"}
    assert all(len(entry["before"] + entry["after"]) < 200 for entry in result["diff"])
    assert (home / "_haproxy_agent.py").read_text() == right
    assert not (home / "_gone.py").exists()


def test_the_key_is_for_its_user_alone_and_in_nothing_that_is_said(agent: Agent, tmp_path: Path) -> None:
    said = json.dumps(agent(check=True)) + json.dumps(agent())
    key = tmp_path / "etc" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    said += json.dumps(agent(check=True))
    assert agent()["changed"]
    assert key.stat().st_mode & 0o777 == 0o600
    said += json.dumps(agent(api_key="sk-another"))
    assert key.read_text() == "sk-another\n"
    assert "sk-" not in said
    assert "sk-" not in (tmp_path / "etc" / "agent.json").read_text()


def test_a_user_who_is_not_there_is_named_before_anything_is_written(agent: Agent, tmp_path: Path) -> None:
    result = agent(user="nobody-of-this-name")
    assert result["failed"]
    assert "there is no user nobody-of-this-name" in result["msg"]
    assert files(tmp_path) == set()
    assert agent(check=True, user="nobody-of-this-name")["changed"]


def test_a_place_that_cannot_be_written_is_named(agent: Agent, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    result = agent()
    assert result["failed"]
    assert os.path.join("etc", "agent.json") in result["msg"]
