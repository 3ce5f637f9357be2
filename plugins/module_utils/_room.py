# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is there room for what is about to come? Directories may lie on one disk, and then they share what is free there."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ansible_collections.dgx.spark.plugins.module_utils._pace import amount
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import existing, free_bytes


def too_little(needs: Mapping[str, int]) -> str | None:
    """`12.0 GB in /srv, and 3.1 GB are free`, of the first disk on which it does not fit; None when all fits.

    C(needs) are bytes by directory, of directories that are there or will be. Raises OSError.
    """
    disks: dict[int, tuple[str, int]] = {}
    for path, need in needs.items():
        device = os.stat(existing(path)).st_dev
        first, before = disks.get(device, (path, 0))
        disks[device] = (first, before + need)
    for path, need in disks.values():
        if (free := free_bytes(path)) < need:
            return f"{amount(need)} in {path}, and {amount(free)} are free"
    return None
