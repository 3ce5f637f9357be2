# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What the action of a box does in its fleet, whatever is shared: which part it plays, what it says of it, and how it watches its half."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812
from ansible_collections.dgx.spark.plugins.module_utils._talk import END
from ansible_collections.dgx.spark.plugins.plugin_utils._fleet import ALONE, DONE, HAS, LACKS, LOOKING, Fleet, Part

FOLLOWED = 2  # times without a byte that a box looks for the seed before it goes elsewhere
DEAD_S = 30  # seconds; what has said that it lives, and has not said so again for so long, was killed


class Died(Exception):
    """The box's half was killed. Its record would say for hours that it works."""


def fleet_of(wanted: Sequence[str], host: str, task_vars: Mapping[str, Any], failures: float = math.inf) -> Fleet | None:
    """The boxes of the play that want the same, this one among them; None when it is the only one."""
    hosts = task_vars.get("ansible_play_batch") or []
    if len(hosts) < 2:
        return None
    fleet = Fleet(Path(C.DEFAULT_LOCAL_TMP), wanted, host, hosts, C.DEFAULT_FORKS, failures=failures)
    fleet.note(LOOKING)
    return fleet


class Sharing:
    """C(what) is shared, and C(otherwise) says what a box does to which the fleet does not give it.

    A box waits for a seed that has it not yet, for at most C(patience) seconds, and says so every C(interval) seconds.
    """

    def __init__(
        self, fleet: Fleet, what: str, otherwise: str, say: Callable[[str], None], patience: float = math.inf, interval: float = 0
    ) -> None:
        self.fleet = fleet
        self._what = what
        self._otherwise = otherwise
        self._say = say
        self._patience = patience
        self._interval = interval
        self._followed = 0

    def part(self, lacks: bool) -> Part:
        """What this box does, after it has looked."""
        self.fleet.note(LACKS if lacks else HAS)
        return self._next()

    def after(self, part: Part, lost: str, gone: bool, came: int) -> Part:
        """What this box does when the fleet did not give it what it lacks. C(gone): the seed did not answer; C(came) are bytes."""
        self._followed = 0 if came else self._followed + 1
        if gone and not (self._followed >= FOLLOWED and self.fleet.alive(part.whom)):
            return self._next()
        self.fleet.note(DONE)
        why = " (do the boxes reach each other by TCP on peer_ports?)" if gone else ""
        self._say(f"{lost}{why}. {self._otherwise}")
        return ALONE

    def _next(self) -> Part:
        began = said = time.monotonic()

        def waiting(whom: str, says: str) -> None:
            nonlocal said
            if self._interval and time.monotonic() - said >= self._interval:
                said = time.monotonic()
                self._say(f"waiting for {whom}{f', which says: {says}' if says else ''} ({said - began:.0f} s)")

        part = self.fleet.part(self._patience, waiting)
        if part.why:
            self._say(f"{part.why}. {self._otherwise}")
        if part.follow:
            self._say(f"takes the {self._what} from {part.whom}")
        elif part.seed and self.fleet.asked():
            self._say(f"gives the {self._what} to the other boxes")
        return part


class Watching:
    """Sees at every look that the box's half lives, and tells one that seeds to go on as long as somebody wants what it has."""

    def __init__(self, fleet: Fleet | None) -> None:
        self._fleet = fleet
        self._pulse = 0
        self._heard = time.monotonic()

    def __call__(self, document: Mapping[str, Any]) -> str:
        """Raises Died."""
        if document.get("pulse", 0) != self._pulse:
            self._pulse, self._heard = document["pulse"], time.monotonic()
            says = (document.get("url"), document.get("about"), document.get("says", ""))
            if self._fleet and not (self._fleet.beat(*says) and self._fleet.wanted()):
                return END
        elif self._pulse and time.monotonic() - self._heard > DEAD_S:
            raise Died("it does not work on the box any more: was it killed, or did the box restart? Run again, it goes on from there")
        return ""
