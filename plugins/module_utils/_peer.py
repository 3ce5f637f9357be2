# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Fetch what another box of the fleet has: one aria2, which takes every file as soon as the seed has it and passes its pieces on meanwhile.

aria2 is told what to do over its RPC on the loopback interface, because files come one after the other: while the seed still fetches one,
its peers exchange those before. Its listening port is open as long as the download takes, and knows private torrents alone.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._aria2 import arguments, host_of, stop
from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile
from ansible_collections.dgx.spark.plugins.module_utils._seed import INDEX, TORRENT
from ansible_collections.dgx.spark.plugins.module_utils._torrent import SMALL

GONE_S = 15.0  # a seed that does not answer for so long is gone
ANSWER_S = 5.0
# Neither the seed nor the RPC is behind a proxy.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PeersLost(Exception):
    """Files do not come from the fleet any more; the message says why. C(seed_gone): it does not answer, and may be replaced."""

    def __init__(self, why: str, seed_gone: bool = False) -> None:
        self.seed_gone = seed_gone
        super().__init__(why)


@dataclass(frozen=True)
class Seeding:
    """Where the seed is, and the ports among which aria2 listens."""

    url: str
    ports: str


@dataclass
class Swarm:
    """aria2 at work between this box and others, from when it is entered. `complete` has the digests of what aria2 is through with."""

    seeding: Seeding
    parts: str  # the directory
    silence: int  # seconds without a byte, then it connects again
    complete: set[str] = field(default_factory=set)
    says: str = ""  # the seed, of what is still to come …
    ended: bool = False  # … or that nothing is
    _gids: dict[str, str] = field(default_factory=dict)
    _heard: float = 0.0

    def __enter__(self) -> Swarm:
        """Raises PeersLost when the seed cannot be reached, Aria2Missing, OSError."""
        self._heard = time.monotonic() - GONE_S + 2 * ANSWER_S  # who was never heard gets less time
        while self._index() is None:
            time.sleep(0.5)
        self._aria2 = _Aria2(self.seeding.ports, self.silence)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._aria2.stop()

    @property
    def under_way(self) -> bool:
        """Is something that the seed has still to come? Without it, silence is no fault of the link."""
        return bool(set(self._gids) - self.complete)

    def step(self, wanted: Mapping[str, RepoFile]) -> None:
        """Begin with what the seed has by now, and see what is complete. Raises PeersLost."""
        there = self._index() or ()
        for digest, file in wanted.items():
            if digest in there and digest not in self._gids:
                self._gids[digest] = self._begin(file)
            if digest not in there and self.ended:
                raise PeersLost(f"the seed {self._host} does not have {file.path}")
        for digest, gid in self._gids.items():
            if digest not in self.complete:
                state = self._call("tellStatus", gid, ["status", "seeder", "errorMessage"])
                if state["status"] == "error":
                    why = state.get("errorMessage") or "aria2 says no more"
                    raise PeersLost(f"{wanted[digest].path} cannot be fetched from the fleet: {why}")
                if state["status"] == "complete" or state.get("seeder") == "true":
                    self.complete.add(digest)

    def _begin(self, file: RepoFile) -> str:
        whole = f"{self.seeding.url}/{file.digest}"
        options = {"dir": self.parts, "out": file.digest}
        if file.size < SMALL:
            return str(self._call("addUri", [whole], options))
        try:
            torrent = self._get(file.digest + TORRENT)
        except OSError as exc:
            raise PeersLost(f"the seed {self._host} does not describe {file.path}: {exc}") from exc
        return str(self._call("addTorrent", base64.b64encode(torrent).decode(), [], options))

    def _index(self) -> Collection[str] | None:
        """What the seed has; None when it does not answer just now. Raises PeersLost when it has not for too long."""
        try:
            document = json.loads(self._get(INDEX))
            self.says, self.ended = str(document["says"]), bool(document["ended"])
            files = [str(digest) for digest in document["files"]]
        except (OSError, ValueError, KeyError, TypeError) as exc:
            if time.monotonic() - self._heard > GONE_S:
                raise PeersLost(f"the seed {self._host} does not answer ({exc})", seed_gone=True) from exc
            self.ended = False
            return None
        self._heard = time.monotonic()
        return files

    @property
    def _host(self) -> str:
        return host_of(self.seeding.url)

    def _get(self, name: str) -> bytes:
        with _DIRECTLY.open(f"{self.seeding.url}/{name}", timeout=ANSWER_S) as answer:
            content: bytes = answer.read()
            return content

    def _call(self, method: str, *parameters: Any) -> Any:
        try:
            return self._aria2.call(method, *parameters)
        except (OSError, ValueError) as exc:
            raise PeersLost(f"aria2 on this box does not do {method}: {exc}") from exc


class _Aria2:
    """An aria2 that is told what to do over its RPC."""

    def __init__(self, ports: str, silence: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/jsonrpc"
        self._secret = secrets.token_hex(16)
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with tempfile.NamedTemporaryFile("w", prefix="dgx-spark-", suffix=".conf") as settings:
            # Not among its arguments, which everybody can read.
            settings.write(f"rpc-secret={self._secret}\n")
            settings.flush()
            command = [
                *arguments(f"--conf-path={settings.name}"),
                "--enable-rpc=true",
                f"--rpc-listen-port={port}",
                "--rpc-max-request-size=16M",
                f"--timeout={silence}",
                f"--connect-timeout={min(silence, 30)}",
                # One connection to the seed, for pieces that others do not ask for just now; the rest comes from the others.
                "--split=1",
                "--max-connection-per-server=1",
                "--stream-piece-selector=random",
                # Those that are complete count, too, as long as they are passed on.
                "--max-concurrent-downloads=10000",
                "--seed-ratio=0.0",
                f"--listen-port={ports}",
                "--bt-max-peers=0",
                "--rpc-save-upload-metadata=false",
                "--disable-ipv6=true",
                # Nobody outside the fleet hears of it: the torrents are private, too.
                "--enable-dht=false",
                "--enable-peer-exchange=false",
                "--bt-enable-lpd=false",
                f"--stop-with-process={os.getpid()}",
            ]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, text=True
            )
            try:
                self._wait()
            except BaseException:
                self.stop()
                raise

    def _wait(self) -> None:
        """Until it answers. Raises PeersLost when it does not."""
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError, ValueError):
                self.call("getVersion")
                return
            time.sleep(0.1)
        raise PeersLost(f"aria2 does not start (code {self._process.poll()}): is a port of peer_ports free?")

    def call(self, method: str, *parameters: Any) -> Any:
        """The result of one of aria2's methods. Raises OSError, ValueError with aria2's words."""
        document = {"jsonrpc": "2.0", "id": "1", "method": f"aria2.{method}", "params": [f"token:{self._secret}", *parameters]}
        request = urllib.request.Request(self._url, json.dumps(document).encode(), {"Content-Type": "application/json"})
        try:
            with _DIRECTLY.open(request, timeout=30) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise ValueError(str(json.loads(exc.read() or b"{}").get("error", {}).get("message", exc))) from exc

    def stop(self) -> None:
        """It ends at once, without a word to the tracker, and its ports are closed."""
        with contextlib.suppress(OSError, ValueError):
            self.call("forceShutdown")
        stop(self._process)
