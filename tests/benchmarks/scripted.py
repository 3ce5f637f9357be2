# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A scripted vLLM in a process of its own, the ways to stream that tell clients apart, and what is true of a stream."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "gemma-4-26b"
# Each is one thing that real servers, parsers and networks do. The role comes with the first token, as from vLLM, unless it says otherwise.
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "role-only first chunk, at once": {"role_chunk": "at_once"},
    "4 tokens a chunk": {"tokens_per_chunk": 4},
    "reasoning deltas": {"reasoning_first": 60},
    "tokens that a parser swallows": {"swallow_first": 6, "swallow_every": 7},
    "usage only at the end": {"usage": "end"},
    "keep-alive comments": {"keep_alive_every": 5},
    "events split over TCP reads": {"tcp_split": 100},
    "events merged in TCP reads": {"tcp_merge": 3},
    "events split and merged": {"tcp_merge": 3, "tcp_split": 500},
}
# These cannot be measured; a client has to say so.
BROKEN: dict[str, dict[str, Any]] = {"error event in mid-stream": {"error_after": 100}, "no usage at all": {"usage": "none"}}
# It ends when its standard input does, and so never outlives the benchmark.
_SERVE = """
import sys
from sim.vllm_scripted.server import ScriptedServer
with ScriptedServer() as server:
    print(server.base_url, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Truth:
    """What the server's own clock says of one stream: tokens, tok/s after the first output, ms to the first output."""

    tokens: int
    decode_tok_s: float
    ttft_ms: float


class Scripted:
    """The running server."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url

    def _call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.base_url + path, data, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)

    def play(self, stream: Mapping[str, Any]) -> None:
        """Stream like this from now on, and forget what was."""
        self._call("POST", "/_sim/scenario", {"stream": {"parallel_cost": 0.0, **stream}})
        self._call("DELETE", "/_sim/streams")

    def truth(self, tokens: int) -> list[Truth]:
        """The streams of so many tokens that are over, in the order of their end; shorter ones were a warm-up."""
        rows = [row for row in self._call("GET", "/_sim/streams")["streams"] if row["tokens"] == tokens and row["decode_tok_s"]]
        return [Truth(row["tokens"], row["decode_tok_s"], row["ttft_ms"]) for row in rows]


@contextlib.contextmanager
def scripted() -> Iterator[Scripted]:
    """Start it, and end it."""
    with subprocess.Popen([sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Scripted(process.stdout.readline().strip())
        finally:
            process.stdin.close()
            process.wait(timeout=10)
