# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Python environments of other projects' programs, made once and kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.process import run

from tools.make_venv import BOOT, ROOT, pip_settings, uv_settings

_INSTALL_S = 900


def ensure(venv: Path, steps: Sequence[Sequence[str]]) -> str:
    """Make the environment from pip's arguments, step by step, unless it is there; returns why it cannot be made, or nothing."""
    marker = venv / ".installed"
    wanted = json.dumps(steps)
    if marker.exists() and marker.read_text() == wanted:
        return ""
    print(f"bench: installing {venv.relative_to(ROOT)}", file=sys.stderr, flush=True)
    venv.parent.mkdir(parents=True, exist_ok=True)
    listing = subprocess.run([str(BOOT / "bin" / "python"), "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    arguments, environment = uv_settings(pip_settings(listing.stdout))
    environment |= {"UV_LINK_MODE": "copy"}
    uv = str(BOOT / "bin" / "uv")
    log = venv.with_name(f"install-{venv.name}.log")
    pip = [uv, "pip", "install", "--python", str(venv / "bin" / "python"), "--compile-bytecode", *arguments]
    for command in ([uv, "venv", "-q", "--clear", "--python", sys.executable, str(venv)], *([*pip, *step] for step in steps)):
        done = run(command, log, _INSTALL_S, environment)
        if done.code:
            return done.last_line or f"ended with code {done.code}"
    marker.write_text(wanted)
    return ""
