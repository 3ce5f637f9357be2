# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a module that takes minutes is doing now: the newest words in a file, which the controller reads meanwhile."""

from __future__ import annotations

import contextlib
import os


class Progress:
    """Call it with a few words. Without a path it does nothing, and a file that cannot be written never stops the work."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._told = ""

    def __call__(self, text: str) -> None:
        if not self._path or text == self._told:
            return
        self._told = text
        with contextlib.suppress(OSError):
            # In one step: a reader never sees half of it.
            fresh = f"{self._path}.new"
            with open(fresh, "w", encoding="utf-8") as file:
                file.write(" ".join(text.split())[:200])
            os.replace(fresh, self._path)
