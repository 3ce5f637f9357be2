# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""How far work on bytes is, how fast it goes just now, and when it ends, in a few words."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 15.0  # what "just now" means: long enough that one slow second does not show
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))


def amount(count: float) -> str:
    """Bytes as a person reads them: `16.5 GB`, `999 bytes`."""
    unit, size = next(((unit, size) for unit, size in _UNITS if count >= size), _UNITS[-1])
    return f"{count / size:.0f} {unit}" if size == 1 else f"{count / size:.1f} {unit}"


def share(done: float, total: float) -> str:
    """A part of an amount, both in the unit of the whole: `6.2 of 16.5 GB (37 %)`."""
    whole = amount(total)
    size = dict(_UNITS)[whole.split()[1]]
    part = f"{done / size:.0f}" if size == 1 else f"{done / size:.1f}"
    return f"{part} of {whole} ({100 * done / total if total else 100:.0f} %)"


def rate_of(bytes_per_second: float) -> str:
    """A speed as a person reads it: `112 MB/s`, `1.1 GB/s`."""
    unit, size = next(((unit, size) for unit, size in _UNITS if bytes_per_second >= size), _UNITS[-1])
    value = bytes_per_second / size
    return f"{value:.1f} {unit}/s" if value < 10 and size > 1 else f"{value:.0f} {unit}/s"


class Pace:
    """Told now and then how much is done of C(total) bytes, it says how far that is.

    Times are of C(clock), in seconds.
    """

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._clock = clock
        self._grown = clock()
        self._seen: deque[tuple[float, int]] = deque([(self._grown, done)])

    def at(self, done: int) -> str:
        """`6.2 of 16.5 GB (37 %), 112 MB/s, 92 s left`."""
        now = self._clock()
        if done > self._seen[-1][1]:
            self._grown = now
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - WINDOW_S:
            self._seen.popleft()
        began, before = self._seen[0]
        words = share(done, self.total)
        rate = (done - before) / (now - began) if now > began else 0.0
        if rate <= 0:
            return f"{words}, no byte for {self.silence():.0f} s" if self.silence() >= 5 else words
        return f"{words}, {rate_of(rate)}, {_left((self.total - done) / rate)} left"

    def silence(self) -> float:
        """The seconds for which the amount has not grown."""
        return self._clock() - self._grown


class Reading:
    """Files that are read at the same time, told to C(tell) twice a second: `verifying 3 of 9 files, 4.1 of 16.5 GB (25 %), …`."""

    def __init__(self, files: int, total: int, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._ended, self._done = files, 0, 0
        self._tell, self._clock, self._told = tell, clock, clock()
        self._pace = Pace(total, clock=clock)
        self._lock = threading.Lock()

    def read(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += count
            if self._clock() - self._told >= 0.5:
                self._told = self._clock()
                self._tell(f"verifying {min(self._ended + 1, self._files)} of {self._files} files, {self._pace.at(self._done)}")

    def ended(self) -> None:
        """One file more is read."""
        with self._lock:
            self._ended += 1


def _left(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 300 else f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.0f} h"
