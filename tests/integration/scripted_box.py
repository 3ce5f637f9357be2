# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A scripted vLLM as a process of its own, which can die: its scenario as JSON and more flags are its arguments."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Box:
    """The process, seen from outside."""

    def __init__(self, name: str, played: Mapping[str, Any], *flags: str) -> None:
        self.name = name
        command = [sys.executable, "-m", "integration.scripted_box", json.dumps(played), *flags]
        self._process = subprocess.Popen(command, cwd=ROOT / "tests", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def play(self, played: Mapping[str, Any]) -> None:
        """Play another scenario from now on."""
        self._ask("/_sim/scenario", json.dumps(played).encode())

    @property
    def running(self) -> int:
        """How many requests it answers at this moment."""
        return int(self._ask("/_sim/streams")["running"])

    def health(self) -> int:
        """The status that /health answers."""
        with urllib.request.urlopen(f"{self.base_url}/health", timeout=10) as answer:
            return int(answer.status)

    def die(self) -> None:
        """The process is gone at once, as after a crash."""
        self._process.kill()
        self._process.wait(timeout=10)

    def _ask(self, path: str, data: bytes | None = None) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.base_url}{path}", data, timeout=10) as answer:
            document: dict[str, Any] = json.load(answer)
        return document


def main(arguments: list[str]) -> None:
    from sim.vllm_scripted.server import ARTICLE, ScriptedServer

    with ScriptedServer(json.loads(arguments[0]), [*ARTICLE, *arguments[1:]]) as server:
        print(server.server.server_address[1], flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1:])
