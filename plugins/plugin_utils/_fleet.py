# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Which box of a run fetches from the Hub and gives the rest what it has: the seed. The processes of a run agree on one through a file.

A box that has all files is the best seed; without one, the first that lacks them is, once those that run at the same time have looked.
Nobody waits for a box that has not begun: Ansible runs as many at a time as it has forks, and a seed that has one goes on until all are
through. A box that comes late finds the seed, and when there is none any more, it is one.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._shared import shared

LOOKING, HAS, LACKS, DONE = "looking", "has", "lacks", "done"
PAUSE_S = 0.2
IDLE_S = 5.0  # for so long a box that has not begun may still be about to
SETTLE_S = 30.0  # the longest wait for what other boxes find out about themselves
START_S = 60.0  # until an elected seed serves
PULSE_S = 20.0  # a seed that the controller has not seen alive for so long is replaced


@dataclass(frozen=True)
class Part:
    """What a box does: it seeds, below a secret path; or follows the seed of an address; or neither, and is on its own."""

    seed: str | None = None
    follow: str | None = None
    whom: str = ""  # the seed's name


ALONE = Part()


class Fleet:
    """The boxes of a run that want the same snapshot, seen by the process of one of them. C(slots): how many run at a time."""

    def __init__(
        self,
        cache: Path,
        snapshot: Sequence[str],
        host: str,
        hosts: Sequence[str],
        slots: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = cache / f"dgx-spark-fleet-{hashlib.sha256(json.dumps(list(snapshot)).encode()).hexdigest()}.json"
        self._host = host
        self._hosts = hosts
        self._slots = min(slots, len(hosts))
        self._clock = clock
        self._sleep = sleep

    def note(self, state: str) -> None:
        """This box is LOOKING, HAS all, LACKS something, or is DONE and can no more be a seed."""
        with shared(self._path) as known:
            known.setdefault("boxes", {})[self._host] = state
            known["changed"] = self._clock()
            if state == DONE and known.get("seed", {}).get("host") == self._host:
                del known["seed"]

    def part(self) -> Part:
        """What this box, which HAS or LACKS, does now; waits until that is clear, for at most START_S and a little."""
        began = self._clock()
        while True:
            with shared(self._path) as known:
                found = decide(known, self._host, self._hosts, self._slots, self._clock(), self._clock() - began)
            if found is not None:
                return found
            self._sleep(PAUSE_S)

    def beat(self, url: str) -> bool:
        """The seed, this box, is alive and serves at an address. False when another one is the seed by now."""
        with shared(self._path) as known:
            seed = known.get("seed", {})
            if seed.get("host") != self._host:
                return False
            seed.update(url=url, beat=self._clock())
            return True

    def alive(self, host: str) -> bool:
        """Is this box the seed, and was it seen alive just now?"""
        with shared(self._path) as known:
            seed = known.get("seed", {})
            return seed.get("host") == host and not _stale(seed, self._clock())

    def wanted(self) -> bool:
        """Does any other box still lack something, or may one come that does?"""
        with shared(self._path) as known:
            boxes = known["boxes"]
            if any(state in (LOOKING, LACKS) for host, state in boxes.items() if host != self._host):
                return True
            return any(host not in boxes for host in self._hosts) and self._clock() - known["changed"] < IDLE_S


def decide(known: dict[str, Any], host: str, hosts: Sequence[str], slots: int, now: float, waited: float) -> Part | None:
    """What a box does, by what is known of all; None: wait. Whoever becomes the seed is written down as such."""
    boxes: dict[str, str] = known["boxes"]
    if (seed := known.get("seed")) and _stale(seed, now):
        del known["seed"]
        seed = None
    lacks = boxes[host] == LACKS
    if seed and seed["host"] != host:
        if not lacks:
            return ALONE
        return Part(follow=seed["url"], whom=seed["host"]) if seed["url"] else None
    others = {state for name, state in boxes.items() if name != host}
    unseen = any(name not in boxes for name in hosts)
    settled = waited > SETTLE_S or (LOOKING not in others and (not unseen or len(boxes) >= slots or waited > IDLE_S))
    if lacks and HAS in others and waited < SETTLE_S:
        return None  # that box seeds in a moment
    if not settled and (lacks or LACKS not in others):
        return None
    if not unseen and not others & {LACKS, LOOKING}:
        return ALONE
    known["seed"] = {"host": host, "secret": secrets.token_urlsafe(18), "url": None, "beat": now}
    return Part(seed=known["seed"]["secret"], whom=host)


def _stale(seed: dict[str, Any], now: float) -> bool:
    return bool(now - seed["beat"] > (PULSE_S if seed["url"] else START_S))
