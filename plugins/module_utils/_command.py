# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Commands that may be missing, fail or hang, without anything else failing or hanging."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    """A command that was run: did it end well, what it printed, and why it did not end well."""

    ok: bool
    output: str
    error: str


def bounded(argv: Sequence[str], seconds: float) -> Ran:
    """Run a command for a bounded time. One that is missing, or hangs, did not end well."""
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(argv, stdin=null, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True)
    except FileNotFoundError:
        return Ran(False, "", f"{argv[0]} is not installed")
    except OSError as exc:
        return Ran(False, "", f"{argv[0]} cannot be run: {exc.strerror}")
    try:
        output, error = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # Not waited for: a process that a driver holds does not even end when it is killed.
        os.killpg(process.pid, signal.SIGKILL)
        return Ran(False, "", f"{argv[0]} did not answer within {seconds:g} s")
    return Ran(process.returncode == 0, output, (error or output).strip() if process.returncode else "")
