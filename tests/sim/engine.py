# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The Docker engine of this machine: install and start what is missing."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from sim import apt
from sim.names import LOGS
from sim.shell import TAIL_LINES, LabError, as_root, docker, run, say, wait_for

SOCKET = Path("/var/run/docker.sock")
START_TIMEOUT_S = 60


def answers() -> bool:
    """Does the engine answer this user?"""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, timeout=30, check=False).returncode == 0


def version() -> str:
    """The engine's version. Raises LabError when it does not answer."""
    return docker("version", "--format", "{{.Server.Version}}").strip()


def require() -> None:
    """Raises LabError with the remedy when no engine answers."""
    if not answers():
        raise LabError("no Docker engine answers: `tests/sim/lab.py engine` installs and starts one")


def _packages() -> list[str]:
    """Debian packages that are missing on this machine."""
    missing = []
    if shutil.which("dockerd", path=_root_path()) is None:
        missing.append("docker.io")
    if shutil.which("docker") is None and run(["apt-cache", "search", "--names-only", "^docker-cli$"], check=False).strip():
        missing.append("docker-cli")
    if shutil.which("iptables", path=_root_path()) is None:
        missing.append("iptables")
    if shutil.which("debootstrap", path=_root_path()) is None:
        missing.append("debootstrap")
    if shutil.which("aria2c") is None:  # the tests fetch with it on this machine, too
        missing.append("aria2")
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.append("debian-archive-keyring")
    return missing


def _root_path() -> str:
    """The user's PATH with the directories of system commands, which an unprivileged user may lack."""
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def _dockerd_log() -> Path:
    return LOGS / "dockerd.log"


def _evidence() -> str:
    if _dockerd_log().exists():
        return "\n".join(_dockerd_log().read_text(errors="replace").splitlines()[-TAIL_LINES:])
    return run(as_root(["journalctl", "-u", "docker", "-n", str(TAIL_LINES), "--no-pager"]), check=False)


def _start() -> None:
    if Path("/run/systemd/system").is_dir():
        say("starting Docker by systemd")
        run(as_root(["systemctl", "enable", "--now", "docker"]))
        return
    say("starting dockerd")
    LOGS.mkdir(parents=True, exist_ok=True)
    with _dockerd_log().open("w") as log:
        subprocess.Popen(as_root(["setsid", "dockerd"]), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _running() -> bool:
    """Does the engine answer root?"""
    return subprocess.run(as_root(["docker", "version"]), capture_output=True, timeout=30, check=False).returncode == 0


def ensure() -> None:
    """Install and start what is missing, so that the engine answers this user. Raises LabError with the log's tail."""
    missing = _packages()
    if missing:
        # The package may start the daemon itself; without systemd it does not.
        apt.install(missing, instead="install a Docker engine, iptables and debootstrap yourself")
    if not answers():
        if not _running():
            _start()
            wait_for("the Docker engine", _running, timeout=START_TIMEOUT_S, evidence=_evidence, every=0.5)
        if os.geteuid() != 0 and not answers():
            # Membership of the group `docker` counts only after the next login; the socket can be handed over now.
            user = getpass.getuser()
            say(f"letting {user} use the engine: group docker for later, the socket for now")
            run(as_root(["usermod", "-aG", "docker", user]), check=False)
            run(as_root(["chown", user, str(SOCKET.resolve())]))
        require()
    say(f"Docker engine {version()} answers")
