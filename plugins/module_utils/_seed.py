# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The box that gives a fleet what it has verified: a web seed for aria2 (BEP 19), and the tracker by which its peers find each other.

Both are one HTTP server on one address of the box, below a path that only the run's boxes were told; it ends with the process that began
it. A tracker on the box itself works across VLANs, where multicast (LPD) does not, needs no package whose service stays behind
(opentracker), and, other than DHT and peer exchange, tells nobody outside.
"""

from __future__ import annotations

import errno
import hmac
import json
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._torrent import Described, announced

INDEX, ANNOUNCE, TORRENT = "files", "announce", ".torrent"
INTERVAL_S = 10  # between two announcements of a peer
PEERS = 50  # told at a time, as other trackers do
IDLE_S = 60  # a connection on which nothing is asked is closed


@dataclass(frozen=True)
class _Offer:
    """A verified file, or a part of one. It is held open, because it moves when it is put in place."""

    stream: IO[bytes]
    start: int
    size: int
    described: Described | None  # a small file is fetched whole


class Seed:
    """Serves while it is entered. C(offer) makes a file known; C(says) is what the peers hear of files that are still to come.

    With C(ended) there are none: who lacks one need not wait for it.
    """

    def __init__(self, secret: str, ports: Sequence[int], address: str | None = None) -> None:
        self.says = ""
        self.ended = False
        self.sent = 0  # bytes
        self._secret = secret
        self._offers: dict[str, _Offer] = {}
        self._peers: dict[bytes, dict[tuple[str, int], float]] = {}
        self._lock = threading.Lock()
        self._server = _listen(self, address or own_address(), ports)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    def __enter__(self) -> Seed:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        for offer in self._offers.values():
            offer.stream.close()

    @property
    def url(self) -> str:
        """Where the run's boxes find it. Secret."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/{self._secret}"

    def offer(self, file: RepoFile, path: str, pieces: bytes, start: int = 0) -> None:
        """Give a verified file, which is in C(path) from C(start) on; with the hashes of its pieces also as a torrent. Raises OSError."""
        described = Described(file.digest, file.size, pieces, self._secret) if pieces else None
        offer = _Offer(open(path, "rb", buffering=0), start, file.size, described)  # noqa: SIM115  it stays open
        with self._lock:
            if file.digest in self._offers:
                offer.stream.close()
                return
            self._offers[file.digest] = offer
            if described:
                self._peers[described.info_hash] = {}

    def answer(self, parts: Sequence[str], query: str, client: str, base: str) -> bytes | _Offer | None:
        """What is answered to a request by C(client) below the secret path; None: there is no such thing."""
        (name,) = parts if len(parts) == 1 else ("",)
        if name == INDEX:
            return json.dumps({"files": list(self._offers), "says": self.says, "ended": self.ended}).encode()
        if name == ANNOUNCE:
            return self._announce(parse_qs(query, encoding="latin-1"), client)
        offer = self._offers.get(name.removesuffix(TORRENT))
        if offer and name.endswith(TORRENT):
            return offer.described.torrent(f"{base}/{ANNOUNCE}", f"{base}/{offer.described.name}") if offer.described else None
        return offer

    def knows(self, secret: str) -> bool:
        return hmac.compare_digest(secret.encode(), self._secret.encode())

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent

    def _announce(self, query: dict[str, list[str]], client: str) -> bytes | None:
        known = self._peers.get(query.get("info_hash", [""])[0].encode("latin-1"))
        port = query.get("port", [""])[0]
        if known is None or not port.isdigit() or not 0 < int(port) < 65536:
            return None
        me, now = (client, int(port)), time.monotonic()
        with self._lock:
            for peer in [peer for peer, until in known.items() if until < now]:
                del known[peer]
            others = [peer for peer in known if peer != me]
            if query.get("event") == ["stopped"]:
                known.pop(me, None)
            else:
                known[me] = now + 3 * INTERVAL_S
        return announced(random.sample(others, min(PEERS, len(others))), INTERVAL_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], seed: Seed) -> None:
        self.seed = seed
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away is nothing to report."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Paths are secret."""

    def version_string(self) -> str:
        return "dgx.spark"

    def do_GET(self) -> None:
        """Any request; HEAD is answered without the content."""
        seed, asked = self.server.seed, urlsplit(self.path)
        secret, *parts = asked.path.strip("/").split("/")
        base = f"http://{self.headers.get('Host', '')}/{secret}"
        found = seed.answer(parts, asked.query, self.client_address[0], base) if seed.knows(secret) else None
        if isinstance(found, _Offer):
            self._file(found)
        else:
            self._head(404 if found is None else 200, len(found or b""))
            if found and self.command == "GET":
                self.wfile.write(found)

    do_HEAD = do_GET  # noqa: N815

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _file(self, offer: _Offer) -> None:
        first, last = 0, offer.size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(last, int(asked[2] or last))
            if first > last:
                self._head(416, 0, Content_Range=f"bytes */{offer.size}")
                return
            self._head(206, last - first + 1, Accept_Ranges="bytes", Content_Range=f"bytes {first}-{last}/{offer.size}")
        else:
            self._head(200, offer.size, Accept_Ranges="bytes")
        # In pieces, so that what a peer took before it went away is counted.
        while self.command == "GET" and first <= last:
            sent = self.connection.sendfile(offer.stream, offer.start + first, min(last - first + 1, 1 << 22))
            if not sent:
                self.close_connection = True
                return
            self.server.seed.count(sent)
            first += sent


def _listen(seed: Seed, address: str, ports: Sequence[int]) -> _Server:
    """A server on the first port that is free. Raises SnapshotError, OSError."""
    for port in ports:
        try:
            return _Server((address, port), seed)
        except OSError as exc:
            if exc.errno == errno.EADDRNOTAVAIL:
                raise SnapshotError(f"{address} is no address of this box: correct peer_address") from exc
            if exc.errno != errno.EADDRINUSE:
                raise
    raise SnapshotError(f"none of the ports {ports[0]} to {ports[-1]} is free on {address}: set peer_ports to others")


def port_range(text: str) -> range:
    """The ports of C(6881-6889), or of one alone. Raises SnapshotError."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    ports = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not ports or not 1024 <= ports[0] <= ports[-1] <= 65535:
        raise SnapshotError(f"peer_ports is {text!r}: give the first and the last port, as in 6881-6889")
    return ports


def own_address() -> str:
    """The IPv4 address by which this box reaches the world; nothing is sent. Raises SnapshotError when it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that documentation uses, by RFC 5737
        except OSError as exc:
            raise SnapshotError("this box has no default route, so it does not know where others reach it: set peer_address") from exc
        address: str = probe.getsockname()[0]
        return address
