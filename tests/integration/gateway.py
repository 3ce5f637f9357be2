# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy with the configuration of the role gateway, its agent, and its router, before scripted boxes on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils import _haproxy_state
from ansible_collections.dgx.spark.plugins.module_utils._haproxy import Backend, HaproxyError, Server, ask
from ansible_collections.dgx.spark.plugins.modules import haproxy_server
from integration.scripted_box import Box
from jinja2 import Environment, StrictUndefined
from load.streams import Load
from sim import apt
from unit.run_module import run_module

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles" / "gateway"
LIBRARY = ROOT / ".collections"
AGENT = "ansible_collections.dgx.spark.plugins.module_utils._haproxy_agent"
WAIT_S = 60.0
# 20 tokens a second: twelve streams cost a busy machine little.
CALM = {"base": "good", "stream": {"tok_s": 20, "parallel_cost": 0.0}}
# What needs root and the distribution's directories.
_OF_THE_HOST = re.compile(r"^\s+(?:log|chroot|user|group) .*\n", re.MULTILINE)


def program() -> str:
    """Where HAProxy is on this machine; it is installed where there is none. Raises LabError."""
    for path in (os.environ["PATH"], "/usr/sbin"):
        if found := shutil.which("haproxy", path=path):
            return found
    apt.install(["haproxy"], instead="install haproxy yourself")
    return "/usr/sbin/haproxy"


def router_program() -> str:
    """Where vllm-router is, in the version of the role's defaults; it is installed where there is none."""
    version = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())["gateway_router_version"]
    home = ROOT / ".cache" / f"vllm-router-{version}"
    if not (home / "bin" / "vllm-router").exists():
        venv.create(home, clear=True, with_pip=True)
        # As the role does it.
        command = [str(home / "bin" / "pip"), "-q", "install", "--only-binary=:all:", f"vllm-router=={version}"]
        subprocess.run(command, check=True, timeout=600)
    return str(home / "bin" / "vllm-router")


