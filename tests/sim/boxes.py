# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The simulated boxes, and the host of a gateway: systemd containers with sshd and a Docker engine of their own."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sim import images
from sim.names import BOX_IMAGE, BOX_PREFIX, BOXES, GATEWAY_HOST, INPUTS_LABEL, KEY, LABEL, NETWORK, SIM, box_address, box_name
from sim.shell import LabError, as_root, docker, docker_rows, run, say, wait_for

START_TIMEOUT_S = 60

# Without --privileged, which needs capabilities that a CI machine may lack.
CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "NET_RAW", "IPC_LOCK")
OPTIONS = (
    *(f"--cap-add={name}" for name in CAPABILITIES),
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--cgroupns=host",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    # `--ipc host` inside is this container's: vLLM does not start with the usual 64 MB.
    "--shm-size=8g",
    "--mount=type=bind,source=/sys/fs/cgroup,target=/sys/fs/cgroup",
)
PARALLEL = 8


def ensure_key() -> None:
    """The key pair that opens the boxes."""
    if KEY.exists():
        return
    KEY.parent.mkdir(parents=True, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "spark-sim", "-f", str(KEY)])


def inputs(image_id: str) -> str:
    """A hash of all that a box is made from."""
    return images.digest([image_id, *OPTIONS, f"{KEY}.pub", Path(f"{KEY}.pub").read_text()])


def numbers(names: list[str]) -> list[int]:
    """The boxes among the lab's containers, by number."""
    found = [name.removeprefix(BOX_PREFIX) for name in names if name.startswith(BOX_PREFIX)]
    return sorted(int(number) for number in found if number.isdigit())


def _meminfo(name: str) -> Path:
    """The file that the box shows as /proc/meminfo."""
    path = BOXES / name / "meminfo"
    path.parent.mkdir(parents=True, exist_ok=True)
    # The box writes a GB10's figures into it while it boots.
    path.touch(exist_ok=True)
    return path


def _create(name: str, address: str, made_from: str) -> None:
    volume = f"{name}-docker"
    docker("volume", "create", "--label", f"{LABEL}=volume", volume)
    docker(
        "create",
        f"--name={name}",
        f"--hostname={name}",
        f"--network={NETWORK}",
        f"--ip={address}",
        f"--label={LABEL}={'gateway' if name == GATEWAY_HOST[0] else 'box'}",
        f"--label={INPUTS_LABEL}={made_from}",
        *OPTIONS,
        f"--mount=type=volume,source={volume},target=/var/lib/docker",
        f"--mount=type=bind,source={_meminfo(name)},target=/proc/meminfo",
        f"--mount=type=bind,source={KEY}.pub,target=/etc/spark-sim/authorized_keys,readonly",
        BOX_IMAGE,
    )


def _ssh_answers(host: str) -> bool:
    try:
        with socket.create_connection((host, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _in_box(name: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", "exec", name, *argv], capture_output=True, text=True, timeout=60, check=False)


def _evidence(name: str) -> str:
    failed = _in_box(name, "systemctl", "--no-pager", "--failed").stdout
    return f"{docker('logs', '--tail', '20', name, check=False)}\n{failed}\n{_in_box(name, 'journalctl', '-n', '30', '--no-pager').stdout}"


def _await(name: str, host: str) -> None:
    def ready() -> bool:
        # Docker is ordered after the simulated memory, and says it is active only when it answers.
        return _ssh_answers(host) and _in_box(name, "systemctl", "is-active", "docker", "ollama").returncode == 0

    wait_for(f"{name} ({host}): sshd, Docker and Ollama", ready, timeout=START_TIMEOUT_S, evidence=lambda: _evidence(name), every=0.3)

    # pam_nologin lets nobody in before systemd has the user sessions up.
    def logins() -> bool:
        return _in_box(name, "test", "!", "-e", "/run/nologin").returncode == 0

    wait_for(f"{name}: logins", logins, timeout=START_TIMEOUT_S, evidence=lambda: _evidence(name))
    say(f"{name} is up at {host}")


def ensure(count: int, image_id: str, containers: dict[str, tuple[str, str]], *, fresh: bool, gateway: bool) -> None:
    """Exactly boxes 1 … count run, and the gateway's host if it is asked.

    `fresh` makes them anew; else one from an older image stays, with a warning.
    """
    ensure_key()
    made_from = inputs(image_id)
    wanted = {box_name(number): box_address(number) for number in range(1, count + 1)}
    if gateway:
        wanted |= dict([GATEWAY_HOST])
    there = [*map(box_name, numbers(list(containers))), *(name for name in containers if name == GATEWAY_HOST[0])]
    surplus = [name for name in there if name not in wanted or fresh]
    if surplus:
        remove(surplus)
    starting = []
    # Docker, and with it the inventory, names the newest first: the first box is made last, and is the canary.
    for name, address in reversed(wanted.items()):
        state, found = ("", "") if name in surplus else containers.get(name, ("", ""))
        if state == "running":
            if found != made_from:
                say(f"{name} was made from an older image or key; `lab.py up --fresh` renews it")
            continue
        if not state:
            _create(name, address, made_from)
        starting.append(name)
    with ThreadPoolExecutor(PARALLEL) as pool:
        for job in [pool.submit(docker, "start", name) for name in starting]:
            job.result()
        for waiting in [pool.submit(_await, name, wanted[name]) for name in starting]:
            waiting.result()


def remove(names: list[str]) -> None:
    """Remove these boxes with their volumes."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        for job in [pool.submit(docker, "rm", "-f", "-v", name) for name in names]:
            job.result()
    volumes = [f"{name}-docker" for name in names]
    docker("volume", "rm", "-f", *volumes)
    for name in names:
        path = BOXES / name / "meminfo"
        path.unlink(missing_ok=True)


def remove_cgroups() -> None:
    """Remove the empty cgroups that containers of killed boxes leave on this machine (daemon.json of the box names their parent)."""
    top = Path("/sys/fs/cgroup")
    folders = [str(path) for pattern in ("spark-sim", "*/spark-sim") for path in top.glob(pattern) if not path.parent.is_symlink()]
    if folders:
        run(as_root(["find", *folders, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"]), check=False)


def rows() -> list[dict[str, str]]:
    """The boxes and the gateway's host, for people: name, address, state."""
    found = [row for kind in ("box", "gateway") for row in docker_rows("ps", "-a", "--filter", f"label={LABEL}={kind}")]
    addresses = dict([GATEWAY_HOST]) | {box_name(number): box_address(number) for number in numbers([row["Names"] for row in found])}
    rows = [{"name": row["Names"], "state": row["State"], "address": addresses[row["Names"]]} for row in found]
    return sorted(rows, key=lambda row: numbers([row["name"]]))


def require_folder() -> None:
    """Raises LabError when the path of the checkout cannot be mounted."""
    if "," in str(SIM):
        raise LabError(f"Docker cannot mount a path with a comma: move the checkout from {SIM}")
