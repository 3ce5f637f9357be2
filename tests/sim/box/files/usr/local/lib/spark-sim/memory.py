# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The memory of a simulated GB10: who takes how much, shown in /proc/meminfo.

The lab mounts a file over /proc/meminfo; it is rewritten in place. Claims live in /run/spark-sim/memory, one file each.
Python's standard library without site-packages: it runs inside an OCI runtime.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOTAL_KIB = 127_611_700  # 121.7 GiB
IDLE_KIB = 4_900_000  # what an idle DGX OS takes: 117 GiB stay available
CACHED_KIB = 9_000_000
MEMINFO = Path("/proc/meminfo")
CLAIMS = Path("/run/spark-sim/memory")
SETTINGS = Path("/etc/spark-sim/memory.json")


def setting(name: str, default: float) -> float:
    """A number from the settings file, which tests may write."""
    try:
        return float(json.loads(SETTINGS.read_text()).get(name, default))
    except (OSError, ValueError):
        return default


@contextmanager
def _locked() -> Iterator[None]:
    CLAIMS.mkdir(parents=True, exist_ok=True)
    with (CLAIMS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def render(claimed_kib: int) -> str:
    """The text of /proc/meminfo when so much is taken."""
    available = max(0, TOTAL_KIB - IDLE_KIB - claimed_kib)
    cached = min(CACHED_KIB, available)
    lines = {
        "MemTotal": TOTAL_KIB,
        "MemFree": available - cached,
        "MemAvailable": available,
        "Buffers": 180_000,
        "Cached": cached,
        "SwapCached": 0,
        "SwapTotal": 16_777_212,
        "SwapFree": 16_777_212,
        "Shmem": 90_000,
        "Slab": 800_000,
        "SReclaimable": 300_000,
        "SUnreclaim": 500_000,
    }
    return "".join(f"{name + ':':<16}{kib:>8} kB\n" for name, kib in lines.items())


def _show() -> None:
    claimed = sum(int(file.read_text()) for file in CLAIMS.iterdir() if not file.name.startswith("."))
    # In place: the file is a mount, and every reader has this inode.
    with MEMINFO.open("r+") as file:
        file.write(render(claimed))
        file.truncate()


def claim(name: str, kib: int) -> None:
    """This much memory is taken by `name` (its earlier claim is replaced)."""
    with _locked():
        (CLAIMS / name).write_text(str(kib))
        _show()


def release(name: str, after: float = 0.0, made: int | None = None) -> None:
    """Give back what `name` has, now or in `after` seconds by a process of its own; with `made`, only the claim made then."""
    if not (CLAIMS / name).exists():
        return
    if after > 0:
        # A container that is started again has a new claim under the same name: that one stays.
        made = (CLAIMS / name).stat().st_mtime_ns
        argv = [sys.executable, os.path.abspath(__file__), "release", name, str(after), str(made)]
        quiet = subprocess.DEVNULL
        subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
        return
    with _locked():
        path = CLAIMS / name
        if path.exists() and made in (None, path.stat().st_mtime_ns):
            path.unlink()
            _show()


def reset() -> None:
    """Nobody has taken anything."""
    with _locked():
        for file in CLAIMS.iterdir():
            if not file.name.startswith("."):
                file.unlink()
        _show()


def main(args: list[str]) -> int:
    """`reset` | `claim NAME GIB` | `release NAME [SECONDS]` | `list`."""
    if args[:1] == ["reset"] and len(args) == 1:
        reset()
    elif args[:1] == ["claim"] and len(args) == 3:
        claim(args[1], int(float(args[2]) * 1024 * 1024))
    elif args[:1] == ["release"] and len(args) in (2, 3, 4):
        time.sleep(float(args[2]) if len(args) > 2 else 0)
        release(args[1], made=int(args[3]) if len(args) > 3 else None)
    elif args == ["list"]:
        for file in sorted(CLAIMS.iterdir()):
            if not file.name.startswith("."):
                print(file.name, f"{int(file.read_text()) / 1024 / 1024:.1f} GiB")
    else:
        print(f"usage: spark-sim-memory {main.__doc__}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
