# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a module in the background of a box and its controller say to each other: two files beside the one of its progress.

The module tells a document, again every second, so that the controller sees that it lives; the controller leaves a word at every look,
so that the module sees that somebody still waits for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

TOLD, HEARD = ".told", ".heard"  # suffixes to the progress file
END = "end"  # the word for: it is enough
ALONE_S = 120.0  # a controller that has not looked for so long does not come back; longer than it tries to reach a box that is lost
TELL_S = 1.0


class Talk:
    """The module's side, while it is entered. Without a path nobody is told, and nobody wants anything."""

    def __init__(self, progress_file: str | None, document: Mapping[str, Any]) -> None:
        self._path = progress_file
        self._document = document
        self._began = time.time()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Talk:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def wanted(self) -> bool:
        """Does the controller still want this to go on?"""
        if not self._path:
            return False
        heard, word = self._began, ""
        with contextlib.suppress(OSError), open(self._path + HEARD, encoding="utf-8") as file:
            word, heard = file.read().strip(), os.fstat(file.fileno()).st_mtime
        return word != END and time.time() - heard < ALONE_S

    def _tell(self) -> None:
        number = 0
        while self._path and not self._over.is_set():
            number += 1
            with contextlib.suppress(OSError):
                # In one step: a reader never sees half of it.
                with open(f"{self._path}{TOLD}.new", "w", encoding="utf-8", opener=_private) as file:
                    json.dump({**self._document, "pulse": number}, file)
                os.replace(f"{self._path}{TOLD}.new", self._path + TOLD)
            self._over.wait(TELL_S)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
