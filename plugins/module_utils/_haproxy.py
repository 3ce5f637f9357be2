# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The servers of an HAProxy, over its runtime API: who takes part, what the checks say, and how many sessions each still has.

After a reload the old worker goes on with its streams, and the socket of the new one does not know about them. Sessions are therefore
counted over all workers, which HAProxy's master names.
"""

from __future__ import annotations

import csv
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What a module asks for that talks to an HAProxy; the fragment `haproxy` documents it.
ARGUMENTS: dict[str, Any] = {
    "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
    "master_socket": {"type": "path", "default": "/run/haproxy-master.sock"},
    "backend": {"type": "str", "default": "vllm"},
}

# The service that asks the servers for tokens.
AGENT = "dgx-spark-gateway-agent"
_ANSWER = 10.0  # seconds for an answer on a local socket
_POLL = 0.5
# Bits of srv_admin_state. A server that the configuration calls C(disabled) keeps 4 for ever, so 4 alone says nothing.
_FORCED_MAINTENANCE = 0x01
_FORCED_DRAIN = 0x08
_WORD = {"ready": "ready", "drained": "drain", "maintenance": "maint"}
_CHECKS_PASS = frozenset({"L4OK", "L6OK", "L7OK", "L7OKC"})
_NAME = re.compile(r"[A-Za-z0-9_.:-]+")


class HaproxyError(Exception):
    """HAProxy cannot be asked, or says no. The message says what to do."""


class Absent(HaproxyError):
    """There is no such server yet, or no HAProxy."""


class NotYet(HaproxyError):
    """A wait is over and the server is not where it should be. C(server) is how it was seen last."""

    def __init__(self, words: str, server: Server) -> None:
        super().__init__(words)
        self.server = server


@dataclass(frozen=True)
class Check:
    """What one check says: HAProxy's status (L7OK, L4CON, …), empty where there is no such check, and its explanation."""

    status: str
    text: str

    @property
    def passes(self) -> bool:
        return not self.status or self.status in _CHECKS_PASS


@dataclass(frozen=True)
class Server:
    """One server. C(state) is what it was told to be, C(status) what HAProxy makes of that and of the checks (UP, DOWN, DRAIN, …)."""

    name: str
    state: str
    status: str
    sessions: int
    health: Check
    agent: Check

    @property
    def up(self) -> bool:
        """Does it get new sessions, and has every check of it passed?"""
        taken = self.status == "no check" or self.status.startswith("UP")
        return self.state == "ready" and taken and self.health.passes and self.agent.passes

    def described(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "status": self.status,
            "sessions": self.sessions,
            "checks": {"health": asdict(self.health), "agent": asdict(self.agent)},
        }


