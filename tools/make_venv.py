# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make .venv from requirements-dev.txt, on a machine that has nothing but Python 3.11 or newer.

Packages come from where the user's pip takes them: uv, which is several times faster, does not read pip's configuration and is told.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BOOT = ROOT / ".cache" / "boot"
REQUIREMENTS = ROOT / "requirements-dev.txt"


def say(text: str) -> None:
    print(f"venv: {text}", flush=True)


def pip_settings(listing: str) -> dict[str, str]:
    """What `pip config list` prints, as pip weighs it: the environment over [install] over [global]; other sections say nothing here."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        name, equals, value = line.partition("=")
        section, dot, key = name.partition(".")
        if equals and dot and section in sections:
            sections[section][key] = ast.literal_eval(value)
    return sections["global"] | sections["install"] | sections[":env:"]


def uv_settings(pip: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment that make uv look where pip looks."""
    # pip takes the best version of all indexes; uv, left alone, stops at the first index that knows the name.
    arguments = ["--index-strategy", "unsafe-best-match"]
    if "index-url" in pip:
        arguments += ["--default-index", pip["index-url"]]
    for key, option in (("extra-index-url", "--index"), ("find-links", "--find-links"), ("trusted-host", "--allow-insecure-host")):
        for value in pip.get(key, "").split():
            arguments += [option, value]
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        arguments.append("--no-index")
    named = {"cert": "SSL_CERT_FILE", "proxy": "ALL_PROXY", "default-timeout": "UV_HTTP_TIMEOUT", "timeout": "UV_HTTP_TIMEOUT"}
    return arguments, {variable: pip[key] for key, variable in named.items() if key in pip}


def apt_install(*packages: str) -> None:
    """Install packages of the distribution, as root or by sudo; exits with the remedy where neither works."""
    if not shutil.which("apt-get"):
        sys.exit(f"venv: this Python has no ensurepip; install {' '.join(packages)} or your system's package for it, then run again.")
    say(f"installing {' '.join(packages)}")
    elevate = [] if os.geteuid() == 0 else ["sudo"]
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    install = ["apt-get", "install", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "--no-install-recommends", *packages]
    # A new machine has no package lists, or old ones.
    for command in (["apt-get", "update", "-qq"], install):
        if subprocess.run([*elevate, *environment, *command], stdout=subprocess.DEVNULL, check=False).returncode:
            sys.exit(f"venv: `{' '.join(command)}` failed; install {' '.join(packages)} and run again.")


def make(path: Path) -> None:
    """Make a virtual environment of this Python with pip in it; one that works already is kept."""
    version = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    python = path / "bin" / "python"
    if python.exists() and not subprocess.run([python, "-c", version], stderr=subprocess.DEVNULL, check=False).returncode:
        return
    if importlib.util.find_spec("ensurepip") is None:
        # python3-venv brings it for the distribution's default Python, python3.11-venv for another one.
        apt_install("python3-venv", f"python3.{sys.version_info.minor}-venv")
    subprocess.run([sys.executable, "-m", "venv", "--clear", path], check=True)


def main() -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (any Python may be asked to run this)
        found = f"{sys.executable} is {sys.version.split()[0]}"
        sys.exit(f"venv: Python 3.11 or newer is needed, {found}. Say `make venv PYTHON=python3.12`, for example.")
    started = time.monotonic()
    make(BOOT)
    make(VENV)
    pip = [str(BOOT / "bin" / "python"), "-m", "pip"]
    uv = BOOT / "bin" / "uv"
    if not uv.exists():
        subprocess.run([*pip, "install", "-q", "uv"], check=False)
    count = sum(1 for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    say(f"installing {count} pinned packages with {'uv' if uv.exists() else 'pip'}")
    if uv.exists():
        listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
        arguments, environment = uv_settings(pip_settings(listing))
        command = [str(uv), "pip", "install", "-q", "--python", str(VENV / "bin" / "python"), *arguments, "-r", str(REQUIREMENTS)]
        if not subprocess.run(command, env=os.environ | environment, check=False).returncode:
            say(f"ready after {time.monotonic() - started:.0f} s")
            return 0
        say("uv failed; trying pip")
    subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "-q", "-r", REQUIREMENTS], check=True)
    say(f"ready after {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
