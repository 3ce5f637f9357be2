# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Lines on the terminal while the controller reads a bundle, which takes a minute or two."""

from __future__ import annotations

import time
from typing import Any

from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace
from ansible_collections.dgx.spark.plugins.plugin_utils._background_job import every

display = Display()


class Reader:
    """Hears of bytes that were read of so many. C(setting) are the user's seconds between two lines, None without one."""

    def __init__(self, setting: Any, total: int) -> None:
        self._interval = every(setting, 1)
        self._pace, self._done, self._said = Pace(total), 0, time.monotonic()

    def read(self, path: str, count: int) -> None:
        """So many bytes more of a file."""
        self._done += count
        if self._interval and time.monotonic() - self._said >= self._interval:
            self._said = time.monotonic()
            display.display(f"bundle: reading {path}: {self._pace.at(self._done)}")