def ask(path: str, command: str) -> str:
    """The answer to one command. Raises HaproxyError, and Absent where there is no socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            # The master's socket stays open for more commands otherwise.
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode("utf-8", "replace")
    except OSError as exc:
        kind = Absent if isinstance(exc, FileNotFoundError) else HaproxyError
        raise kind(
            f"HAProxy does not answer on {path} ({exc}): is it running on this host (systemctl status haproxy), and does its configuration"
            " have a `stats socket` there with level admin? playbooks/gateway.yml sets it up"
        ) from exc


class Backend:
    """The servers of one backend. C(master) is the socket of HAProxy's master, empty where there is none."""

    def __init__(self, path: str, name: str, master: str = "") -> None:
        """Raises HaproxyError for a name that HAProxy cannot have given."""
        self.path, self.name, self.master = path, _checked(name), master

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Backend:
        """The one that a module's arguments name. Raises HaproxyError."""
        master = params["master_socket"]
        return cls(params["socket"], params["backend"], master if os.path.exists(master) else "")

    def servers(self) -> dict[str, Server]:
        """All of them as they are now, by name. Raises HaproxyError, and Absent where there is no such backend."""
        states, rows, old = self._states(), _rows(ask(self.path, self._statistics)), self._old_sessions()
        return {
            name: Server(
                name=name,
                state=states[name],
                status=row["status"],
                sessions=_sessions(row) + old[name],
                health=Check(row["check_status"].removeprefix("* "), row["last_chk"] or row["check_desc"]),
                agent=Check(row["agent_status"].removeprefix("* "), row["last_agt"] or row["agent_desc"]),
            )
            for name, row in rows.items()
            if name in states
        }

    def server(self, name: str) -> Server:
        """One server as it is now. Raises HaproxyError, and Absent where there is no such server."""
        found = self.servers()
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise Absent(f"HAProxy's backend {self.name} has no server {name}, it has {known}: playbooks/gateway.yml adds a box")
        return found[name]

    def tell(self, name: str, state: str) -> None:
        """Make a server ready, drained or under maintenance. Raises HaproxyError."""
        answer = ask(self.path, f"set server {self.name}/{_checked(name)} state {_WORD[state]}").strip()
        if answer:
            raise HaproxyError(f"HAProxy does not make {self.name}/{name} {state}: {answer}")

    def wait_idle(self, name: str, timeout: float, tell: Callable[[str], None]) -> Server:
        """Wait until a server has no session left. Raises NotYet and HaproxyError."""
        server = self._wait(name, timeout, lambda seen: seen.sessions == 0, lambda seen: tell(f"{seen.sessions} streams left on {name}"))
        if server.sessions:
            raise NotYet(
                f"{server.sessions} streams run on {name} after {timeout:.0f} s. It gets no new ones and stays {server.state}: raise the"
                " timeout to wait longer",
                server,
            )
        return server

    def wait_up(self, name: str, timeout: float, settle: float, tell: Callable[[str], None]) -> Server:
        """Wait until a server is up and all its checks have passed, for C(settle) seconds on end. Raises NotYet and HaproxyError.

        What HAProxy says of a check is what it heard last, which may be from before.
        """
        up_since: float | None = None

        def settled(seen: Server) -> bool:
            nonlocal up_since
            now = time.monotonic()
            up_since = None if not seen.up else now if up_since is None else up_since
            return up_since is not None and now - up_since >= settle

        server = self._wait(name, timeout, settled, lambda seen: tell(f"{name} is {seen.status}"))
        if not server.up:
            raise NotYet(
                f"{name} is {server.status} after {timeout:.0f} s: the health check says {_said(server.health)}, the agent that asks it for"
                f" tokens says {_said(server.agent)}. It takes part as soon as both pass; see journalctl -u haproxy -u {AGENT}",
                server,
            )
        return server

    def _wait(self, name: str, timeout: float, done: Callable[[Server], bool], seen: Callable[[Server], None]) -> Server:
        end = time.monotonic() + timeout
        while True:
            server = self.server(name)
            if done(server) or time.monotonic() >= end:
                return server
            seen(server)
            time.sleep(_POLL)

    def _states(self) -> dict[str, str]:
        text = ask(self.path, f"show servers state {self.name}")
        columns: list[str] = []
        found = {}
        for line in text.splitlines():
            if line.startswith("#"):
                columns = line.removeprefix("#").split()
            elif columns and line.strip():
                row = dict(zip(columns, line.split(), strict=False))
                admin = int(row["srv_admin_state"])
                state = "maintenance" if admin & _FORCED_MAINTENANCE else "drained" if admin & _FORCED_DRAIN else "ready"
                found[row["srv_name"]] = state
        if not columns:
            raise Absent(f"HAProxy has no backend {self.name}: {text.strip() or 'it says nothing'}")
        return found

    @property
    def _statistics(self) -> str:
        return f"show stat {self.name} 4 -1"  # 4: servers, -1: all of them

    def _old_sessions(self) -> Counter[str]:
        """The sessions on each server that workers from before a reload still have."""
        found: Counter[str] = Counter()
        for pid in _old_workers(ask(self.master, "show proc")) if self.master else []:
            # A worker that ended meanwhile gives no table.
            found.update({name: _sessions(row) for name, row in _rows(ask(self.master, f"@!{pid} {self._statistics}")).items()})
        return found


def _checked(name: str) -> str:
    """A name as HAProxy allows it; anything else could be another command."""
    if not _NAME.fullmatch(name):
        raise HaproxyError(f"{name!r} is no name of HAProxy's: it may have letters, digits and _ . : -")
    return name


def _rows(text: str) -> dict[str, dict[str, str]]:
    """HAProxy's statistics, which are CSV, by server."""
    lines = text.strip().removeprefix("# ").splitlines()
    return {row["svname"]: row for row in csv.DictReader(lines) if row.get("svname")}


def _sessions(row: Mapping[str, str]) -> int:
    """Those that run and those that wait for this server and no other."""
    return int(row["scur"] or 0) + int(row["qcur"] or 0)


def _old_workers(processes: str) -> list[str]:
    """The process ids of the workers that only finish what they have, from C(show proc)."""
    old = processes.partition("# old workers")[2].partition("# programs")[0]
    return re.findall(r"^(\d+)\s+worker", old, re.MULTILINE)


def _said(check: Check) -> str:
    return f"{check.status or 'nothing yet'}{f' ({check.text})' if check.text else ''}"
