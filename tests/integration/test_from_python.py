# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""docs/examples/watch_rollout.py on plays of this machine: what it hands over, how it ends, and what it leaves on the disk."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.runner import Played, play

from docs.examples.watch_rollout import INTERRUPTED, Outcome, Table

ROOT = Path(__file__).resolve().parents[2]
SECRET = "a-token-that-nobody-may-find"
OTHER = "a-key-that-nobody-may-find"
ROW = {"box": "spark-1", "state": "fresh", "evidence": {"verdict": "proven"}, "failed": None, "why": ""}
PUBLISH = {"ansible.builtin.set_stats": {"data": {"dgx_spark": {"report_dir": "/reports/now", "boxes": [ROW]}}}}


def write(folder: Path, *tasks: dict[str, Any]) -> Path:
    file = folder / "play.yml"
    play_ = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": list(tasks)}
    file.write_text(yaml.safe_dump([{**play_, "vars": {"ansible_python_interpreter": sys.executable}}]))
    return file


def found(folder: Path, text: str) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and text in path.read_text(errors="replace")]


def test_results_come_back_as_data_and_boxes_that_were_lost_by_name(tmp_path: Path) -> None:
    lost = "spark-2 ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1"
    (tmp_path / "hosts").write_text(f"spark-1\n{lost}\n")
    file = write(tmp_path, {"ansible.builtin.ping": {}}, {"ansible.builtin.set_fact": {"preflight_state": "fresh"}}, PUBLISH)
    text = file.read_text().replace("  connection: local\n", "")
    file.write_text(text)
    (tmp_path / "hosts").write_text(f"spark-1 ansible_connection=local\n{lost}\n")
    played = play(file, ["-i", str(tmp_path / "hosts")], tmp_path)
    assert played.outcome == Outcome(4, "failed", [ROW], "/reports/now", ["spark-2"])
    assert played.tasks("spark-1") == ["ansible.builtin.ping", "ansible.builtin.set_fact", "ansible.builtin.set_stats"]
    assert played.tasks("spark-2") == ["ansible.builtin.ping"]


def test_no_secret_is_on_the_disk_while_ansible_runs_or_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    file = write(
        tmp_path,
        {"ansible.builtin.assert": {"that": f"lookup('ansible.builtin.env', 'HF_TOKEN') == '{SECRET[:4]}' ~ '{SECRET[4:]}'"}},
        {"ansible.builtin.assert": {"that": "vllm_api_key | length > 0"}},
        PUBLISH,
    )
    seen: set[str] = set()

    def look(_event: Any) -> None:
        seen.update(name for word in (SECRET, OTHER) for name in found(tmp_path / "runner", word))

    played = play(file, ["-i", "spark-1,", "-vvv"], tmp_path, {"vllm_api_key": OTHER}, on_event=look)
    assert played.outcome.rc == 0, played.why()
    look(None)
    assert seen == set()
    assert [event for event in played.events if SECRET in str(event) or OTHER in str(event)] == []
    # Where its variables stood is for the owner alone.
    assert stat.S_IMODE((tmp_path / "variables.json").stat().st_mode) == 0o600


def test_the_check_of_host_keys_is_not_turned_off(tmp_path: Path) -> None:
    file = write(tmp_path, {"ansible.builtin.assert": {"that": "lookup('ansible.builtin.config', 'HOST_KEY_CHECKING')"}})
    played = play(file, ["-i", "spark-1,"], tmp_path)
    assert played.outcome.rc == 0, played.why()


def test_a_run_that_is_stopped_ends_and_says_so(tmp_path: Path) -> None:
    stop = threading.Event()
    file = write(tmp_path, {"ansible.builtin.command": {"argv": ["sleep", "30"]}}, PUBLISH)

    def interrupt(event: Any) -> None:
        if event["event"] == "runner_on_start":
            stop.set()

    played = play(file, ["-i", "spark-1,"], tmp_path, on_event=interrupt, stop=stop)
    assert (played.outcome.rc, played.outcome.status, played.outcome.boxes) == (INTERRUPTED, "interrupted", ())


