# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Which run may change a box: one record on the box, which outlives the run that is killed and not the box's own restart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Where a box keeps it, unless a task says otherwise.
LOCK = "/run/lock/dgx-spark/run.json"


@dataclass(frozen=True)
class Holder:
    """A run that holds a box: its C(run)'s name, its C(owner) (user@host), since when (the box's time.time()), and which C(process) of
    which machine it is, in words that only its own controller understands (empty: unknown)."""

    run: str
    owner: str
    since: float
    process: str = ""

    def text(self) -> str:
        return json.dumps(asdict(self), sort_keys=True) + "\n"

    def words(self, now: float) -> str:
        return f"the run {self.run} of {self.owner}, since {duration(now - self.since)}"


def holder(text: str) -> Holder | None:
    """The holder that a record names; None for an empty record. Whoever wrote something else holds it without a name."""
    if not text.strip():
        return None
    try:
        found = json.loads(text)
        return Holder(str(found["run"]), str(found["owner"]), float(found["since"]), str(found.get("process") or ""))
    except (ValueError, KeyError, TypeError):
        return Holder("unknown", "unknown", 0.0)


def same(one: Holder, other: Holder) -> bool:
    """Are both the same run? A name alone is not enough: it is a time, and two runs may begin in the same second."""
    return (one.run, one.owner, one.process) == (other.run, other.owner, other.process)


def may_take(now: Holder | None, asks: Holder, instead_of: str, force: bool) -> bool:
    """May C(asks) take the box that C(now) holds? C(instead_of) is the process of a run that is known to be over."""
    return now is None or force or same(now, asks) or (instead_of != "" and now.process == instead_of)


def about(found: Holder | None, clock: float) -> Mapping[str, Any] | None:
    """A holder as a module returns it, with its age in seconds."""
    return None if found is None else {**asdict(found), "age_s": round(max(0.0, clock - found.since))}


def duration(seconds: float) -> str:
    """Seconds in the unit that fits: 40 s, 12 min, 3 h, 2 days."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"
