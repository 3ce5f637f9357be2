# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is a server healthy? Only if it generates sense: vLLM's /health answers 200 while its engine hangs, and while it answers garbage.

A busy server is the trap. A probe that waits behind long prompts gets no token in time, although the engine works as fast as it can; then
the engine's own counters say whether it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.dgx.spark.plugins.module_utils._garbage import excerpt, judge
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import (
    Client,
    ClientError,
    Reply,
    ServerHangs,
    ServerRefused,
    ServerSlow,
)
from ansible_collections.dgx.spark.plugins.module_utils._probes import FACT
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import read

# The answer to FACT has about ten tokens. What does not end must not outlast the timeout, for then it would pass as busy.
_TOKENS = 32
# A probe that was given up leaves the engine within this time, and from then on changes no counter.
_ABORTED = 1.0
# An engine that works ends a step within this time: one token of every stream, or one chunk of a prompt.
_STEP = 5.0
# How often the counters are looked at meanwhile.
_LOOKS = 5


@dataclass(frozen=True)
class Finding:
    """What one look at a server gave.

    C(kind) is C(good), C(bad), C(busy) (the probe got no answer in time, but the engine works) or C(unjudged) (the server refuses the probe
    itself, which says nothing about its engine).
    """

    kind: str
    why: str = ""


def look(client: Client, timeout: float, pause: Callable[[float], object] = time.sleep) -> Finding:
    """Ask a server one short question, for C(timeout) seconds at most."""
    try:
        served = client.models(timeout)
        if not served:
            return Finding("unjudged", "it serves no model")
        return _judged(client.ask(_question(served[0]), timeout))
    except ServerRefused as exc:
        # A wrong key, a model that takes no chat: the probe is at fault. An error in a stream has 200.
        return Finding("unjudged" if 400 <= exc.status < 500 else "bad", str(exc))
    except ServerHangs as exc:
        return Finding("busy", str(exc)) if _works(client, timeout, pause) else Finding("bad", str(exc))
    except ServerSlow as exc:
        return Finding("busy", str(exc))
    except ClientError as exc:
        return Finding("bad", str(exc))


def _question(model: str) -> dict[str, object]:
    asked = {"model": model, "messages": [{"role": "user", "content": FACT}], "temperature": 0, "max_tokens": _TOKENS}
    return asked | {"stream": True, "stream_options": {"include_usage": True}}


def _judged(reply: Reply) -> Finding:
    found = judge(f"{reply.reasoning or ''}{reply.text}", reply.completion_tokens, prose=True)
    if found:
        return Finding("bad", f"its answers are garbage ({found[0].detector}: {found[0].why})")
    # A model that thinks first may not get to its answer.
    if reply.reasoning or "paris" in reply.text.lower():
        return Finding("good")
    return Finding("bad", f"its answers are garbage: the capital of France is Paris, not {excerpt(reply.text)!r}")


def _works(client: Client, timeout: float, pause: Callable[[float], object]) -> bool:
    """Does the engine make progress with what others asked: tokens, or the cache that a long prompt fills chunk by chunk?"""
    pause(_ABORTED)
    try:
        before = read(client.metrics(timeout))
        for _look in range(_LOOKS):
            pause(_STEP / _LOOKS)
            now = read(client.metrics(timeout))
            if (now.generated, now.cache_usage) != (before.generated, before.cache_usage):
                return True
    except ClientError:
        return False
    return False


class Health:
    """The verdict over a server, from one finding after the other. Before the first clear one there is none, and C(healthy) is None."""

    def __init__(self, failures: int, successes: int) -> None:
        """C(failures) in a row put a server out, C(successes) in a row bring it back."""
        self.healthy: bool | None = None
        self.why = ""
        self._failures, self._successes = failures, successes
        self._bad = self._good = 0

    def take(self, finding: Finding) -> bool:
        """Did this finding change the verdict?"""
        before = self.healthy
        if finding.kind == "good":
            self._bad, self._good = 0, self._good + 1
            if self.healthy is None or self._good >= self._successes:
                self.healthy, self.why = True, ""
        elif finding.kind == "bad":
            self._bad, self._good = self._bad + 1, 0
            if self._bad >= self._failures:
                self.healthy, self.why = False, finding.why
        elif finding.kind == "busy" and self.healthy is None:
            self.healthy = True
        return self.healthy != before
