# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The scripted engine: when each token of each request is due, what is running, and the true times of every stream."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from sim.vllm_scripted.scenario import Scenario

KEPT_STREAMS = 1000
KV_TOKENS = 714_768
# Longer waits are cut into these, so that a client that left is noticed.
SLICE_S = 0.25


class ClientGone(Exception):
    """The client closed the connection."""


class Aborted(Exception):
    """The engine ended the request: it shuts down."""


@dataclass
class Stream:
    """One request and the true times of its tokens, in seconds of time.monotonic(), which all processes of a machine share."""

    id: str
    received: float
    prompt_tokens: int
    streaming: bool
    tokens: int = 0
    chunks: int = 0
    first_token: float | None = None
    last_token: float | None = None
    finish: str | None = None
    times: list[float] = field(default_factory=list)
    """When the event with each token had left (tokens that make no event: when they were due)."""

    def sent(self, tokens: int, at: float, *, visible: bool) -> None:
        """So many tokens have left at this moment. `first_token` and `last_token` count only what the client sees."""
        self.tokens += tokens
        self.times += [at] * tokens
        if visible:
            self.chunks += 1
            self.last_token = at
            if self.first_token is None:
                self.first_token = at


class Engine:
    """Runs requests on the scenario's schedule. Thread-safe."""

    def __init__(self, scenario: Scenario, max_requests: int = 1024) -> None:
        self.scenario = scenario
        self.max_requests = max_requests
        self.condition = threading.Condition()
        self.running: dict[str, Stream] = {}
        self.waiting = 0
        self.answering = 0
        self.done: deque[Stream] = deque(maxlen=KEPT_STREAMS)
        self.accepted = 0
        self.generated = 0
        self.prompted = 0
        self.finished = {"stop": 0, "length": 0, "abort": 0, "tool_calls": 0, "error": 0}
        self.drafts = self.drafted = self.accepted_drafts = 0
        self.stopping = False
        self.aborting = False

    def begin(self, stream: Stream) -> int:
        """Take a request; returns the how-manieth it is, from 1. Raises Aborted while the engine shuts down."""
        with self.condition:
            if self.stopping:
                raise Aborted
            self.waiting += 1
            self.condition.wait_for(lambda: len(self.running) < self.max_requests or self.stopping)
            self.waiting -= 1
            if self.stopping:
                raise Aborted
            self.running[stream.id] = stream
            self.answering += 1
            self.accepted += 1
            self.prompted += stream.prompt_tokens
            return self.accepted

    def end(self, stream: Stream, finish: str) -> None:
        """The request is over; a second call says nothing new."""
        with self.condition:
            if self.running.pop(stream.id, None) is None:
                return
            stream.finish = finish
            self.done.append(stream)
            self.finished[finish] = self.finished.get(finish, 0) + 1
            self.condition.notify_all()

    def close(self, stream: Stream, finish: str) -> None:
        """The last byte of the answer has left: the request is over if it was not before."""
        self.end(stream, finish)
        with self.condition:
            self.answering -= 1
            self.condition.notify_all()

    def count(self, tokens: int) -> None:
        """So many tokens were generated in one step."""
        with self.condition:
            self.generated += tokens
            self.drafts += 1
            self.drafted += max(4, tokens - 1)
            self.accepted_drafts += tokens - 1

    @property
    def concurrency(self) -> int:
        return len(self.running)

    def step_s(self) -> float:
        """Seconds between two steps of one stream while so many run."""
        script = self.scenario.stream
        return script.tokens_per_chunk * (1 + script.parallel_cost * (max(1, self.concurrency) - 1)) / script.tok_s

    def wait_until(self, due: float, gone: Callable[[], bool]) -> float:
        """Wait for this moment; returns the one that it became. Raises ClientGone, and Aborted when the engine stops."""
        while True:
            if self.aborting:
                raise Aborted
            now = time.monotonic()
            left = due - now
            if left <= 0:
                return now
            if left > SLICE_S / 2 and gone():
                raise ClientGone
            time.sleep(min(left, SLICE_S))

    def stop(self, timeout: float) -> bool:
        """Take no more requests, let those in flight go on for so many seconds, then abort them. Were all of them finished?"""
        with self.condition:
            self.stopping = True
            self.condition.notify_all()
            drained = self.condition.wait_for(lambda: not self.answering, timeout=timeout)
            self.aborting = True
            # Those that are aborted tell their clients so.
            self.condition.wait_for(lambda: not self.answering, timeout=2)
            return drained

    def kv_usage(self) -> float:
        """The used share of the KV cache."""
        with self.condition:
            used = sum(stream.prompt_tokens + stream.tokens for stream in self.running.values())
        return min(1.0, used / KV_TOKENS)

    def streams(self, *, times: bool) -> dict[str, Any]:
        """What /_sim/streams shows."""
        with self.condition:
            rows = [asdict(stream) for stream in [*self.done, *self.running.values()]]
        for row in rows:
            if not times:
                del row["times"]
        return {"now": time.monotonic(), "running": self.concurrency, "streams": rows}

    def forget(self) -> None:
        """Forget the streams that are over."""
        with self.condition:
            self.done.clear()

    def metrics(self, model: str, *, speculative: bool) -> str:
        """The text of /metrics."""
        labels = f'{{engine="0",model_name="{model}"}}'
        usage = self.kv_usage()
        with self.condition:
            rows: list[tuple[str, str, float]] = [
                ("vllm:num_requests_running", "gauge", len(self.running)),
                ("vllm:num_requests_waiting", "gauge", self.waiting),
                ("vllm:kv_cache_usage_perc", "gauge", usage),
                ("vllm:prompt_tokens_total", "counter", self.prompted),
                ("vllm:generation_tokens_total", "counter", self.generated),
            ]
            if speculative:
                rows += [
                    ("vllm:spec_decode_num_drafts_total", "counter", self.drafts),
                    ("vllm:spec_decode_num_draft_tokens_total", "counter", self.drafted),
                    ("vllm:spec_decode_num_accepted_tokens_total", "counter", self.accepted_drafts),
                ]
            finished = dict(self.finished)
        text = ""
        for name, kind, value in rows:
            text += f"# HELP {name.removesuffix('_total')} As vLLM counts it.\n# TYPE {name.removesuffix('_total')} {kind}\n"
            text += f"{name}{labels} {float(value)}\n"
        text += "# HELP vllm:request_success Count of successfully processed requests.\n# TYPE vllm:request_success counter\n"
        for reason, value in finished.items():
            text += f'vllm:request_success_total{{engine="0",finished_reason="{reason}",model_name="{model}"}} {float(value)}\n'
        return text
