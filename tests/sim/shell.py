# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run commands: short ones quietly, slow ones with a line of progress now and then and their whole output in a log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sim.names import LOGS

PROGRESS_S = 10.0
TAIL_LINES = 25


class LabError(Exception):
    """Something that the lab needs does not work; the message names cause and remedy."""


def say(text: str) -> None:
    """Print one line of progress at once."""
    print(f"sim: {text}", flush=True)


def as_root(argv: Sequence[str]) -> list[str]:
    """The command as root: itself, or by sudo."""
    return list(argv) if os.geteuid() == 0 else ["sudo", *argv]


def run(argv: Sequence[str], *, timeout: float = 120, check: bool = True) -> str:
    """Run a short command, return its standard output. Raises LabError with its error output when it fails and `check` is set."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run `tests/sim/lab.py engine`") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:.0f} s") from error
    if check and done.returncode != 0:
        raise LabError(f"`{' '.join(argv)}` failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done.stdout


def docker(*args: str, timeout: float = 120, check: bool = True) -> str:
    """`docker ARGS`: its standard output."""
    return run(["docker", *args], timeout=timeout, check=check)


def docker_rows(*args: str) -> list[dict[str, Any]]:
    """The rows of a docker list command, as its own JSON."""
    return [json.loads(line) for line in docker(*args, "--format", "{{json .}}").splitlines()]


def stream(label: str, argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a slow command: its output goes to a log, its last line is shown every PROGRESS_S seconds.

    Raises LabError with the log's tail when it fails or does not end within `timeout` seconds.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{label.replace('/', '_').replace(' ', '_').replace(':', '_')}.log"
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    started = time.monotonic()
    say(f"{label} …")
    try:
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed: run `tests/sim/lab.py engine`") from error

    def copy() -> None:
        assert process.stdout is not None
        with log.open("w") as file:
            for line in process.stdout:
                file.write(line)
                file.flush()
                if line.strip():
                    tail.append(line.rstrip())

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    while True:
        try:
            code = process.wait(timeout=PROGRESS_S)
            break
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
            say(f"{label}: {seconds:4.0f} s  {tail[-1].strip()[:100] if tail else ''}")
            if seconds > timeout:
                process.kill()
                process.wait()
                code = -1
                tail.append(f"(killed: it did not end within {timeout:.0f} s)")
                break
    reader.join(timeout=5)
    if code != 0:
        shown = "\n  ".join(tail)
        raise LabError(f"{label} failed ({code}). The end of {log}:\n  {shown}")
    say(f"{label}: done in {time.monotonic() - started:.0f} s")


def wait_for(what: str, ready: Callable[[], bool], *, timeout: float, evidence: Callable[[], str], every: float = 0.1) -> None:
    """Wait until `ready()`; after `timeout` seconds raise LabError with `evidence()`."""
    end = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {timeout:.0f} s.\n{evidence()}")
        time.sleep(every)


def fail(error: LabError) -> int:
    """Print the error; the exit code."""
    print(f"sim: {error}", file=sys.stderr)
    return 1
