# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A mirror before the lab's registry that counts which box took which blob, and how many bytes; it may be slow."""

from __future__ import annotations

import http.client
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sim.names import REGISTRY

PIECE = 64 * 1024


class Mirror(ThreadingHTTPServer):
    """Serves in threads while it is entered. C(rate) is in bytes a second and for each blob; None is as fast as it goes."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), _Handler)
        self.rate: float | None = None
        self.sent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))  # blob → box → bytes
        self.lock = threading.Lock()
        self.url = f"http://{address}:{self.server_address[1]}"

    def __enter__(self) -> Mirror:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A box that goes away is nothing to report."""

    def blobs(self) -> dict[str, dict[str, int]]:
        """What was sent since the last look."""
        with self.lock:
            found = {blob: dict(boxes) for blob, boxes in self.sent.items()}
            self.sent.clear()
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Blobs are counted, nothing is printed."""

    def do_GET(self) -> None:
        """HEAD too: what the registry says, with its headers."""
        upstream = http.client.HTTPConnection(REGISTRY[1], timeout=30)
        upstream.putrequest(self.command, self.path, skip_accept_encoding=True)
        for name, value in self.headers.items():  # Accept comes more than once
            if name.lower() not in ("host", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders()
        answer = upstream.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server"):
                self.send_header(name, value)
        self.end_headers()
        _before, is_blob, blob = self.path.partition("/blobs/")
        while self.command == "GET" and (piece := answer.read(PIECE)):
            self.wfile.write(piece)
            if is_blob:
                with self.server.lock:
                    self.server.sent[blob][self.client_address[0]] += len(piece)
                if self.server.rate:
                    time.sleep(len(piece) / self.server.rate)
        upstream.close()

    do_HEAD = do_GET  # noqa: N815