def example(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The example as a program, with its temporary directory below C(folder)."""
    code = "import os, sys; real = os.access; os.access = lambda path, mode: path != '/dev/shm' and real(path, mode); "
    code += f"sys.path.insert(0, {str(ROOT)!r}); from docs.examples.watch_rollout import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    environment = os.environ | {"TMPDIR": str(folder), "HF_TOKEN": SECRET}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_program_shows_each_box_and_ends_as_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    file = write(tmp_path, {"ansible.builtin.set_fact": {"preflight_state": "fresh"}}, PUBLISH)
    process = example(folder, str(file), "-i", "spark-1,spark-2,")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[-3:] == [
        "spark-1 fresh proven",
        "spark-2 fresh not in the report",
        "successful, exit code 0. Report: /reports/now/index.html",
    ]
    assert "spark-1 fresh ansible.builtin.set_stats" in lines
    file = write(tmp_path, {"ansible.builtin.fail": {"msg": "the canary answers garbage"}})
    process = example(folder, str(file), "-i", "spark-1,")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 2, output
    assert "failed: the canary answers garbage" in output
    assert list(folder.glob("dgx-spark-*")) == []


def test_ctrl_c_ends_the_program_and_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    process = example(folder, str(write(tmp_path, {"ansible.builtin.command": {"argv": ["sleep", "30"]}})), "-i", "spark-1,")
    assert process.stdout
    assert "spark-1" in process.stdout.readline()
    assert len(list(folder.glob("dgx-spark-*"))) == 1
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == INTERRUPTED, output
    assert "interrupted, exit code 130" in output
    assert list(folder.glob("dgx-spark-*")) == []


def event(kind: str, host: str = "spark-1", **data: Any) -> dict[str, Any]:
    return {"event": kind, "event_data": {"host": host, **data}}


def test_the_table_follows_a_box() -> None:
    table = Table()
    assert table.take(event("runner_on_start", role="dgx.spark.proof", task="Follow the startup log")) == "spark-1"
    assert table.take({"event": "verbose", "stdout": "spark-1: vLLM: compiling (11 s)\r\n"}) == "spark-1"
    assert " ".join(table.line("spark-1").split()) == "spark-1 - dgx.spark.proof: Follow the startup log - vLLM: compiling (11 s)"
    table.take(event("runner_on_failed", ignore_errors=True, res={"msg": "never mind"}))
    assert "never mind" not in table.line("spark-1")
    table.take(event("runner_on_failed", res={"msg": "too slow"}))
    table.take(event("runner_on_unreachable", host="spark-2", res={"msg": "no route"}))
    assert "failed: too slow" in table.line("spark-1")
    assert "lost: no route" in table.line("spark-2")


def test_words_about_nobody_are_no_box_of_the_table() -> None:
    table = Table()
    assert table.take({"event": "verbose", "stdout": "[WARNING]: something: else\r\n"}) == ""
    assert table.take(event("runner_on_start", host="localhost", task="Write")) == ""
    assert table.boxes == {}


def test_what_is_known_already_is_no_news() -> None:
    table = Table()
    start = event("runner_on_start", role="dgx.spark.proof", task="Look")
    assert [table.take(start), table.take(event("runner_on_ok", res={"changed": False})), table.take(start)] == ["spark-1", "", ""]
    assert table.take(event("runner_on_ok", res={"ansible_facts": {"preflight_state": "fresh"}})) == "spark-1"
    words = {"event": "verbose", "stdout": "spark-1: vLLM: compiling (11 s)\r\n"}
    assert [table.take(words), table.take(words)] == ["spark-1", ""]


def test_a_gateway_and_a_box_without_a_row_end_with_different_words() -> None:
    table = Table()
    for name in ("spark-1", "spark-2"):
        table.take(event("runner_on_ok", host=name, res={"ansible_facts": {"preflight_state": "fresh"}}))
    table.take(event("runner_on_ok", host="the-gateway-of-all-boxes"))
    table.finish(Outcome(0, "successful", [ROW]))
    words = [" ".join(table.line(name).split()) for name in table.boxes]
    assert words == ["spark-1 fresh proven", "spark-2 fresh not in the report", "the-gateway-of-all-boxes - done"]


def test_the_report_outweighs_what_was_seen_on_the_way() -> None:
    table = Table()
    table.take(event("runner_on_failed", res={"msg": "the first try failed"}))
    table.finish(Outcome(0, "successful", [ROW]))
    assert " ".join(table.line("spark-1").split()) == "spark-1 fresh proven"


def test_what_helps_a_test_finds_events_by_kind_and_host() -> None:
    played = Played([event("runner_on_failed", task="Prove", res={"msg": "no"}), event("playbook_on_play_start", play="Plan")])
    assert played.why() == "spark-1: Prove: no"
    assert played.plays() == ["Plan"]
    assert played.of("runner_on_failed", "spark-9") == []
