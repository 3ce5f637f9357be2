# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Waiting for a job in the background of a box: is it over, what does it do, how often is that said, and when is the box lost."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

# A box that cannot be reached for so long is lost; until then the connection is tried again.
LOST_S = 90.0
# Seconds between two looks: short at first, because many jobs end soon.
FIRST_LOOK_S, LOOK_S = 0.2, 1.0
EVERY_S = 10.0
# So many boxes may speak that often; more of them speak more rarely, so that somebody can read it.
READABLE = 4


class NotReached(Exception):
    """The box could not be reached."""


def ended(record: str) -> bool:
    """Does the beginning of a job's record say that it has ended? While it runs, the record is short and says that it was started."""
    try:
        return "started" not in json.loads(record)
    except ValueError:
        # A result is longer than what was read of it; an empty record is not written yet.
        return bool(record)


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
