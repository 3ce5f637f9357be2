# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Parts of a snapshot that somebody else writes, byte after byte, instead of aria2, which writes at many places at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _checkpoint, _neighbours
from ansible_collections.dgx.spark.plugins.module_utils._manifest import PARTIAL
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Plan, partial_path


def prepare(dest: str, plan: Plan, beside: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Make the directory of parts ready. What lacks in it: path of the file → C(path) of its part and C(have), the bytes that are there.

    What neighbours have (C(beside), digest → path) is linked and lacks no more. Raises OSError.
    """
    os.makedirs(os.path.join(dest, PARTIAL), mode=0o700, exist_ok=True)
    _neighbours.link(dest, plan, beside)
    found: dict[str, dict[str, Any]] = {}
    for file in {file.digest: file for file in plan.fetch}.values():
        part = partial_path(dest, file)
        have = os.path.getsize(part) if os.path.exists(part) else 0
        if os.path.exists(part + _checkpoint.RECORD) or have > file.size:
            # aria2 began it, and only its record knows which pieces are there.
            for name in (part + _checkpoint.RECORD, part):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
            have = 0
        if have != file.size:
            found[file.path] = {"path": part, "have": have}
    return found
