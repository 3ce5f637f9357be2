# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Modules that take minutes run in the background of the box, and the terminal shows what they do: on made-up looks, and in a real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.plugin_utils._background_job import LOST_S, NotReached, answers, ended, every, question, wait

ROOT = Path(__file__).resolve().parents[2]
GOOD = ROOT / "tests" / "corpus" / "logs" / "0.19.1-gemma4-cu130.log"


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(looks: Any, timeout: float = 60, interval: float = 10, lost: float = LOST_S) -> tuple[str | None, list[str]]:
    """What a wait over these looks returns, and the lines that it says."""
    clock, states = Clock(), iter(looks)
    lines: list[str] = []

    def look() -> tuple[bool, str]:
        state = next(states)
        if isinstance(state, Exception):
            raise state
        found: tuple[bool, str] = state
        return found

    return wait(look, timeout, interval, lines.append, clock.sleep, clock, lost), lines


def test_a_wait_says_now_and_then_what_goes_on() -> None:
    looks = [(False, "loading weights 33%")] * 14 + [(False, "loading weights 66%")] * 12 + [(True, "")]
    end, lines = waited(looks)
    assert end is None
    assert lines == ["loading weights 33% (11 s)", "loading weights 66% (21 s)"]


def test_a_job_that_ends_soon_says_nothing() -> None:
    assert waited([(False, "probe 1 of 9"), (True, "")]) == (None, [])


def test_nothing_is_said_where_it_shall_be_quiet() -> None:
    assert waited([(False, "loading")] * 40 + [(True, "")], interval=0) == (None, [])


def test_a_lost_connection_of_seconds_does_not_lose_the_work() -> None:
    looks = [(False, "loading")] * 3 + [NotReached("gone")] * 25 + [(True, "")]
    end, lines = waited(looks)
    assert end is None
    assert "not reached for" in lines[-1]
    assert "the work goes on there" in lines[-1]


def test_a_box_that_stays_away_is_lost() -> None:
    with pytest.raises(NotReached):
        waited([NotReached("gone")] * int(LOST_S + 20), timeout=1000)
    with pytest.raises(NotReached):
        waited([NotReached("gone")] * 8, timeout=1000, lost=5)


def test_the_wait_is_bounded_and_returns_the_last_words() -> None:
    assert waited([(False, "loading weights 33%")] * 100, timeout=30)[0] == "loading weights 33%"


@pytest.mark.parametrize(
    ("record", "over"),
    [
        ('{"started": true, "finished": false, "ansible_job_id": "j1.2"}', False),
        ('{"started": 1, "finished": 0, "ansible_job_id": "j1.2"}', False),
        ("Could not chdir to home directory", False),
        ('{"changed": false}', True),
        ('{"changed": false, "startup": {"vllm_ver', True),
    ],
)
def test_a_record_tells_whether_its_job_has_ended(record: str, over: bool) -> None:
    assert ended(record) is over


def test_what_a_box_prints_of_itself_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "record").write_text('{"started": true}')
    command = question([f"cat {tmp_path}/record", f"cat {tmp_path}/missing", "printf 'two lines\\n'"], "a-mark")
    said = subprocess.run(["sh", "-c", f"echo Welcome; {command}; echo Bye"], capture_output=True, text=True, check=True)
    assert (answers(said.stdout, "a-mark", 3), said.stderr) == (['{"started": true}', "", "two lines"], "")
    with pytest.raises(NotReached, match="Your password has expired"):
        answers("Your password\nhas expired", "a-mark", 3)


def test_many_boxes_speak_more_rarely_and_ci_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert every(None, 1) == 10
    assert every(None, 20) == 50
    assert every("2", 1) == 2
    monkeypatch.setenv("CI", "true")
    assert every(None, 1) == 0
    assert every(5, 1) == 5


def test_words_are_there_in_one_piece_and_never_stop_the_work(tmp_path: Path) -> None:
    tell = Progress(str(tmp_path / "words"))
    tell("one\ntwo")
    assert (tmp_path / "words").read_text() == "one two"
    tell("x" * 500)
    assert len((tmp_path / "words").read_text()) == 200
    assert [path.name for path in tmp_path.iterdir()] == ["words"]
    Progress(str(tmp_path / "nowhere" / "words"))("lost")
    Progress(None)("nobody hears it")


def play(tmp_path: Path, log: Path, *options: str, **more: Any) -> tuple[int, str]:
    """Follow a log by a real playbook over the connection `local`, with C(more) variables; exit code and output."""
    task = {
        "name": "Follow",
        "dgx.spark.vllm_startup_log": {"path": str(log), "timeout": 90, "expect": {"moe_backend": "MARLIN"}},
        "register": "found",
    }
    show = {"name": "Show", "ansible.builtin.debug": {"var": "found"}}
    variables = {
        "ansible_python_interpreter": sys.executable,
        "spark_progress_seconds": 1,
        "ansible_async_dir": str(tmp_path / "jobs"),
        **more,
    }
    book = [{"name": "Log", "hosts": "box", "gather_facts": False, "vars": variables, "tasks": [task, show]}]
    (tmp_path / "play.yml").write_text(json.dumps(book))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml"), "-i", "box,", "-c", "local", *options]
    environment = os.environ | {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_HOME": str(tmp_path),
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_real_run_shows_progress_and_returns_the_modules_result_alone(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text("(EngineCore pid=7) Loading safetensors checkpoint shards:  33% Completed | 1/3 [00:20<00:40, 20.0s/it]\n")

    def go_on() -> None:
        # The module has said it, and the controller has had some seconds to hear it.
        until = time.monotonic() + 60
        while time.monotonic() < until and not any("33%" in path.read_text() for path in (tmp_path / "jobs").glob("*.progress")):
            time.sleep(0.1)
        time.sleep(5)
        log.write_text(log.read_text() + GOOD.read_text())

    threading.Thread(target=go_on, daemon=True).start()
    code, output = play(tmp_path, log)
    assert code == 0, output
    assert "box: vLLM: loading weights 33%, " in output
    assert "GiB of memory available (" in output
    assert "moe_backend: MARLIN" in output or '"moe_backend": "MARLIN"' in output
    assert "ansible_job_id" not in output
    assert list((tmp_path / "jobs").iterdir()) == []


def test_a_real_run_that_fails_fails_as_the_module_does(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_text(GOOD.read_text().replace("Using 'MARLIN'", "Using 'VLLM_CUTLASS'"))
    code, output = play(tmp_path, log)
    assert code != 0
    assert "VLLM_CUTLASS" in output
    assert "remedy" in output


def test_a_box_that_greets_at_every_command_is_understood(tmp_path: Path) -> None:
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\necho 'Welcome to spark-1!'\nexec /bin/sh \"$@\"\n")
    shell.chmod(0o755)
    log = tmp_path / "vllm.log"
    log.write_text("")

    def go_on() -> None:
        time.sleep(5)
        log.write_text(GOOD.read_text())

    threading.Thread(target=go_on, daemon=True).start()
    code, output = play(tmp_path, log, ansible_shell_executable=str(shell))
    assert code == 0, output
    assert "MARLIN" in output


def test_check_mode_waits_in_the_foreground(tmp_path: Path) -> None:
    code, output = play(tmp_path, GOOD, "--check")
    assert code == 0, output
    assert not (tmp_path / "jobs").exists()
