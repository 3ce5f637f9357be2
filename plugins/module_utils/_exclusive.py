# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""One at a time on a box: a lock that the kernel lets go of when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator

LOOK_S = 0.5


class Occupied(Exception):
    """Another process holds it; the message says for how long it was waited."""


@contextlib.contextmanager
def exclusive(
    path: str,
    timeout: float,
    waiting: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[None]:
    """Hold the lock of this file, which is made and stays. C(waiting) is called at every look at which another one holds it.

    Raises Occupied after C(timeout) seconds, and OSError.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        began = clock()
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock() - began >= timeout:
                    raise Occupied(f"another process has held {path} for {timeout:.0f} s") from None
            waiting()
            sleep(LOOK_S)
        yield
    finally:
        os.close(handle)
