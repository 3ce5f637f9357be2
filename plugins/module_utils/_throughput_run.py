# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Runs a workload against a server: warm-up, requests one after the other, a long one, and several at once."""

from __future__ import annotations

import contextlib
import gc
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._garbage import judge
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client, ClientError, Exchange, Reply, ServerRefused
from ansible_collections.dgx.spark.plugins.module_utils._roofline import Ceiling
from ansible_collections.dgx.spark.plugins.module_utils._throughput import (
    MeasureError,
    Run,
    measure,
    parallel,
    sequential,
    single_stream,
    too_slow,
)
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import Metrics, other_traffic, read, speculation

# English prose, long enough for any of the workloads; the lab's tiny model knows it by heart.
PROMPT = "Write a long story about a lighthouse."
# With the nonce and what the chat template adds, in tokens.
_PROMPT_TOKENS = 30
# What each of the parallel warm-up requests generates: enough to compile kernels for their batch size.
_WARM_TOKENS = 16
# Requests of others that just end get so long before they count as other traffic.
_SETTLE = 3.0


@dataclass(frozen=True)
class Workload:
    """What to send. C(sequential) and C(parallel) are (how many, tokens each); None leaves a part out."""

    model: str
    prompt: str = PROMPT
    ignore_eos: bool = True
    warmup: int = 1
    sequential: tuple[int, int] | None = None
    long: int | None = None
    parallel: tuple[int, int] | None = None
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    ceiling: Ceiling | None = None


