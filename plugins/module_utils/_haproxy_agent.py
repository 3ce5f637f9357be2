# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The agent that HAProxy's agent-check asks: one process beside HAProxy looks at every box, as clients see them.

Run as a program: C(… CONFIGURATION), JSON as class Settings reads it.

It answers C(up) and C(down), and never C(ready), C(drain) or C(maint): those would overrule what somebody told HAProxy. An empty line
changes nothing, and is the answer as long as there is no verdict.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._generation_health import Health, look
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client

# HAProxy sends a box's name at once.
_ASKED = 5.0
_WHY = 120


@dataclass(frozen=True)
class Settings:
    """C(listen) is an address and a port; C(interval) and C(timeout) are seconds; C(boxes) have name, address and port; C(key_file) has the
    key that they ask for, and is empty where they ask for none."""

    listen: tuple[str, int]
    interval: float
    timeout: float
    failures: int
    successes: int
    boxes: Sequence[Mapping[str, Any]]
    key_file: str = ""

    @classmethod
    def read(cls, path: str) -> Settings:
        """Raises OSError, and ValueError, KeyError or TypeError for a file that is not as it must be."""
        with open(path, encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
        host, _colon, port = document.pop("listen").rpartition(":")
        return cls(listen=(host, int(port)), **document)

    @property
    def api_key(self) -> str:
        """Raises OSError."""
        if not self.key_file:
            return ""
        with open(self.key_file, encoding="utf-8") as file:
            return file.read().strip()


class Watch(threading.Thread):
    """Looks at one box again and again, until it is told to end."""

    def __init__(self, name: str, client: Client, settings: Settings, delay: float) -> None:
        super().__init__(name=name, daemon=True)
        self.health = Health(settings.failures, settings.successes)
        self._client, self._settings, self._delay = client, settings, delay
        self._said = ""
        self._ended = threading.Event()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def run(self) -> None:
        wait = self._delay
        while not self._ended.wait(wait):
            started = time.monotonic()
            finding = look(self._client, self._settings.timeout)
            changed = self.health.take(finding)
            if changed or finding.kind != self._said:
                verdict = {True: "up", False: "down", None: "no verdict yet"}[self.health.healthy]
                sys.stderr.write(f"{self.name}: {verdict}; {finding.kind}{f': {finding.why}' if finding.why else ''}\n")
            self._said = finding.kind
            wait = max(0.0, started + self._settings.interval - time.monotonic())

    @property
    def answer(self) -> str:
        """What HAProxy is told."""
        if self.health.healthy is None:
            return ""
        if self.health.healthy:
            return "up"
        return "down #" + "".join(letter if " " <= letter <= "~" else "?" for letter in self.health.why)[:_WHY]


class Server(socketserver.ThreadingTCPServer):
    """Answers HAProxy, which sends a box's name in a line."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, settings: Settings) -> None:
        self.watches: dict[str, Watch] = {}  # an address that is taken closes what it never opened
        super().__init__(settings.listen, Asked)
        api_key = settings.api_key
        # Spread over the interval, so that a hundred boxes are not looked at in the same moment.
        step = settings.interval / max(1, len(settings.boxes))
        self.watches |= {
            box["name"]: Watch(box["name"], Client(f"http://{box['address']}:{box['port']}", api_key), settings, number * step)
            for number, box in enumerate(settings.boxes)
        }

    def start(self) -> None:
        for watch in self.watches.values():
            watch.start()

    def server_close(self) -> None:
        super().server_close()
        for watch in self.watches.values():
            watch.end()


class Asked(socketserver.StreamRequestHandler):
    """One question of HAProxy's."""

    server: Server
    timeout = _ASKED

    def handle(self) -> None:
        try:
            watch = self.server.watches.get(self.rfile.readline(256).decode("utf-8", "replace").strip())
            self.wfile.write(f"{watch.answer if watch else ''}\n".encode())
        except OSError:
            # HAProxy asks again.
            return


def main(argv: Sequence[str]) -> int:
    """Serve until somebody stops the service."""
    with Server(Settings.read(argv[0])) as server:
        server.start()
        server.serve_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
