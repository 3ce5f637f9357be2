# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Which box of a run fetches from outside and gives the rest what it has: the seed. The processes of a run agree on one through a file.

A box that has all of it is the best seed; without one, the first that lacks it is, once those that run at the same time have looked.
Nobody waits for a box that has not begun: Ansible runs as many at a time as it has forks, and a seed that has one goes on until all are
through. A box that comes late finds the seed, and when there is none any more, it is one.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._shared import shared

LOOKING, HAS, LACKS, DONE = "looking", "has", "lacks", "done"
PAUSE_S = 0.2
IDLE_S = 5.0  # for so long a box that has not begun may still be about to
SETTLE_S = 30.0  # the longest wait for what other boxes find out about themselves
START_S = 60.0  # until an elected seed serves
PULSE_S = 20.0  # a seed that was seen alive, and was not for so long, is replaced


@dataclass(frozen=True)
class Part:
    """What a box does: it seeds, below a secret path; or follows the seed of an address; or neither, and is on its own.

    C(about) is what the seed has said of what it gives. C(why) is set when there was a seed before and it failed.
    """

    seed: str | None = None
    follow: str | None = None
    whom: str = ""  # the seed's name
    about: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


ALONE = Part()


class Fleet:
    """The boxes of a run that want the same, seen by the process of one of them. C(slots): how many run at a time.

    After so many C(failures) of seeds every box is on its own: where a seed gives nothing before it has all, they would fail one by one.
    """

    def __init__(
        self,
        cache: Path,
        wanted: Sequence[str],
        host: str,
        hosts: Sequence[str],
        slots: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        failures: float = math.inf,
    ) -> None:
        self._path = cache / f"dgx-spark-fleet-{hashlib.sha256(json.dumps(list(wanted)).encode()).hexdigest()}.json"
        self._host = host
        self._hosts = hosts
        self._slots = min(slots, len(hosts))
        self._clock = clock
        self._sleep = sleep
        self._failures = failures

    def note(self, state: str) -> None:
        """This box is LOOKING, HAS all, LACKS something, or is DONE and can no more be a seed."""
        with shared(self._path) as known:
            known.setdefault("boxes", {})[self._host] = state
            known["changed"] = self._clock()
            if state == DONE and known.get("seed", {}).get("host") == self._host:
                del known["seed"]

    def failed(self, why: str) -> None:
        """This box, which was the seed, gives nothing: whoever waits for it need not wait any longer."""
        with shared(self._path) as known:
            if known.get("seed", {}).get("host") == self._host:
                _fail(known, why)
        self.note(DONE)

    def part(self, patience: float = math.inf, waiting: Callable[[str, str], None] = lambda whom, says: None) -> Part:
        """What this box, which HAS or LACKS, does now; waits until that is clear, for at most C(patience) seconds.

        Until a seed that says nothing is replaced that takes START_S and a little. C(waiting) hears for whom it waits, and what that says.
        """
        began = self._clock()
        while True:
            waited = self._clock() - began
            with shared(self._path) as known:
                found = decide(known, self._host, self._hosts, self._slots, self._clock(), waited, self._failures)
                seed = known.get("seed", {})
            if found is not None:
                return found
            if waited > patience:
                return Part(why=f"{seed.get('host', 'the fleet')} was not ready to give it within {patience:g} s")
            if seed:
                waiting(seed["host"], seed["says"])
            self._sleep(PAUSE_S)

    def beat(self, url: str | None, about: Mapping[str, Any] | None = None, says: str = "") -> bool:
        """The seed, this box, is alive, and serves at an address if it has one yet. False when another one is the seed by now."""
        with shared(self._path) as known:
            seed = known.get("seed", {})
            if seed.get("host") != self._host:
                return False
            seed.update(url=url, about=about or {}, says=says, beat=self._clock(), seen=True)
            return True

    def alive(self, host: str) -> bool:
        """Is this box the seed, and was it seen alive just now?"""
        with shared(self._path) as known:
            seed = known.get("seed", {})
            return seed.get("host") == host and not _stale(seed, self._clock())

    def asked(self) -> bool:
        """Is this box still the seed, and does one that has begun lack something, or may it?"""
        with shared(self._path) as known:
            return known.get("seed", {}).get("host") == self._host and _lack(known["boxes"], self._host)

    def wanted(self) -> bool:
        """Does any other box still lack something, or may one come that does?"""
        with shared(self._path) as known:
            boxes = known["boxes"]
            if _lack(boxes, self._host):
                return True
            return any(host not in boxes for host in self._hosts) and self._clock() - known["changed"] < IDLE_S


def decide(
    known: dict[str, Any], host: str, hosts: Sequence[str], slots: int, now: float, waited: float, failures: float = math.inf
) -> Part | None:
    """What a box does, by what is known of all; None: wait. Whoever becomes the seed is written down as such."""
    boxes: dict[str, str] = known["boxes"]
    if (seed := known.get("seed")) and _stale(seed, now):
        _fail(known, f"{seed['host']} was not seen alive for {now - seed['beat']:.0f} s")
        seed = None
    lacks = boxes[host] == LACKS
    if known.get("failed", 0) >= failures:
        return Part(why=known.get("why", "") if lacks else "")
    if seed and seed["host"] != host:
        if not lacks:
            return ALONE
        return Part(follow=seed["url"], whom=seed["host"], about=seed["about"]) if seed["url"] else None
    others = {state for name, state in boxes.items() if name != host}
    unseen = any(name not in boxes for name in hosts)
    settled = waited > SETTLE_S or (LOOKING not in others and (not unseen or len(boxes) >= slots or waited > IDLE_S))
    if lacks and HAS in others and waited < SETTLE_S:
        return None  # that box seeds in a moment
    if not settled and (lacks or LACKS not in others):
        return None
    if not unseen and not others & {LACKS, LOOKING}:
        return ALONE
    secret = secrets.token_urlsafe(18)
    known["seed"] = {"host": host, "secret": secret, "url": None, "about": {}, "says": "", "beat": now, "seen": False}
    return Part(seed=secret, whom=host, why=known.pop("why", ""))


def _fail(known: dict[str, Any], why: str) -> None:
    """The seed is none any more, and this is why."""
    del known["seed"]
    known.update(failed=known.get("failed", 0) + 1, why=why)


def _lack(boxes: Mapping[str, str], host: str) -> bool:
    """Does any other box lack something, or is it still to be seen?"""
    return any(state in (LOOKING, LACKS) for name, state in boxes.items() if name != host)


def _stale(seed: dict[str, Any], now: float) -> bool:
    return bool(now - seed["beat"] > (PULSE_S if seed["seen"] else START_S))
