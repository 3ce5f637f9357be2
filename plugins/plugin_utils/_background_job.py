# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Waiting for a job in the background of a box: what is it asked, is it over, how often is that said, and when is the box lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

# A box that cannot be reached for so long is lost; until then the connection is tried again.
LOST_S = 90.0
# Seconds between two looks: short at first, because many jobs end soon.
FIRST_LOOK_S, LOOK_S = 0.2, 1.0
EVERY_S = 10.0
# So many boxes may speak that often; more of them speak more rarely, so that somebody can read it.
READABLE = 4


class NotReached(Exception):
    """The box could not be reached, or what it said is no answer."""


def question(commands: Sequence[str], mark: str) -> str:
    """A command that says what some others print, between marks: a login's greeting, or what else a box prints of itself, is no answer."""
    return "".join(f"echo; echo {mark}; {command} 2>/dev/null; " for command in commands) + f"echo; echo {mark}"


def answers(said: str, mark: str, number: int) -> list[str]:
    """What each of so many commands has printed. Raises NotReached with what was said when that is something else."""
    parts = said.split(mark)
    if len(parts) != number + 2:
        raise NotReached(f"the box answered {' '.join(said.split())[-300:]!r}")
    return [part.strip() for part in parts[1:-1]]


def ended(record: str) -> bool:
    """Does the beginning of a job's record, a JSON object, say that it has ended? While it runs, it says first that it was started."""
    return record.startswith("{") and not record.startswith('{"started"')


def every(setting: Any, boxes: int) -> float:
    """Seconds between two lines of one of so many boxes; 0 for none. C(setting) is the user's, None without one."""
    if setting is None:
        setting = 0 if os.environ.get("CI") else EVERY_S
    return float(setting) * max(1.0, boxes / READABLE)


def wait(
    look: Callable[[], tuple[bool, str]],
    timeout: float,
    interval: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    lost: float = LOST_S,
) -> str | None:
    """Look until the job has ended: None then, what it said last when the time is over.

    Every C(interval) seconds it says what goes on. Raises NotReached when the box cannot be reached for C(lost) seconds.
    """
    began = heard = said = clock()
    pause, words = FIRST_LOOK_S, ""
    while clock() - began < timeout:
        sleep(pause)
        pause = min(LOOK_S, pause * 1.5)
        note = ""
        try:
            done, words = look()
            heard = clock()
            if done:
                return None
        except NotReached:
            if clock() - heard > lost:
                raise
            note = f", not reached for {clock() - heard:.0f} s: the work goes on there"
        if interval and clock() - said >= interval:
            said = clock()
            say(f"{words or 'working'} ({clock() - began:.0f} s{note})")
    return words
