# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""HAProxy's runtime API on a socket, as far as the collection asks: the servers of one backend, and a master with old workers."""

from __future__ import annotations

import re
import socketserver
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

_STATE = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change"
    " srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port"
    " srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port"
)
_WORKERS = "#<PID> <type> <reloads> <uptime> <version>\n9 master 1 0d 2.6.12\n# workers\n90 worker 0 0d 2.6.12\n# old workers\n"
_COLUMNS = "pxname,svname,qcur,scur,status,check_status,last_chk,agent_status,last_agt,check_desc,agent_desc"


@dataclass
class FakeServer:
    """What HAProxy has of one server: the bits of srv_admin_state, and its sessions in the worker that listens."""

    admin: int = 4
    sessions: int = 0
    queued: int = 0
    status: str = ""
    health: str = "L7OK"
    agent: str = "L7OK"
    agent_says: str = ""
    port: int = 8002

    @property
    def shown(self) -> str:
        return self.status or ("MAINT" if self.admin & 1 else "DRAIN" if self.admin & 8 else "UP")


@dataclass
class FakeHaproxy:
    """Both sockets. `old` are the sessions of workers from before a reload, by process id and server; one without any has ended."""

    home: Path
    servers: dict[str, FakeServer]
    old: dict[str, dict[str, int]] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeHaproxy:
        self._listeners = [_Listener(self.socket, self), _Listener(self.master, self)]
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_about: object) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    @property
    def socket(self) -> str:
        return str(self.home / "admin.sock")

    @property
    def master(self) -> str:
        return str(self.home / "master.sock")

    def answer(self, command: str) -> str:
        self.commands.append(command)
        if told := re.fullmatch(r"set server vllm/(\S+) state (\w+)", command):
            server = self.servers[told[1]]
            server.admin = server.admin & 4 | {"ready": 0, "drain": 8, "maint": 1}[told[2]]
            return "\n"
        if command in ("show servers state", "show servers state vllm"):
            rows = [self._state(number, *item) for number, item in enumerate(self.servers.items(), 1)]
            return "\n".join(["1", _STATE, *rows, "", ""])
        if command == "show stat vllm 4 -1":
            return self._table({name: (server.queued, server.sessions) for name, server in self.servers.items()})
        if command == "show proc":
            old = "".join(f"{pid}  worker  1  0d00h01m  2.6.12\n" for pid in self.old)
            return f"{_WORKERS}{old}# programs\n\n"
        if asked := re.fullmatch(r"@!(\d+) show stat vllm 4 -1", command):
            sessions = {name: (0, count) for name, count in self.old[asked[1]].items()}
            return self._table(sessions) if sessions else "Can't find the target PID matching the prefix\n"
        return "Can't find backend.\n"

    def _state(self, number: int, name: str, server: FakeServer) -> str:
        return f"3 vllm {number} {name} 10.0.0.{number} 2 {server.admin} 1 1 2 15 3 4 6 22 0 0 - {server.port} - 0 0 - 127.0.0.1 8406"

    def _table(self, sessions: dict[str, tuple[int, int]]) -> str:
        rows = [f"# {_COLUMNS},"]
        for name, (queued, running) in sessions.items():
            server = self.servers[name]
            checks = f"{server.health},,{server.agent},{server.agent_says},Layer7 check passed,Layer7 check passed,"
            rows.append(f"vllm,{name},{queued},{running},{server.shown},{checks}")
        return "\n".join([*rows, "", ""])


class _Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, haproxy: FakeHaproxy) -> None:
        self.haproxy = haproxy
        super().__init__(path, _Session)


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        command = self.rfile.readline().decode().strip()
        self.wfile.write(cast(_Listener, self.server).haproxy.answer(command).encode())
