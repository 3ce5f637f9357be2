# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Who runs this: the user, the machine, and the process of the run, which can be recognized later on the same machine only."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

_BOOT = "/proc/sys/kernel/random/boot_id"


def owner() -> str:
    """C(USER@HOST)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def process(pid: int) -> str:
    """A process as no other one is called, not even after a restart or in another container. Empty where nobody can tell."""
    try:
        return f"{_machine()} {pid} {_started(pid)}"
    except (OSError, ValueError, IndexError):
        return ""


def is_over(name: str) -> bool:
    """Was it a process of this machine that has ended? False also when this cannot be told."""
    try:
        machine, pid, started = name.rsplit(" ", 2)
        if machine != _machine():
            return False
    except (OSError, ValueError):
        return False
    try:
        return _started(int(pid)) != started
    except FileNotFoundError:
        return True
    except (OSError, ValueError, IndexError):
        return False


def _machine() -> str:
    """This start of the kernel and this namespace of process numbers: containers of one machine count by themselves."""
    return f"{Path(_BOOT).read_text().strip()} {os.readlink('/proc/self/ns/pid')}"


def _started(pid: int) -> str:
    """When it was started, in ticks. A process that has ended and was not collected yet has no such time."""
    # Its name may have spaces and brackets; what follows has neither.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise FileNotFoundError(pid)
    return fields[19]
