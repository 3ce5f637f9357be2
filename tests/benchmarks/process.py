# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run a command to its end and say what it cost: CPU time, and the peak of the memory of all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Cost:
    """How a command ended and what it took. C(cpu_s) counts all its processes that ended, C(peak_mb) (MB, 0 if not asked for) their
    proportional set sizes, in which a page that several share counts once."""

    code: int
    output: str
    wall_s: float
    cpu_s: float
    peak_mb: float

    @property
    def last_line(self) -> str:
        """The last line that it printed, which is where programs say what went wrong."""
        return next((line.strip() for line in reversed(self.output.splitlines()) if line.strip()), "")


def run(command: Sequence[str], log: Path, timeout: float, env: Mapping[str, str] | None = None, memory: bool = False) -> Cost:
    """Run it with its output in a file, and end it with all its processes after C(timeout) seconds."""
    started = time.monotonic()
    peak = 0.0
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() - started > timeout:
                    os.killpg(process.pid, signal.SIGKILL)
                if memory:
                    peak = max(peak, _memory(process.pid))
                time.sleep(_SAMPLE_S)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    return Cost(process.returncode, text, time.monotonic() - started, usage.ru_utime + usage.ru_stime, peak)


def _memory(session: int) -> float:
    """MB of all processes of a session."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stat:
                if int(stat.read().rpartition(")")[2].split()[3]) != session:
                    continue
            with open(f"/proc/{entry}/smaps_rollup") as rollup:
                total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        except (OSError, StopIteration, IndexError):
            continue  # it ended meanwhile
    return total / 1024
