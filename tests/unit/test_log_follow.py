# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Following a start: to its end and no further, through restarts and rotations, against a socket that speaks Docker's API."""

from __future__ import annotations

import json
import os
import socketserver
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _log_follow
from ansible_collections.dgx.spark.plugins.module_utils._log_follow import (
    ContainerSource,
    FileSource,
    LogError,
    State,
    begins,
    follow,
)
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import startup
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog, nanoseconds
from ansible_collections.dgx.spark.plugins.modules import vllm_startup_log
from unit.run_module import run_module
from unit.startup_logs import startup_log

GOOD = startup_log("0.19.1-gemma4-cu130.log").decode()
CRASH = startup_log("0.18.2-fp4-crash.log").decode()
READY = "INFO:     Application startup complete.\n"
SECOND = 1_000_000_000


class Docker:
    """One container behind a Unix socket, as engine 20.10 answers: C(lines) are (time in s since the epoch, text)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[tuple[float, str]] = []
        self.state: dict[str, Any] = {}
        self.restart_count = 0
        self.tty = False
        self.logs_error = ""
        self.closed = 0
        self.stop = False
        self.run(time.time())
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                outer.answer(self)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def run(self, at: float) -> None:
        """The container starts (again)."""
        finished = self.state.get("FinishedAt", "0001-01-01T00:00:00Z")
        self.state = {"Status": "running", "Running": True, "ExitCode": 0, "StartedAt": stamp(at), "FinishedAt": finished}

    def exit(self, code: int, at: float | None = None, oom: bool = False) -> None:
        self.state |= {"Status": "exited", "Running": False, "ExitCode": code, "FinishedAt": stamp(at or time.time()), "OOMKilled": oom}

    def say(self, text: str, at: float | None = None) -> None:
        self.lines += [(at or time.time(), line) for line in text.splitlines(keepends=True)]

    def answer(self, handler: Any) -> None:
        method, target, version = handler.rfile.readline().decode().split()
        assert (method, version) == ("GET", "HTTP/1.0")
        path, _mark, query = target.partition("?")
        if path == "/containers/gone/json":
            self.send(handler, 404, {"message": "No such container: gone"})
        elif path.endswith("/json"):
            self.send(handler, 200, {"State": self.state, "RestartCount": self.restart_count, "Config": {"Tty": self.tty}})
        elif self.logs_error:
            self.send(handler, 501, {"message": self.logs_error})
        else:
            self.log(handler, dict(urllib.parse.parse_qsl(query)))

    @staticmethod
    def send(handler: Any, code: int, document: Any) -> None:
        handler.wfile.write(f"HTTP/1.0 {code} X\r\nContent-Type: application/json\r\n\r\n{json.dumps(document)}".encode())

    def log(self, handler: Any, query: dict[str, str]) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        since, until, at, closed = float(query["since"]), float(query.get("until", "inf")), 0, self.closed
        born = self.state["StartedAt"]
        while not self.stop:
            over = not self.state["Running"] or self.state["StartedAt"] != born or self.closed > closed
            while at < len(self.lines):
                when, text = self.lines[at]
                at += 1
                if since <= when < until:
                    data = f"{stamp(when)} {text}".encode()
                    frame = data if self.tty else b"\1\0\0\0" + len(data).to_bytes(4, "big") + data
                    for piece in (frame[:5], frame[5:]):
                        handler.wfile.write(piece)
                        handler.wfile.flush()
            if query["follow"] == "0" or over:
                return
            time.sleep(0.01)


def stamp(at: float) -> str:
    nanos = int(at * SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanos // SECOND)) + f".{nanos % SECOND:09d}Z"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    docker = Docker(tmp_path / "docker.sock")
    monkeypatch.setattr(_log_follow, "_GRACE", 0.15)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker.path}")
    yield docker
    docker.stop = True
    docker.server.shutdown()
    docker.server.server_close()


def later(seconds: float, *deeds: Any) -> None:
    timer = threading.Timer(seconds, lambda: [deed() for deed in deeds])
    timer.daemon = True
    timer.start()


def watch(docker: Docker, timeout: float = 8, poll: float = 0.2) -> Any:
    log = StartupLog(one_start=True)
    return follow(ContainerSource("gemma4", {"DOCKER_HOST": f"unix://{docker.path}"}), log, timeout, poll), log


@pytest.mark.parametrize("tty", [False, True])
def test_it_ends_when_the_server_is_ready_and_says_how_long_that_took(docker: Docker, tty: bool) -> None:
    docker.tty = tty
    docker.run(time.time() - 90)
    docker.say(GOOD.replace("INFO:     Application startup complete.", "still busy"))
    later(0.15, lambda: docker.say(READY))
    end, log = watch(docker)
    assert end.kind == "ready"
    assert 90 < end.seconds < 96
    assert end.waited < 6
    assert log.first("kv_cache_tokens").value == 714768


def test_what_was_written_just_before_on_the_other_pipe_still_counts(docker: Docker) -> None:
    docker.say(READY)
    later(0.05, lambda: docker.say("Using" + GOOD.partition("Using")[2].partition("INFO:")[0]))
    end, log = watch(docker)
    assert end.kind == "ready"
    assert log.first("moe_backend").value == "MARLIN"


def test_an_earlier_starts_lines_do_not_count_even_within_the_same_second(docker: Docker) -> None:
    second = float(int(time.time()))
    docker.say(GOOD, at=second + 0.10)
    docker.exit(0, at=second + 0.12)
    docker.run(second + 0.40)
    docker.say("(EngineCore pid=9) INFO 11-23 10:00:20 [x.py:1] Starting to load model\n", at=second + 0.39)
    later(0.15, lambda: docker.exit(7))
    end, log = watch(docker)
    assert (end.kind, end.exit_code) == ("died", 7)
    assert log.first("moe_backend") is None
    assert end.progress == "loading weights"  # a line that is a little older than StartedAt is this start's


def test_a_fatal_line_is_condemned_soon_although_the_container_lives(docker: Docker) -> None:
    later(0.15, lambda: docker.say(CRASH))
    end, log = watch(docker, timeout=60)
    assert end.kind == "fatal"
    assert end.waited < 10
    assert "FP4 gemm" in log.fatal.line


def test_death_is_seen_at_once_with_its_exit_code_and_last_words(docker: Docker) -> None:
    docker.say(GOOD.partition("(EngineCore pid=77) INFO 11-23 10:02:13")[0])
    later(0.15, lambda: docker.say("RuntimeError: something new\n"), lambda: docker.exit(137, oom=True))
    end, log = watch(docker, timeout=60)
    assert (end.kind, end.exit_code, end.oom_killed) == ("died", 137, True)
    assert end.waited < 10
    assert log.last_error == "RuntimeError: something new"


def test_a_container_that_died_after_it_was_ready_is_dead(docker: Docker) -> None:
    docker.say(GOOD)
    docker.exit(139)
    end, log = watch(docker)
    assert (end.kind, end.exit_code, end.progress) == ("died", 139, "ready")
    assert log.ready


def test_what_was_logged_long_after_the_ready_line_does_not_count(docker: Docker) -> None:
    now = time.time()
    docker.run(now - 300)
    docker.say(GOOD, at=now - 200)
    docker.say("Using 'VLLM_CUTLASS' NvFp4 MoE backend out of potential backends: ['MARLIN'].\n", at=now - 100)
    docker.say("ValueError: Free memory on device is less than desired GPU memory utilization\n", at=now - 100)
    end, log = watch(docker)
    assert (end.kind, log.fatal) == ("ready", None)
    assert [seen.value for seen in log.all("moe_backend")] == ["MARLIN"]


def test_a_fatal_line_wins_over_the_death_that_follows(docker: Docker) -> None:
    docker.say(CRASH)
    docker.exit(1)
    end, _log = watch(docker)
    assert (end.kind, end.exit_code) == ("fatal", 1)


def test_a_restart_by_docker_is_a_crash_loop(docker: Docker) -> None:
    def crash() -> None:
        docker.say("ZeroDivisionError: integer division or modulo by zero\n")
        docker.exit(1)
        docker.state |= {"Status": "restarting", "Running": True}
        docker.restart_count = 1

    later(0.15, crash)
    end, _log = watch(docker, timeout=60)
    assert (end.kind, end.restarts, end.exit_code) == ("crash_loop", 1, 1)
    assert end.earlier == "ZeroDivisionError: integer division or modulo by zero"
    assert end.waited < 10


def test_a_crash_loop_that_began_before_we_came_shows_what_the_last_start_died_of(docker: Docker) -> None:
    now = time.time()
    docker.say(CRASH, at=now - 20)
    docker.exit(1, at=now - 10)
    docker.run(now - 5)
    docker.restart_count = 4
    end, _log = watch(docker, timeout=60)
    assert (end.kind, end.restarts) == ("crash_loop", 4)
    assert "FP4 gemm" in end.earlier


def test_a_container_that_crashed_long_ago_and_is_ready_now_is_ready(docker: Docker) -> None:
    docker.restart_count = 1
    docker.say(GOOD)
    end, _log = watch(docker)
    assert end.kind == "ready"


def test_a_start_by_hand_is_followed_into_the_new_start(docker: Docker) -> None:
    docker.say(GOOD.partition("Available KV")[0].replace("'MARLIN' NvFp4", "'VLLM_CUTLASS' NvFp4"))

    def again() -> None:
        docker.run(time.time())
        docker.say(GOOD)

    later(0.15, lambda: docker.exit(143))
    later(0.6, again)
    end, log = watch(docker)
    assert end.kind == "ready"
    assert [seen.value for seen in log.all("moe_backend")] == ["MARLIN"]


def test_a_stream_that_the_engine_closes_is_opened_again(docker: Docker) -> None:
    docker.say(GOOD.partition("Available KV")[0])

    def reload() -> None:
        docker.closed += 1

    later(0.2, reload)
    later(0.4, lambda: docker.say(READY))
    end, log = watch(docker)
    assert end.kind == "ready"
    assert len(log.warnings) == 3


def test_the_wait_is_bounded_also_when_the_log_never_rests(docker: Docker) -> None:
    docker.say(GOOD.partition("Available KV")[0])
    for tick in range(100):
        later(tick / 10, lambda: docker.say("noise\n"))
    end, _log = watch(docker, timeout=1)
    assert end.kind == "timeout"
    assert 1 <= end.waited < 5


def test_a_server_whose_start_was_rotated_away_is_reported_at_once(docker: Docker) -> None:
    docker.run(time.time() - 90000)
    docker.say(startup_log("serving-only.log").decode())
    end, _log = watch(docker, timeout=60)
    assert end.kind == "begins_late"
    assert end.waited < 10


def test_a_container_that_never_ran_is_dead(docker: Docker) -> None:
    docker.state = {"Status": "created", "Running": False, "StartedAt": "0001-01-01T00:00:00Z", "ExitCode": 127, "Error": "no such file"}
    end, _log = watch(docker)
    assert (end.kind, end.exit_code, end.error) == ("died", 127, "no such file")


def test_lines_of_a_start_are_told_apart_in_the_middle_between_two_runs() -> None:
    first = State(alive=True, started_at="2026-11-23T10:00:00.5Z")
    assert begins(first) == nanoseconds("2026-11-23T09:59:59.5Z")
    again = State(alive=True, started_at="2026-11-23T10:00:00.5Z", finished_at="2026-11-23T10:00:00.1Z")
    assert begins(again) == nanoseconds("2026-11-23T10:00:00.3Z")
    over = State(alive=False, started_at="2026-11-23T10:00:00.5Z", finished_at="2026-11-23T10:09:00Z")
    assert begins(over) == nanoseconds("2026-11-23T10:00:00.45Z")


# --- files


def test_a_file_may_grow_and_be_rotated(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    path.write_text(GOOD.partition("Available KV")[0])

    def rotate() -> None:
        path.rename(tmp_path / "vllm.log.1")
        path.write_text("Available KV" + GOOD.partition("Available KV")[2])

    later(0.15, rotate)
    log = StartupLog()
    end = follow(FileSource(str(path)), log, timeout=8)
    assert (end.kind, end.seconds) == ("ready", None)
    told = startup(log, end.seconds)
    assert (told["model_memory_gib"], told["kv_cache_tokens"]) == (15.76, 714768)


def test_what_was_written_right_before_a_rotation_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, old = tmp_path / "vllm.log", tmp_path / "vllm.log.1"
    path.write_text("first\n")
    stream = FileSource(str(path)).open(State(alive=True))
    assert stream.read(0) == b"first\n"

    look = os.stat

    def rotate(seen: Any, **options: Any) -> Any:
        if seen == str(path) and not old.exists():
            with path.open("a") as file:
                file.write("last\n")
            path.rename(old)
            path.write_text("next\n")
        return look(seen, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", rotate)
        assert [stream.read(0), stream.read(0)] == [b"last\n", b"next\n"]
    stream.close()


def test_a_file_that_is_truncated_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    path.write_text("x" * 100000 + "\n")
    later(0.15, lambda: path.write_text(GOOD))
    assert follow(FileSource(str(path)), StartupLog(), timeout=8).kind == "ready"


def test_without_a_wait_a_file_is_judged_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "vllm.log"
    path.write_text("noise\n" * 200000 + GOOD)
    assert follow(FileSource(str(path)), StartupLog(), timeout=0).kind == "ready"
    path.write_text("noise\n")
    end = follow(FileSource(str(path)), StartupLog(), timeout=0)
    assert end.kind == "timeout"
    assert end.waited < 5


# --- errors


def test_what_cannot_be_read_is_said_with_its_remedy(docker: Docker, tmp_path: Path) -> None:
    here = {"DOCKER_HOST": f"unix://{docker.path}"}
    with pytest.raises(LogError, match="there is no container gone on this box"):
        ContainerSource("gone", here).state()
    docker.logs_error = "configured logging driver does not support reading"
    with pytest.raises(LogError, match="does not support reading. Its log driver must be readable"):
        follow(ContainerSource("gemma4", here), StartupLog(), 1)
    with pytest.raises(LogError, match="Docker does not answer on .*systemctl status docker"):
        ContainerSource("gemma4", {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}).state()
    with pytest.raises(LogError, match="over a Unix socket only"):
        ContainerSource("gemma4", {"DOCKER_HOST": "tcp://10.0.0.1:2375"})
    with pytest.raises(LogError, match="there is no file"):
        FileSource(str(tmp_path / "none.log"))


# --- the module


def module(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return run_module(vllm_startup_log.main, capsys, **arguments)


def test_the_module_returns_what_the_log_says(docker: Docker, capsys: pytest.CaptureFixture[str]) -> None:
    docker.say(GOOD)
    expect = {"vllm_version": ">=0.19,<0.20", "moe_backend": "marlin", "kv_cache_memory_gib": {"min": 60}}
    result = module(capsys, container="gemma4", expect=expect, timeout=5)
    assert "failed" not in result
    assert (result["changed"], result["failures"], result["ended"]) == (False, [], "ready")
    assert result["startup"]["moe_backend"] == "MARLIN"
    assert result["startup"]["ready"] is True
    assert "tail" not in result


def test_the_module_fails_with_the_reason_the_remedy_and_the_tail(docker: Docker, capsys: pytest.CaptureFixture[str]) -> None:
    docker.say(startup_log("0.19.1-cutlass-moe.log").decode())
    result = module(capsys, container="gemma4", expect={"moe_backend": "MARLIN"}, timeout=5)
    assert result["failed"]
    assert result["msg"].startswith("gemma4: expected moe_backend MARLIN, saw VLLM_CUTLASS in the line 'Using 'VLLM_CUTLASS' NvFp4 MoE")
    assert "was not picked up" in result["msg"]
    assert result["startup"]["moe_backend"] == "VLLM_CUTLASS"
    assert result["tail"][-1].endswith("Application startup complete.")
    assert result["failures"][0]["expected"] == "moe_backend MARLIN"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "one of the following is required: container, path"),
        ({"container": "a", "path": "/b"}, "mutually exclusive"),
        ({"path": "/nowhere/vllm.log"}, "Cannot read the log: there is no file /nowhere/vllm.log"),
        ({"path": "/b", "expect": {"moe": "x"}}, "the option expect is wrong: moe is nothing that can be expected"),
    ],
)
def test_the_module_refuses_wrong_arguments(arguments: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = module(capsys, **arguments)
    assert result["failed"]
    assert words in result["msg"]
