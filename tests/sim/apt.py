# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Debian packages for this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sim.shell import LabError, as_root, run, stream


def install(packages: Sequence[str], instead: str) -> None:
    """Install the packages, without what they recommend.

    Raises LabError with the log's tail, or, where there is no apt-get, with what to do `instead`.
    """
    command = _updated(instead)
    stream(f"installing {' '.join(packages)}", [*command, "install", "-y", "--no-install-recommends", *packages], timeout=1200)


def unpack(package: str, into: Path, instead: str) -> None:
    """Lay a package's files below `into` without installing it, so that no service of it is started.

    What it depends on must be there. Raises LabError as install does.
    """
    _updated(instead)
    with tempfile.TemporaryDirectory() as folder:
        stream(f"downloading {package}", ["apt-get", "-q", "download", package], timeout=600, cwd=Path(folder))
        archive = next(Path(folder).glob(f"{package}_*.deb"))
        run(["dpkg-deb", "--extract", str(archive), str(into)], timeout=300)


def _updated(instead: str) -> list[str]:
    """apt-get as root, with lists of packages that are new."""
    if shutil.which("apt-get") is None:
        raise LabError(f"this machine has no apt-get: {instead}")
    command = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"])
    stream("apt-get update", [*command, "update"], timeout=600)
    return command
