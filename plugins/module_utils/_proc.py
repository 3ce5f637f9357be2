# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What /proc tells of sockets and processes: who listens, who is connected, which container a process is in."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LISTEN, ESTABLISHED = "0A", "01"


@dataclass(frozen=True)
class Socket:
    """A line of /proc/net/tcp."""

    local: str
    port: int
    peer: str
    peer_port: int
    state: str
    inode: str


@dataclass(frozen=True)
class Process:
    """A process: its id, its name and the container it is in (Docker's id), if it is in one."""

    pid: int
    name: str
    container: str | None


def parse_tcp(text: str) -> list[Socket]:
    """The lines of /proc/net/tcp or /proc/net/tcp6."""
    sockets = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or ":" not in fields[1]:
            continue  # the header
        (local, port), (peer, peer_port) = (fields[index].split(":") for index in (1, 2))
        sockets.append(Socket(_address(local), int(port, 16), _address(peer), int(peer_port, 16), fields[3], fields[9]))
    return sockets


def _address(text: str) -> str:
    """0100007F is 127.0.0.1: the kernel prints 32-bit words as its processor keeps them (little-endian on all that this runs on)."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    packed = struct.pack(f"<{len(words)}I", *words)
    address = socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
    return address.removeprefix("::ffff:")


def tcp_sockets() -> list[Socket]:
    """All TCP sockets of this machine."""
    sockets = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                sockets += parse_tcp(file.read())
        except FileNotFoundError:
            continue  # no IPv6
    return sockets


def owners(inodes: Iterable[str]) -> dict[str, Process]:
    """The process of each socket, by inode. Another user's only root sees; who is not seen is left out."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, Process] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")) if wanted else ():
        for link in wanted.keys() & set(_open_files(pid)):
            found.setdefault(wanted[link], _process(int(pid)))
        if len(found) == len(wanted):
            break
    return found


def _open_files(pid: str) -> Iterator[str]:
    """What a process has open, as links; nothing of one that has ended or is somebody else's."""
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{number}")


def _process(pid: int) -> Process:
    name, control = (_text(f"/proc/{pid}/{file}") for file in ("comm", "cgroup"))
    return Process(pid, name.strip() or "?", parse_cgroup(control))


def parse_cgroup(text: str) -> str | None:
    """The id of the container in the text of /proc/PID/cgroup (version 1 or 2, cgroupfs or systemd)."""
    match = re.search(r"[/-]([0-9a-f]{64})(?:\.scope)?(?:/|$)", text, re.MULTILINE)
    return match[1] if match else None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def clients_of(port: int) -> list[str]:
    """Who is connected to a port of this machine, as C(address:port), in no order."""
    sockets = tcp_sockets()
    return [f"{found.peer}:{found.peer_port}" for found in sockets if found.port == port and found.state == ESTABLISHED]
