# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Wait until vLLM answers nobody, by its own counters of requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import Metrics

LOOK_S = 1.0
# A request that was taken a moment ago is in no counter yet.
SETTLED_S = 1.0


@dataclass(frozen=True)
class Seen:
    """What the last look saw: requests that C(run) and that C(wait); None when vLLM could not be asked, and C(why) says why."""

    running: int | None
    waiting: int | None
    seconds: float
    why: str = ""

    @property
    def requests(self) -> int | None:
        return None if self.running is None or self.waiting is None else self.running + self.waiting

    @property
    def words(self) -> str:
        if self.requests is None:
            return f"vLLM cannot be asked ({self.why})"
        return f"{self.running} requests run on vLLM and {self.waiting} wait"


class NobodyListens(Exception):
    """No server is there, so no request is either."""


class NoAnswer(Exception):
    """The server does not tell its counters; the message says why."""


def wait_idle(
    read: Callable[[], Metrics],
    timeout: float,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Seen:
    """Look every second until nothing has run or waited for a second, or C(timeout) seconds are over: what the last look saw.

    C(read) raises NobodyListens, which ends the wait, or NoAnswer, which does not.
    """
    began, quiet_since = clock(), None
    while True:
        try:
            metrics = read()
            # A server that does not tell one of them is none that can be asked.
            counts = [None if count is None else round(count) for count in (metrics.running, metrics.waiting)]
            seen = Seen(counts[0], counts[1], clock() - began, "its /metrics do not count requests" if None in counts else "")
        except NobodyListens as exc:
            return Seen(None, None, clock() - began, str(exc))
        except NoAnswer as exc:
            seen = Seen(None, None, clock() - began, str(exc))
        if seen.requests == 0:
            quiet_since = clock() if quiet_since is None else quiet_since
            if clock() - quiet_since >= SETTLED_S:
                return seen
        else:
            quiet_since = None
            if seen.seconds >= timeout:
                return seen
        tell(f"{seen.words}, {max(0.0, timeout - seen.seconds):.0f} s are left")
        sleep(LOOK_S)