def run(client: Client, workload: Workload, timeout: float, tell: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Run it all within C(timeout) seconds, and C(tell) what is going on.

    Returns {sequential, long, parallel, failures, notes, other_traffic, speculation, roofline}; a part that was not asked for, or that was
    not reached because the one before failed, is null. Nothing is raised.
    """
    runner = _Runner(client, workload, time.monotonic() + timeout, tell)
    with _quiet():
        return runner.run()


def nothing(failure: str) -> dict[str, Any]:
    """The result of a measurement that could not begin."""
    empty = ("sequential", "long", "parallel", "other_traffic", "speculation", "roofline")
    return {**dict.fromkeys(empty), "failures": [failure], "notes": []}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Python's garbage collector from pausing a thread that takes the time."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Runner:
    def __init__(self, client: Client, workload: Workload, deadline: float, tell: Callable[[str], None]) -> None:
        self.client, self.workload, self.deadline, self.tell = client, workload, deadline, tell
        self.failures: list[str] = []
        self.notes: list[str] = []
        self.own_tokens = 0
        self.continuous = True

    def run(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"sequential": None, "long": None, "parallel": None}
        before = after = Metrics()
        try:
            before = self.settled()
            self.warm_up()
            self.measured(parts)
        except (ClientError, MeasureError) as exc:
            self.failures.append(str(exc))
            # What a broken request generated is not known, so nobody can tell what was not ours.
            before = Metrics()
        with contextlib.suppress(ClientError):
            after = read(self.client.metrics(5))
        decode, _ttft = single_stream(parts)
        guessed = speculation(before, after, decode)
        roofline = self.roofline(parts, 1.0 if guessed is None else guessed["acceptance_length"])
        traffic = other_traffic(before, after, self.own_tokens)
        slow = too_slow(self.reached(parts), {**parts, "roofline": roofline})
        if traffic and traffic["seen"]:
            words = (
                f"others were served meanwhile: {traffic['running_before']} requests ran before,"
                f" {traffic['foreign_tokens']} tokens were not ours"
            )
            self.notes.append(words)
            slow = [f"{failure} ({words})" for failure in slow]
        return {
            **parts,
            "failures": self.failures + slow,
            "notes": self.notes,
            "other_traffic": traffic,
            "speculation": guessed,
            "roofline": roofline,
        }

    def roofline(self, parts: Mapping[str, Any], tokens_a_step: float) -> dict[str, Any] | None:
        """The limit of each part of the workload, at the context that it has on average, and what was reached of it.

        The limit is one of steps: what speculation adds to them does not count.
        """
        workload, ceiling = self.workload, self.workload.ceiling
        if ceiling is None:
            return None

        def context(tokens: int) -> float:
            return _PROMPT_TOKENS + tokens / 2

        found = ceiling.describe(context(workload.sequential[1] if workload.sequential else workload.long or 0))
        decode, _ttft = single_stream(parts)
        aggregate = (parts["parallel"] or {}).get("aggregate_tok_s")
        together = ceiling.limit_tok_s(context(workload.parallel[1]), workload.parallel[0]) if workload.parallel else None
        return found | {
            "share": None if decode is None else round(decode / tokens_a_step / found["limit_tok_s"], 4),
            "long_limit_tok_s": ceiling.limit_tok_s(context(workload.long)) if workload.long else None,
            "aggregate_limit_tok_s": together,
            "aggregate_share": None if aggregate is None or together is None else round(aggregate / tokens_a_step / together, 4),
        }

    def reached(self, parts: Mapping[str, Any]) -> dict[str, float | None]:
        """The thresholds of parts that were measured: those of the others failed for a reason that is told already."""
        single = parts["sequential"] or parts["long"]
        return {
            name: bound
            for name, bound in self.workload.thresholds.items()
            if (parts["parallel"] if name.startswith("aggregate") else single)
        }

    def measured(self, parts: dict[str, Any]) -> None:
        """Fill in the parts one by one, so that what was measured before a failure is kept. Raises ClientError and MeasureError."""
        workload = self.workload
        if workload.sequential:
            times, tokens = workload.sequential
            runs: list[Run] = []
            for number in range(1, times + 1):
                so_far = f", {runs[-1].e2e_tok_s:.1f} tok/s so far" if runs else ""
                self.tell(f"sequential run {number} of {times}, {tokens} tokens each{so_far}")
                runs.append(self.single(f"sequential run {number}", tokens))
                parts["sequential"] = sequential(runs)
        if workload.long:
            self.tell(f"long run, {workload.long} tokens")
            parts["long"] = self.single("long run", workload.long).result()
        if workload.parallel:
            self.tell(f"{workload.parallel[0]} requests at once, {workload.parallel[1]} tokens each")
            parts["parallel"] = parallel(self.together(*workload.parallel))

    def settled(self) -> Metrics:
        """The metrics before the first request, when nothing runs any more or after a short wait."""
        until = time.monotonic() + _SETTLE
        while True:
            metrics = read(self.client.metrics(5))
            if not metrics.running or time.monotonic() > until:
                return metrics
            time.sleep(0.2)

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise MeasureError("the time for the whole measurement is over: raise timeout, or ask for fewer tokens")
        return left

    def body(self, tokens: int) -> dict[str, Any]:
        # The nonce stands first, so that no prefix cache has the prompt already.
        body: dict[str, Any] = {
            "model": self.workload.model,
            "messages": [{"role": "user", "content": f"[{secrets.token_hex(4)}] {self.workload.prompt}"}],
            "max_tokens": tokens,
            "temperature": 0,
            "seed": 0,
            "stream": True,
            "stream_options": {"include_usage": True} | ({"continuous_usage_stats": True} if self.continuous else {}),
            "chat_template_kwargs": {"enable_thinking": False},
        }
        return body | {"ignore_eos": True} if self.workload.ignore_eos else body

    def warm_up(self) -> None:
        """The first requests compile kernels and capture graphs; they do not count."""
        workload = self.workload
        if workload.warmup < 1:
            return
        tokens = workload.sequential[1] if workload.sequential else workload.long
        if tokens:
            for number in range(1, workload.warmup + 1):
                self.tell(f"warm-up {number} of {workload.warmup}, {tokens} tokens")
                self.ask(tokens)
        if workload.parallel:
            for reply in self.race(self.prepared(workload.parallel[0], _WARM_TOKENS)):
                self.counted(reply)

    def ask(self, tokens: int) -> Reply:
        try:
            return self.counted(self.client.ask(self.body(tokens), self.left()))
        except ServerRefused as exc:
            if not self.continuous or exc.status not in (400, 422) or "continuous_usage_stats" not in str(exc):
                raise
            self.continuous = False
            self.notes.append("the server refuses continuous_usage_stats, so the tokens of the first chunk are estimated")
            return self.ask(tokens)

    def counted(self, reply: Reply) -> Reply:
        self.own_tokens += reply.completion_tokens or 0
        return reply

    def single(self, name: str, tokens: int) -> Run:
        return self.judged(name, tokens, self.ask(tokens))

    def together(self, requests: int, tokens: int) -> list[Run]:
        replies = [self.counted(reply) for reply in self.race(self.prepared(requests, tokens))]
        return [self.judged(f"parallel request {number}", tokens, reply) for number, reply in enumerate(replies, 1)]

    def prepared(self, requests: int, tokens: int) -> list[Exchange]:
        return [self.client.prepare(self.body(tokens)) for _number in range(requests)]

    def race(self, exchanges: Sequence[Exchange]) -> list[Reply]:
        """Send all of them at once, each on its own open connection. Raises the first ClientError of any."""
        timeout = self.left()
        barrier = threading.Barrier(len(exchanges))
        outcomes: list[Reply | ClientError | None] = [None] * len(exchanges)

        def start(index: int) -> None:
            barrier.wait()
            try:
                outcomes[index] = exchanges[index].run(timeout)
            except ClientError as exc:
                outcomes[index] = exc

        threads = [threading.Thread(target=start, args=(index,), daemon=True) for index in range(len(exchanges))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * timeout + 10)
        replies = []
        for outcome in outcomes:
            if isinstance(outcome, ClientError):
                raise outcome
            if outcome is None:
                raise MeasureError(f"a request did not end within {timeout:.0f} s")
            replies.append(outcome)
        return replies

    def judged(self, name: str, tokens: int, reply: Reply) -> Run:
        """The measured run; what is wrong with it becomes a failure. Raises MeasureError."""
        measured = measure(reply)
        if measured.tokens != tokens or reply.finish_reason != "length":
            remedy = "it ends by itself before that, so ask for fewer tokens, for another prompt, or set ignore_eos"
            if self.workload.ignore_eos:
                remedy = "the server did not ignore the natural end (ignore_eos), so ask for fewer tokens or for another prompt"
            self.failures.append(f"{name}: {measured.tokens} of {tokens} tokens, finish_reason {reply.finish_reason}: {remedy}")
        found = judge(
            reply.text or reply.reasoning or "",
            measured.tokens,
            forced=self.workload.ignore_eos,
            prose=self.workload.prompt == PROMPT,
            text_tokens=measured.text_tokens,
        )
        self.failures += [f"{name}: garbage, {finding.detector}: {finding.why}" for finding in found]
        if reply.cached_tokens:
            self.notes.append(f"{name}: {reply.cached_tokens} tokens of the prompt came from the prefix cache, its TTFT is too good")
        if measured.decode_tok_s is None and measured.tokens > 1:
            self.notes.append(f"{name}: the output came in one burst, so it has no decode rate")
        return measured
