# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module against a runtime API of the tests; tests/integration/test_gateway.py has it against a real HAProxy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _haproxy
from ansible_collections.dgx.spark.plugins.module_utils._haproxy_state import main, with_ports
from ansible_collections.dgx.spark.plugins.modules import haproxy_info, haproxy_server
from unit.fake_haproxy import FakeHaproxy, FakeServer
from unit.run_module import run_module

Run = Callable[..., dict[str, Any]]
CONFIGURATION = "backend vllm\n    server spark-1 10.0.0.1:9000 maxconn 4\n    server spark-2 10.0.0.2:8002 maxconn 4\n"


@pytest.fixture
def haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHaproxy]:
    monkeypatch.setattr(_haproxy, "_POLL", 0.01)
    monkeypatch.setattr(haproxy_server, "SETTLE_S", 0.2)
    (tmp_path / "haproxy.cfg").write_text(CONFIGURATION)
    with FakeHaproxy(tmp_path, {"spark-1": FakeServer(), "spark-2": FakeServer(admin=5)}) as running:
        yield running


@pytest.fixture
def run(haproxy: FakeHaproxy, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(state: str, server: str = "spark-1", check: bool = False, **more: Any) -> dict[str, Any]:
        home = haproxy.home
        paths: dict[str, Any] = {"socket": haproxy.socket, "master_socket": haproxy.master, "configuration": str(home / "haproxy.cfg")}
        paths["state_file"] = str(home / "server-state")
        return run_module(haproxy_server.main, capsys, check=check, state=state, server=server, **{**paths, **more})

    return call


def told(haproxy: FakeHaproxy) -> list[str]:
    return [command for command in haproxy.commands if command.startswith("set ")]


def test_ladder(run: Run, haproxy: FakeHaproxy) -> None:
    would = run("drained", check=True)
    assert (would["changed"], would["server"]["state"]) == (True, "ready")
    assert told(haproxy) == []

    done = run("drained")
    assert (done["changed"], done["server"]["state"], done["server"]["status"]) == (True, "drained", "DRAIN")
    assert (
        done["diff"] == would["diff"] == {"before": "ready\n", "after": "drained\n", "before_header": "spark-1", "after_header": "spark-1"}
    )
    assert not run("drained")["changed"]

    assert run("maintenance")["server"]["state"] == "maintenance"
    assert not run("maintenance")["changed"]

    assert run("ready")["server"] == {
        "name": "spark-1",
        "state": "ready",
        "status": "UP",
        "sessions": 0,
        "checks": {
            "health": {"status": "L7OK", "text": "Layer7 check passed"},
            "agent": {"status": "L7OK", "text": "Layer7 check passed"},
        },
    }
    assert not run("ready")["changed"]
    assert told(haproxy) == [f"set server vllm/spark-1 state {word}" for word in ("drain", "maint", "ready")]


def test_what_is_asked_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments: server, state" in run_module(haproxy_server.main, capsys)["msg"]


def test_a_server_under_maintenance_gets_nothing_new_and_is_not_touched_by_a_drain(run: Run, haproxy: FakeHaproxy) -> None:
    drained = run("drained", server="spark-2")
    assert (drained["changed"], drained["server"]["state"]) == (False, "maintenance")
    assert told(haproxy) == []


def test_sessions_of_all_workers_count_and_a_worker_that_ended_does_not(run: Run, haproxy: FakeHaproxy) -> None:
    haproxy.servers["spark-1"].sessions = 2
    haproxy.servers["spark-1"].queued = 1
    haproxy.old = {"70": {"spark-1": 3, "spark-2": 9}, "80": {"spark-2": 5}, "81": {}}
    result = run("drained", timeout=0)
    assert result["failed"]
    assert result["server"]["sessions"] == 6
    assert "6 streams run on spark-1 after 0 s. It gets no new ones and stays drained" in result["msg"]
    assert haproxy.servers["spark-1"].admin & 8


@pytest.mark.parametrize(
    ("broken", "evidence"),
    [
        ({"status": "DOWN", "health": "L4CON"}, "spark-1 is DOWN after 0 s: the health check says L4CON"),
        ({"status": "DOWN (agent)", "agent": "L7STS", "agent_says": "garbage"}, "that asks it for tokens says L7STS (garbage)"),
        ({"status": "UP", "health": "INI"}, "the health check says INI"),
        ({"status": "UP", "agent": "L4CON"}, "says L4CON"),
    ],
)
def test_a_server_whose_checks_do_not_pass_is_not_admitted(run: Run, haproxy: FakeHaproxy, broken: dict[str, str], evidence: str) -> None:
    for name, value in broken.items():
        setattr(haproxy.servers["spark-1"], name, value)
    result = run("ready", timeout=0)
    assert result["failed"]
    assert evidence in result["msg"]


def test_what_the_agent_said_before_does_not_admit_a_server(run: Run, haproxy: FakeHaproxy) -> None:
    """HAProxy hears of it every two seconds: until then it says what was true before."""
    server = haproxy.servers["spark-1"]
    server.admin = 1

    def heard() -> None:
        server.status, server.agent, server.agent_says = "DOWN (agent)", "L7STS", "garbage"

    soon = threading.Timer(0.1, heard)
    soon.start()
    result = run("ready", timeout=1)
    soon.join()
    assert result["failed"]
    assert "says L7STS (garbage)" in result["msg"]


def test_a_server_without_checks_is_admitted(run: Run, haproxy: FakeHaproxy) -> None:
    haproxy.servers["spark-1"] = FakeServer(admin=1, status="no check", health="", agent="")
    assert run("ready")["changed"]


def test_a_server_that_haproxy_does_not_know_is_named_with_those_it_does(run: Run) -> None:
    assert "backend vllm has no server spark-9, it has spark-1, spark-2" in run("ready", server="spark-9")["msg"]


def test_a_backend_that_haproxy_does_not_have_is_named(run: Run) -> None:
    assert "HAProxy has no backend web: Can't find backend." in run("ready", backend="web")["msg"]


def test_a_name_cannot_be_another_command(run: Run, haproxy: FakeHaproxy) -> None:
    assert "is no name of HAProxy's" in run("ready", backend="vllm; set maxconn global 1")["msg"]
    assert haproxy.commands == []


def test_in_check_mode_a_server_or_a_haproxy_may_still_be_to_come(run: Run, tmp_path: Path) -> None:
    for missing in ({"server": "spark-9"}, {"socket": str(tmp_path / "nowhere.sock")}):
        would = run("ready", check=True, **missing)
        assert (would["changed"], would["server"]["state"]) == (True, "absent")


def test_haproxy_that_does_not_run_is_said(run: Run, tmp_path: Path) -> None:
    result = run("ready", socket=str(tmp_path / "nothing"))
    assert "HAProxy does not answer on" in result["msg"]
    assert "playbooks/gateway.yml sets it up" in result["msg"]


def test_without_a_master_only_the_newest_worker_is_asked(run: Run, haproxy: FakeHaproxy, tmp_path: Path) -> None:
    haproxy.old = {"70": {"spark-1": 3}}
    assert run("drained", master_socket=str(tmp_path / "nothing"))["server"]["sessions"] == 0


def test_every_change_is_in_the_state_file_with_the_ports_of_the_configuration(run: Run, haproxy: FakeHaproxy) -> None:
    run("drained")
    rows = [line.split() for line in (haproxy.home / "server-state").read_text().splitlines() if line.startswith("3 ")]
    assert [(row[3], row[6], row[18]) for row in rows] == [("spark-1", "12", "9000"), ("spark-2", "5", "8002")]


def test_a_state_that_is_not_understood_stays_as_it_is() -> None:
    assert with_ports("1\n# a b\nx\n", CONFIGURATION) == "1\n# a b\nx\n"


def test_the_program_that_saves_the_state_never_stands_in_the_way_of_a_reload(
    haproxy: FakeHaproxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state"
    assert main([str(tmp_path / "nothing"), str(tmp_path / "haproxy.cfg"), str(path)]) == 1
    assert "The server state was not saved: HAProxy does not answer" in capsys.readouterr().err
    assert main([haproxy.socket, str(tmp_path / "haproxy.cfg"), str(path)]) == 0
    assert path.read_text().startswith("1\n# be_id")


def test_all_servers_are_told_with_the_sessions_of_old_workers(haproxy: FakeHaproxy, capsys: pytest.CaptureFixture[str]) -> None:
    haproxy.servers["spark-1"].sessions = 2
    haproxy.old["77"] = {"spark-1": 3, "spark-2": 1}
    haproxy.old["78"] = {}
    seen = run_module(haproxy_info.main, capsys, socket=haproxy.socket, master_socket=haproxy.master)
    assert {name: (server["state"], server["sessions"]) for name, server in seen["servers"].items()} == {
        "spark-1": ("ready", 5),
        "spark-2": ("maintenance", 1),
    }
    assert seen["ready"] == ["spark-1"]
    assert told(haproxy) == []


def test_a_host_without_haproxy_or_without_the_backend_has_no_servers(haproxy: FakeHaproxy, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = run_module(haproxy_info.main, capsys, socket=str(haproxy.home / "no.sock"))
    elsewhere = run_module(haproxy_info.main, capsys, socket=haproxy.socket, backend="web")
    assert [(seen["servers"], seen["ready"]) for seen in (nowhere, elsewhere)] == [({}, []), ({}, [])]


def test_a_haproxy_that_does_not_answer_is_a_failure(haproxy: FakeHaproxy, capsys: pytest.CaptureFixture[str]) -> None:
    (haproxy.home / "deaf.sock").touch()
    assert "is it running on this host" in run_module(haproxy_info.main, capsys, socket=str(haproxy.home / "deaf.sock"))["msg"]
