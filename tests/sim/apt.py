# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Debian packages for this machine."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from sim.shell import LabError, as_root, stream


def install(packages: Sequence[str], instead: str) -> None:
    """Install the packages, without what they recommend.

    Raises LabError with the log's tail, or, where there is no apt-get, with what to do `instead`.
    """
    if shutil.which("apt-get") is None:
        raise LabError(f"this machine has no apt-get: {instead}")
    command = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"])
    stream("apt-get update", [*command, "update"], timeout=600)
    stream(f"installing {' '.join(packages)}", [*command, "install", "-y", "--no-install-recommends", *packages], timeout=1200)