def until(what: str, true: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Wait for something that has to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _number in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


class Gateway:
    """HAProxy and its agent as two processes, with their files in a directory of their own."""

    def __init__(self, home: Path, boxes: Sequence[Box], key_file: str = "", **variables: Any) -> None:
        self.home, self.boxes, self.key_file = home, list(boxes), key_file
        self.socket, self.master = str(home / "admin.sock"), str(home / "master.sock")
        self.configuration, self.state_file = home / "haproxy.cfg", home / "server-state"
        port, stats, metrics, agent, router, inner, router_metrics = free_ports(7)
        self.base_url, self.metrics_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}"
        self.variables = {
            **yaml.safe_load((ROLE / "defaults" / "main.yml").read_text()),
            **{"__gateway_backend": "vllm", "__gateway_socket": self.socket, "__gateway_state_file": str(self.state_file)},
            "__gateway_router_home": "/not-used",
            **{"gateway_bind": "127.0.0.1", "gateway_port": port, "gateway_stats_port": stats, "gateway_probe_port": agent},
            **{"__gateway_router_port": router, "__gateway_boxes_port": inner, "__gateway_router_metrics_port": router_metrics},
            **{"gateway_metrics_bind": f"127.0.0.1:{metrics}", "gateway_show_box": True, "gateway_slow_start": 1},
            **{"gateway_probe_interval": 0.5, "gateway_probe_timeout": 3, "gateway_probe_failures": 2},
            **variables,
        }
        self.backend = Backend(self.socket, "vllm", self.master)
        self.agent_log = home / "agent.log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._router: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Gateway:
        self.configure()
        wanted = self.variables
        settings = {key: wanted[f"gateway_probe_{key}"] for key in ("interval", "timeout", "failures", "successes")}
        settings |= {"listen": f"127.0.0.1:{wanted['gateway_probe_port']}", "boxes": self._servers(), "key_file": self.key_file}
        (self.home / "agent.json").write_text(json.dumps(settings))
        with self.agent_log.open("wb") as log:
            command = [sys.executable, "-m", AGENT, str(self.home / "agent.json")]
            self._processes.append(subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(LIBRARY)}, stdout=log, stderr=log))
        with (self.home / "haproxy.log").open("wb") as log:
            command = [program(), "-W", "-f", str(self.configuration), "-S", self.master]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        until("HAProxy answers", self._answers)
        if self.variables["gateway_engine"] == "vllm-router":
            self.start_router()
        return self

    def __exit__(self, *_about: object) -> None:
        for process in filter(None, [self._router, *self._processes]):
            process.terminate()
            process.wait(timeout=10)

    def start_router(self) -> None:
        """With the arguments of the role's service; HAProxy uses it from when it answers."""
        line = re.sub(r"\\\n", "", self._rendered("router.service.j2")).partition("ExecStart=")[2].splitlines()[0]
        _program, *arguments = shlex.split(line)
        with (self.home / "router.log").open("ab") as log:
            self._router = subprocess.Popen([router_program(), *arguments], stdout=log, stderr=log)
        until("HAProxy uses the router", lambda: self.router_status().startswith("UP"))

    def router_status(self) -> str:
        """What HAProxy makes of the router: UP, DOWN, …"""
        return Backend(self.socket, "router", self.master).server("vllm-router").status

    def stop_router(self) -> None:
        """As the service does it: it ends when its last stream has ended."""
        assert self._router is not None
        self._router.terminate()
        self._router.wait(timeout=WAIT_S)

    def kill_router(self) -> None:
        """It is gone at once, as after a crash."""
        assert self._router is not None
        self._router.kill()
        self._router.wait(timeout=10)

    def ask_router(self, path: str) -> str:
        """An answer of the router itself, past HAProxy."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.variables['__gateway_router_port']}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def _answers(self) -> bool:
        try:
            return bool(ask(self.socket, "show info")) and bool(ask(self.master, "show proc"))
        except HaproxyError:
            return False

    def _servers(self) -> list[dict[str, Any]]:
        return [{"name": box.name, "address": "127.0.0.1", "port": box.port, "maxconn": 16} for box in self.boxes]

    def configure(self) -> None:
        """Write the configuration from the role's template."""
        self.configuration.write_text(_OF_THE_HOST.sub("", self._rendered("haproxy.cfg.j2")))

    def _rendered(self, template: str) -> str:
        environment = Environment(trim_blocks=True, undefined=StrictUndefined, keep_trailing_newline=True)
        text = (ROLE / "templates" / template).read_text()
        return environment.from_string(text).render(self.variables | {"gateway_servers": self._servers()})

    def reload(self) -> None:
        """As the service does it: save the state, then a new worker takes over."""
        before = self._worker()
        _haproxy_state.save(self.socket, str(self.configuration), str(self.state_file))
        os.kill(self._processes[1].pid, signal.SIGUSR2)
        until("a new worker answers", lambda: self._answers() and self._worker() != before)

    def _worker(self) -> str:
        return "".join(re.findall(r"^Pid: (\d+)", ask(self.socket, "show info"), re.MULTILINE))

    def server(self, box: Box) -> Server:
        return self.backend.server(box.name)

    def admit(self, *boxes: Box) -> None:
        """Let boxes take part, and wait until they do."""
        for box in boxes or self.boxes:
            self.backend.tell(box.name, "ready")
        for box in boxes or self.boxes:
            self.backend.wait_up(box.name, WAIT_S, 0, lambda words: None)

    def until_status(self, box: Box, status: str) -> None:
        until(f"{box.name} is {status}\n{self.agent_log.read_text()}", lambda: self.server(box).status.startswith(status))


@contextlib.contextmanager
def boxes(*names: str, flags: tuple[str, ...] = ()) -> Iterator[list[Box]]:
    made = [Box(name, CALM, *flags) for name in names]
    try:
        yield made
    finally:
        for box in made:
            box.die()


def module(gateway: Gateway, capsys: pytest.CaptureFixture[str], box: Box, state: str, **more: Any) -> dict[str, Any]:
    """What haproxy_server does and says."""
    paths: dict[str, Any] = {"socket": gateway.socket, "master_socket": gateway.master, "state_file": str(gateway.state_file)}
    paths["configuration"] = str(gateway.configuration)
    return run_module(haproxy_server.main, capsys, server=box.name, state=state, **paths, **more)


def more_streams(load: Load, count: int) -> None:
    """Wait until so many more streams have ended."""
    wanted = len(load.done) + count
    until(f"{count} more streams end", lambda: len(load.done) >= wanted)


@contextlib.contextmanager
def under_load(gateway: Gateway, tokens: tuple[int, int] = (20, 60)) -> Iterator[Load]:
    """Three streams a box while the block runs. Afterwards all of them have ended; no second of it is without a new stream."""
    load = Load(gateway.base_url, "gemma-4-26b", streams=3 * len(gateway.boxes), tokens=tokens)
    thread = threading.Thread(target=lambda: asyncio.run(load.run()), daemon=True)
    thread.start()
    try:
        # What clients got from it, not what it answers the agent.
        until("every box has brought tokens", lambda: all(load.tokens_of(box.name) for box in gateway.boxes))
        yield load
    finally:
        load.stop_soon()
        thread.join(timeout=WAIT_S)
        assert not thread.is_alive(), f"{load.running} streams did not end"
