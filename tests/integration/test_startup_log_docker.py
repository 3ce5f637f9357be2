# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""vllm_startup_log against a real Docker engine: restarts, rotation, deaths and crash loops of containers that only print a log."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker
import docker.errors
import pytest
from ansible_collections.dgx.spark.plugins.modules import vllm_startup_log
from integration.tiny_image import build_base
from unit.run_module import run_module
from unit.startup_logs import LOGS, startup_log

pytestmark = pytest.mark.docker

NAME = "dgx-spark-test-startup-log"
# What every container runs first: how often it was started, and how to print a part of a log of the corpus.
PRELUDE = r"""
import os, sys, time
start = len(os.listdir("/starts")) if os.path.isdir("/starts") else os.mkdir("/starts") or 0
open(f"/starts/{start}", "w").close()
def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
def log(name):
    return open(f"/logs/{name}.log").read().replace("\N{SYMBOL FOR CARRIAGE RETURN}", "\r")
good, crash = log("0.19.1-gemma4-cu130"), log("0.18.2-fp4-crash")
"""


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> Iterator[str]:
    name = build_base(client)
    yield name
    client.images.remove(name)


class Box:
    """One container at a time, and the module's verdict on it."""

    def __init__(self, client: docker.DockerClient, image: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._client, self._image, self._capsys = client, image, capsys

    def run(self, script: str, **options: Any) -> Any:
        options |= {"name": NAME, "detach": True, "volumes": {str(LOGS): {"bind": "/logs", "mode": "ro"}}}
        return self._client.containers.run(self._image, ["python3", "-u", "-c", PRELUDE + script], **options)

    def verdict(self, timeout: int = 30, **expect: Any) -> dict[str, Any]:
        return run_module(vllm_startup_log.main, self._capsys, container=NAME, timeout=timeout, poll=0.5, expect=expect)

    def wait(self, true: Callable[[dict[str, Any]], bool]) -> None:
        """Until the container's document says so."""
        deadline = time.monotonic() + 20
        while not true(self._client.api.inspect_container(NAME)):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def log(self) -> str:
        """What Docker still has of the container's output."""
        text: bytes = self._client.containers.get(NAME).logs()
        return text.decode()

    def remove(self) -> None:
        with contextlib.suppress(docker.errors.NotFound):
            self._client.containers.get(NAME).remove(force=True)


@pytest.fixture
def box(client: docker.DockerClient, image: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Box]:
    made = Box(client, image, capsys)
    made.remove()
    yield made
    made.remove()


def later(seconds: float, deed: Callable[[], Any]) -> None:
    timer = threading.Timer(seconds, deed)
    timer.daemon = True
    timer.start()


def test_a_restart_during_the_wait_is_followed_and_the_first_starts_lines_do_not_count(box: Box) -> None:
    container = box.run(
        r"""
if start == 0:
    say(good.partition("Available KV")[0].replace("'MARLIN' NvFp4", "'VLLM_CUTLASS' NvFp4"))
else:
    say(good)
time.sleep(600)
"""
    )
    later(1.0, lambda: container.restart(timeout=0))
    result = box.verdict(moe_backend="marlin", absent=["Using 'VLLM_CUTLASS'"])
    assert (result["ended"], result["failures"], result["restarts"]) == ("ready", [], 0)
    assert 0 <= result["startup"]["seconds"] < 20
    # And again, long after both starts.
    assert box.verdict(moe_backend="marlin", absent=["Using 'VLLM_CUTLASS'"])["failures"] == []


def test_a_log_that_is_rotated_during_the_wait_loses_nothing_and_afterwards_proves_nothing(box: Box) -> None:
    rotated = {"type": "json-file", "config": {"max-size": "1m", "max-file": "2"}}
    box.run(
        r"""
first, second = good.split("(EngineCore pid=77) INFO 11-23 10:02:13", 1)
say(first)
for block in range(60):
    say(("(EngineCore pid=77) DEBUG 11-23 10:02:00 [weight_utils.py:500] " + "x" * 120 + "\n") * 500)
    time.sleep(0.05)
say("(EngineCore pid=77) INFO 11-23 10:02:13" + second)
time.sleep(2)
for block in range(60):
    say('INFO:     10.0.0.7:51234 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n' * 500)
    time.sleep(0.01)
time.sleep(600)
""",
        log_config=rotated,
    )
    told = box.verdict()["startup"]
    assert told["ready"]
    assert (told["moe_backend"], told["model_memory_gib"], told["kv_cache_tokens"]) == ("MARLIN", 15.76, 714768)
    box.wait(lambda document: "startup complete" not in box.log())
    result = box.verdict()
    assert result["ended"] == "begins_late"
    assert "was rotated away" in result["msg"]


def test_what_is_logged_after_the_ready_line_says_nothing_about_the_start(box: Box) -> None:
    box.run(
        r"""
say(good)
time.sleep(1)
say(good.replace("'MARLIN' NvFp4", "'VLLM_CUTLASS' NvFp4") + crash)
time.sleep(600)
"""
    )
    time.sleep(2)
    result = box.verdict(moe_backend="marlin", absent=["Using 'VLLM_CUTLASS'", "FP4 gemm"])
    assert (result["ended"], result["failures"]) == ("ready", [])


@pytest.mark.parametrize(
    ("code", "words"),
    [(137, "it was killed"), (0, "ended without an error"), (3, "exited with code 3 while compiling")],
)
def test_a_death_is_seen_without_waiting_for_the_timeout(box: Box, code: int, words: str) -> None:
    ends = "time.sleep(600)" if code == 137 else f"sys.exit({code})"
    container = box.run(f'say(good.partition("(EngineCore pid=77) INFO 11-23 10:02:13")[0])\ntime.sleep(1)\n{ends}')
    if code == 137:
        later(1.0, lambda: container.kill("SIGKILL"))
    result = box.verdict(timeout=300)
    assert (result["ended"], result["exit_code"]) == ("died", code)
    assert words in result["msg"]
    assert result["waited"] < 60
    assert result["tail"][-1].startswith("(EngineCore pid=77)")


def test_a_fatal_line_is_condemned_although_the_container_lives_on(box: Box) -> None:
    box.run("time.sleep(1)\nsay(crash)\ntime.sleep(600)")
    result = box.verdict(timeout=300)
    assert (result["ended"], result["exit_code"]) == ("fatal", None)
    assert "Failed to run cutlass FP4 gemm" in result["msg"]
    assert result["waited"] < 60


@pytest.mark.parametrize("late", [False, True])
def test_a_crash_loop_is_called_one_with_its_cause(box: Box, late: bool) -> None:
    box.run('say("ZeroDivisionError: integer division or modulo by zero\\n")\nsys.exit(1)', restart_policy={"Name": "always"})
    if late:
        box.wait(lambda document: document["RestartCount"] >= 2)
    result = box.verdict(timeout=300)
    assert result["ended"] == "crash_loop"
    assert result["restarts"] >= (2 if late else 1)
    assert "a crash loop in the line 'ZeroDivisionError: integer division or modulo by zero'" in result["msg"]


def test_a_crash_loop_whose_cause_is_known_says_both(box: Box) -> None:
    box.run("say(crash)\nsys.exit(1)", restart_policy={"Name": "always"})
    box.wait(lambda document: document["RestartCount"] >= 1)
    result = box.verdict(timeout=300)
    assert "Failed to run cutlass FP4 gemm" in result["msg"]
    assert "a crash loop" in result["msg"]


def test_a_container_that_was_ready_and_died_is_dead(box: Box) -> None:
    box.run("say(good)\nsys.exit(139)")
    box.wait(lambda document: not document["State"]["Running"])
    result = box.verdict()
    assert (result["ended"], result["exit_code"]) == ("died", 139)
    assert "after it was ready" in result["msg"]
    assert startup_log("0.19.1-gemma4-cu130.log").decode().endswith(result["tail"][-1] + "\n")
