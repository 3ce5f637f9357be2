# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Prometheus and its own tool for rules and configurations, from the distribution's package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sim import apt
from sim.shell import LabError, fail, say

UNPACKED = Path(__file__).resolve().parents[2] / ".cache" / "prometheus"


def program(name: str = "promtool") -> str | None:
    """Where promtool, or prometheus, is on this machine."""
    return shutil.which(name) or shutil.which(name, path=str(UNPACKED / "usr" / "bin"))


def ensure() -> None:
    """Unpack the package where there is no promtool; installed, it would start a server. Raises LabError."""
    if program() is None:
        UNPACKED.mkdir(parents=True, exist_ok=True)
        apt.unpack("prometheus", UNPACKED, instead="install promtool yourself")
    if program() is None:
        raise LabError(f"the package prometheus brought no promtool to {UNPACKED}")
    say(f"{program()} is there")


def promtool(*arguments: str | Path, cwd: Path) -> tuple[int, str]:
    """`promtool ARGUMENTS`: its exit code and all that it said."""
    command = [program() or "promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
    return done.returncode, done.stdout


if __name__ == "__main__":
    try:
        ensure()
    except LabError as error:
        sys.exit(fail(error))
