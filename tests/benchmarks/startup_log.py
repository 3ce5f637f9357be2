# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""How fast the startup log is read, in how much memory, and how soon after a fatal line the verdict is there."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._log_follow import ContainerSource, follow
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog, nanoseconds
from sim.names import BASE_IMAGE

LOGS = Path(__file__).parents[1] / "corpus" / "logs"
# What reading from Docker's socket or a file gives at a time.
_BLOCK = 1 << 18
# So many lines fill the log between two starts: what vLLM says while it compiles, and debug lines.
_LINES_PER_START = 5000


def log(size: int) -> Iterator[bytes]:
    """A log of so many bytes, in blocks: starts without their last line, so that none of them is decided, and what fills a log between."""
    text = (LOGS / "0.19.1-gemma4-cu130.log").read_text().replace("␍", "\r")
    start = text[: text.index("Application startup complete")].rpartition("\n")[0].split("\n")
    compiling = "(EngineCore pid=77) INFO 11-23 10:00:02 [backends.py:371] Cache the graph of compile range (1, {}) for later use"
    debug = "(EngineCore pid=77) DEBUG 11-23 10:00:02 [core.py:1204] EngineCore waiting for work, step {}"
    filler = [(debug if number % 3 else compiling).format(number) for number in range(_LINES_PER_START)]
    piece = "\n".join([*start, *filler, ""]).encode()
    piece *= 1 + _BLOCK // len(piece)
    double = piece + piece
    at = sent = 0
    while sent < size:
        block = double[at : at + min(_BLOCK, size - sent)]
        sent += len(block)
        at = (at + len(block)) % len(piece)
        yield block


def reading(size: int) -> dict[str, Any]:
    """Read such a log: {bytes, seconds, mb_s, growth_mb}; the seconds are the process's CPU time, without making the log."""
    parser = StartupLog()
    spent = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, block in enumerate(log(size)):
        if number == 4:
            # Everything that is needed once is there by now.
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.process_time()
        parser.feed(block)
        spent += time.process_time() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = parser.first("moe_backend")
    assert found is not None and found.value == "MARLIN" and not parser.ended
    return {"bytes": size, "seconds": round(spent, 2), "mb_s": round(size / spent / 1e6), "growth_mb": round((after - before) / 1024, 2)}


def verdict() -> float:
    """Seconds from a fatal line of a container that lives on to the verdict, by Docker's own timestamp of the line."""
    name = f"bench-proof-{uuid.uuid4().hex[:8]}"
    source = LOGS / "0.19.1-out-of-memory.log"
    command = ["docker", "run", "-d", "--name", name, "--network", "none", f"--volume={source}:/start.log:ro", BASE_IMAGE]
    try:
        docker(*command[1:], "sh", "-c", "sleep 1.5; cat /start.log; exec sleep 60")
        parser = StartupLog()
        end = follow(ContainerSource(name), parser, 30)
        now = time.time()
        if end.kind != "fatal" or parser.fatal is None:
            raise RuntimeError(f"the wait ended with {end.kind}")
        line = next(row for row in docker("logs", "--timestamps", name).splitlines() if parser.fatal.line[-60:] in row)
        return now - nanoseconds(line.split(" ", 1)[0]) / 1e9
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            docker("rm", "-f", name)


def docker(*arguments: str) -> str:
    """What the docker command prints, both streams. Raises CalledProcessError."""
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=True)
    return done.stdout
