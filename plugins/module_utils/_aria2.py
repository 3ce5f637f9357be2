# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Fetch files with aria2: one process, addresses on its standard input, what failed and why as data.

Addresses may be signed, so no text that leaves here contains one: only its host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

NO_ROOM, CORRUPT_RECORD = 9, -1
WATCH_S = 1.0


class Aria2Missing(Exception):
    """aria2 is not installed; the message names the remedy."""


@dataclass(frozen=True)
class Patience:
    """How long aria2 goes on against a bad link before it reports a failure. Seconds."""

    tries: int = 5
    wait: int = 3  # between two tries
    silence: int = 60  # without a byte, then it connects again


@dataclass(frozen=True)
class Job:
    """A file to fetch: where from, and its name in the directory."""

    url: str
    name: str

    @property
    def host(self) -> str:
        return host_of(self.url)


@dataclass(frozen=True)
class Failure:
    """Why a file was not fetched: aria2's error code, the HTTP status if there was one, and aria2's words."""

    host: str
    code: int
    status: int | None
    text: str


@dataclass(frozen=True)
class Outcome:
    """What a run left undone. A file in neither is fetched."""

    failures: dict[str, Failure]
    timed_out: bool


def host_of(url: str) -> str:
    """The host of an address, with its port if it names one."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"


def check_url(url: str) -> str:
    """An http address without a character that aria2's input would take for something else. Raises ValueError."""
    if not re.fullmatch(r"https?://[!-~]+", url):
        raise ValueError(f"the address on {host_of(url)} is no http address")
    return url


def arguments(configuration: str, program: str = "aria2c") -> list[str]:
    """The program, and how it treats files: what is there is continued, in place. Raises Aria2Missing."""
    binary = shutil.which(program)
    if binary is None:
        raise Aria2Missing("aria2c is not installed on this box: install the package aria2 (apt install aria2)")
    return [
        binary,
        configuration,
        "--no-netrc=true",
        "--continue=true",
        "--always-resume=false",
        "--allow-overwrite=true",
        "--auto-file-renaming=false",
        "--file-allocation=none",
        # What its record says to be written is written, whenever the process is killed.
        "--disk-cache=0",
        "--auto-save-interval=1",
        # The system's resolver: aria2's own knows nothing of mDNS and of systemd-resolved.
        "--async-dns=false",
        "--follow-torrent=false",
        "--follow-metalink=false",
    ]


def run(
    jobs: Sequence[Job],
    directory: str,
    connections: int,
    timeout: float,
    patience: Patience = Patience(),  # noqa: B008  frozen
    split_size: str = "16M",
    program: str = "aria2c",
    watch: Callable[[], bool] = lambda: True,
    files: int = 2,
) -> Outcome:
    """Fetch into an existing directory for at most C(timeout) seconds. What is there already is continued.

    C(connections) fetch one file at the same time, and so many C(files) are under way. C(watch) is asked every second whether to go on.
    Raises Aria2Missing, ValueError for a bad address.
    """
    command = [
        *arguments("--no-conf=true", program),
        "--input-file=-",
        f"--dir={directory}",
        f"--max-concurrent-downloads={files}",
        f"--split={connections}",
        f"--max-connection-per-server={connections}",
        f"--min-split-size={split_size}",
        f"--max-tries={patience.tries}",
        f"--retry-wait={patience.wait}",
        f"--timeout={patience.silence}",
        f"--connect-timeout={min(patience.silence, 30)}",
        "--console-log-level=notice",
        "--show-console-readout=false",
        "--enable-color=false",
        "--summary-interval=0",
        f"--stop-with-process={os.getpid()}",
    ]
    text = "".join(f"{check_url(job.url)}\n out={job.name}\n" for job in jobs)
    environment = {**os.environ, "LC_ALL": "C"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    try:
        output, timed_out = _attend(process, text, timeout, watch)
    except BaseException:
        stop(process)
        raise
    return Outcome(parse_failures(output.splitlines(), jobs), timed_out)


def _attend(process: subprocess.Popen[str], text: str, timeout: float, watch: Callable[[], bool]) -> tuple[str, bool]:
    """Its output when it has ended by itself or was stopped, and whether the time was over."""
    end = time.monotonic() + max(timeout, 0.1)
    rest: str | None = text
    while (left := end - time.monotonic()) > 0:
        try:
            return process.communicate(rest, min(left, WATCH_S))[0], False
        except subprocess.TimeoutExpired:
            rest = None  # it was taken the first time
        if not watch():
            return stop(process), False
    return stop(process), True


def stop(process: subprocess.Popen[str]) -> str:
    """It writes its record on SIGTERM, and is killed when it does not end. Returns its output."""
    process.terminate()
    try:
        return process.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def parse_failures(lines: Sequence[str], jobs: Sequence[Job]) -> dict[str, Failure]:
    """What aria2's log says of the files that it did not complete, by name.

    An error is a line with the address, followed by `Exception:` and `->` lines, of which the last is the cause; of several errors of a
    file the last one stays. A file given up without an address of its own (a full disk) is named by a line of its own.
    """
    names = {job.url: job.name for job in jobs}
    hosts = {job.name: job.host for job in jobs}
    failures: dict[str, Failure] = {}
    last: Failure | None = None
    name: str | None = None
    for line in lines:
        if match := re.search(r"\[ERROR\] .*? - Download aborted\. URI=(.*)$", line):
            name = names.get(match[1])
        elif line.startswith("Exception:") or line.lstrip().startswith("->"):
            last = _failure(line, last if line.lstrip().startswith("->") else None, hosts.get(name or "", ""))
            if name is not None:
                failures[name] = last
        elif "[ERROR]" in line:
            name = None
        elif match := re.search(r"\[NOTICE\] Download GID#\S+ not complete: (.*)$", line):
            given_up = os.path.basename(match[1])
            if given_up in hosts and given_up not in failures:
                failures[given_up] = last or Failure(hosts[given_up], 1, None, "aria2 says no more")
    return failures


def _failure(line: str, outer: Failure | None, host: str) -> Failure:
    code = int(match[1]) if (match := re.search(r"errorCode=(\d+)", line)) else 1
    status = int(match[1]) if (match := re.search(r"\bstatus=(\d{3})\b", line)) else (outer.status if outer else None)
    # Whatever stands before the words: [File.cc:12] errNum=28 errorCode=9 URI=…
    text = re.sub(r"^(Exception:|\s*->)\s*(\[[^\]]*\]\s*)?((errNum|errorCode)=\d+\s*)*(URI=\S*\s*)?(CUID#\d+ - )?", "", line).strip(" .")
    if outer and outer.code == NO_ROOM:
        code = NO_ROOM
    if "BtProgressInfoFile" in line:
        code = CORRUPT_RECORD
    elif code == 3:
        status = 404
    elif code == 24:
        status = 401
    return Failure(host, code, status, re.sub(r"https?://\S+", "…", text))
