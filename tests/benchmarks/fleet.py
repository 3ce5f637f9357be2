# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a run over a fleet costs that has nothing to do: plan, look at each box, report. Beside other ways to keep the same state.

1, 4 and 16 are that many simulated boxes, each with its own Docker engine. 100 is light: as many addresses of four boxes, so that each host
has its own SSH connection and modules, and shares an engine with 24 others. Controller and boxes share this machine's cores: times
compare the ways with each other; counts of modules, connections and bytes hold anywhere.

    python -m benchmarks.fleet [1 4 16 100]
"""

from __future__ import annotations

import collections
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from benchmarks import environments
from benchmarks.process import Cost, run
from sim.names import APT, KEY, box_address, box_name

from tools.make_venv import ROOT

SIZES = (1, 4, 16, 100)
RUNS = 3
MANY = 16
TIMEOUT_S = 1800
LIGHT_BOXES = 4
LIGHT_FIRST = 120  # the last number of the first further address: above those of all boxes
PEERS = Path(__file__).with_name("peers")
CACHE = ROOT / ".cache" / "bench-fleet"
VENV_BIN = Path(sys.executable).parent
PYINFRA = "pyinfra==3.10"
# Where the scripted image has the file that the checkpoint's patch replaces.
PATCHED = "/usr/local/lib/python3.11/dist-packages/vllm/model_executor/models/gemma4.py"
COMMAND = [
    *("--model", "/models/gemma4", "--served-model-name", "gemma-4-26b", "--host", "0.0.0.0", "--port", "8000"),
    *("--gpu-memory-utilization", "0.85", "--kv-cache-dtype", "fp8", "--max-model-len", "131072", "--moe-backend", "marlin"),
    *("--quantization", "modelopt", "--reasoning-parser", "gemma4", "--enable-auto-tool-choice", "--tool-call-parser", "gemma4"),
]
QUICK = {
    "proof_throughput": {"warmup": 0, "ignore_eos": True, "sequential": {"runs": 1, "tokens": 40}, "thresholds": {"decode_tok_s_min": 40}},
    "vllm_api_key": "",
    "spark_progress_seconds": 0,
}


@dataclass(frozen=True)
class Fleet:
    """The hosts of one row, name → address, and the boxes that they are on."""

    hosts: Mapping[str, str]
    boxes: tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """One way to keep the state. C(command) runs it over an inventory; C(environment) is on top of this process' own."""

    title: str
    command: Callable[[Path, bool], list[str]]
    environment: Mapping[str, str]
    unchanged: Callable[[str], bool]


def in_box(box: str, command: str) -> str:
    """What a command prints in a box, as root. Raises CalledProcessError."""
    return subprocess.run(["docker", "exec", box, "sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()


def lab(count: int) -> tuple[str, ...]:
    """So many boxes run."""
    command = [sys.executable, str(ROOT / "tests/sim/lab.py"), "up", "--boxes", str(count), "--no-real-vllm"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return tuple(box_name(number) for number in range(1, count + 1))


@contextmanager
def fleet(size: int) -> Iterator[Fleet]:
    """The hosts of a row."""
    if size <= MANY:
        boxes = lab(size)
        yield Fleet({box: box_address(number) for number, box in enumerate(boxes, start=1)}, boxes)
        return
    boxes = lab(LIGHT_BOXES)
    network = box_address(1).rpartition(".")[0]
    places = [(f"spark-light-{index + 1}", boxes[index % LIGHT_BOXES], f"{network}.{LIGHT_FIRST + index}") for index in range(size)]
    for box in boxes:
        for verb in ("del", "add"):  # what an interrupted run left
            found = " ; ".join(f"ip address {verb} {address}/24 dev eth0 2>/dev/null" for _name, on, address in places if on == box)
            in_box(box, f"{found} ; true")
    try:
        yield Fleet({name: address for name, _on, address in places}, boxes)
    finally:
        for box in boxes:
            found = " ; ".join(f"ip address del {address}/24 dev eth0" for _name, on, address in places if on == box)
            in_box(box, found)


def inventory(hosts: Mapping[str, str], folder: Path) -> Path:
    """An Ansible inventory with these hosts, beside the lab's own variables."""
    folder.mkdir(exist_ok=True)
    (folder / "group_vars").unlink(missing_ok=True)
    (folder / "group_vars").symlink_to(ROOT / "inventories/sim/group_vars")
    document = {
        "spark": {
            # The key for each host: what group_vars say of it is relative to their own place.
            "hosts": {name: {"ansible_host": address, "ansible_ssh_private_key_file": str(KEY)} for name, address in hosts.items()},
            "vars": {"vllm_command": COMMAND, "patched": PATCHED},
        }
    }
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(document))
    ssh = [f"IdentityFile {KEY}", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null", "LogLevel ERROR", "User nvidia"]
    (folder / "ssh_config").write_text("Host *\n" + "".join(f"    {line}\n" for line in ssh))
    wrapper = folder / "bin" / "ssh"  # compose has no option for it
    wrapper.parent.mkdir(exist_ok=True)
    wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {folder}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    data = {
        "container_toolkit_repository": f"http://{APT[1]}:8080/libnvidia-container",
        "vllm_command": " ".join(COMMAND),
        "patched": PATCHED,
    }
    hosts_py = [
        (address, {"ssh_user": "nvidia", "ssh_key": str(KEY), "ssh_strict_host_key_checking": "off"} | data) for address in hosts.values()
    ]
    (folder / "pyinfra_hosts.py").write_text(f"spark = {hosts_py!r}\n")
    return path


def ways(folder: Path) -> list[Way]:
    """Ours, and the others that can be had on this machine."""
    ansible = str(VENV_BIN / "ansible-playbook")
    sockets = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"), "PWD": str(folder)}

    def unchanged(output: str) -> bool:
        return bool(re.search(r"changed=0", output)) and not re.search(r"changed=[1-9]", output)

    found = [
        Way(
            "dgx.spark",
            lambda hosts, _first: [ansible, str(ROOT / "playbooks/gemma4.yml"), "-i", str(hosts), "-e", json.dumps(QUICK)],
            sockets,
            unchanged,
        ),
        Way(
            "plain role, community.docker",
            lambda hosts, _first: [ansible, str(PEERS / "plain.yml"), "-i", str(hosts)],
            sockets,
            unchanged,
        ),
    ]
    why = environments.ensure(CACHE / "pyinfra", ((PYINFRA,),))
    if why:
        print(f"bench: no pyinfra: {why}", file=sys.stderr)
    else:
        program = str(CACHE / "pyinfra" / "bin" / "pyinfra")

        def pyinfra(hosts: Path, first: bool) -> list[str]:
            settled = f"settled={'' if first else 'yes'}"
            return [program, "-y", "--data", settled, str(hosts.with_name("pyinfra_hosts.py")), str(PEERS / "pyinfra_deploy.py")]

        found.append(Way("pyinfra", pyinfra, {}, lambda output: "Changed" not in output or not re.search(r"Changed\W+[1-9]", output)))
    wanted = "command -v docker-compose && /usr/bin/python3 -c 'import paramiko'"
    if subprocess.run(["sh", "-c", wanted], capture_output=True, check=False).returncode:
        print("bench: no docker compose: it needs Debian's packages docker-compose and python3-paramiko", file=sys.stderr)
    else:

        def compose(hosts: Path, _first: bool) -> list[str]:
            addresses = [host["ansible_host"] for host in yaml.safe_load(hosts.read_text())["spark"]["hosts"].values()]
            up = f"docker-compose --project-name bench -f {PEERS / 'compose.yml'} up -d"
            return ["sh", "-ec", f"for address in {' '.join(addresses)}; do DOCKER_HOST=ssh://nvidia@$address {up}; done"]

        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        extra = {"PATH": path, "VLLM_COMMAND": " ".join(COMMAND), "PATCHED": PATCHED, "HOME": str(folder)}
        found.append(
            Way(
                "docker compose in a loop",
                compose,
                extra,
                lambda output: "Creating" not in output and "Recreating" not in output,
            )
        )
    return found


def counters(boxes: tuple[str, ...]) -> tuple[int, int]:
    """Bytes that crossed the boxes' network interfaces, and SSH connections that they have accepted, since they booted."""
    moved = logins = 0
    for box in boxes:
        text = in_box(
            box,
            "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes; "
            "journalctl -q -u ssh --no-pager | grep -c 'Accepted publickey' || true",
        )
        received, sent, accepted = (int(word) for word in text.split())
        moved, logins = moved + received + sent, logins + accepted
    return moved, logins


def once(way: Way, hosts: Path, folder: Path, *, first: bool = False, memory: bool = False, verbose: bool = False) -> Cost:
    """One run. Raises SystemExit when it fails."""
    command = [*way.command(hosts, first), *(["-vvv"] if verbose else [])]
    cost = run(command, folder / "output.log", TIMEOUT_S, way.environment, memory)
    if cost.code:
        raise SystemExit(f"{way.title} failed with code {cost.code}:\n{cost.output[-4000:]}")
    return cost


def close_connections(folder: Path) -> None:
    """End what Ansible keeps open, so that the next run connects anew."""
    for socket in (folder / "cp").glob("*"):
        subprocess.run(["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "bench"], capture_output=True, check=False)


def remote_runs(output: str) -> int:
    """The most commands that were sent to one host."""
    found = collections.Counter(re.findall(r"<([\d.]+)> SSH: EXEC", output))
    return max(found.values(), default=0)


def deploy(way: Way, boxes: tuple[str, ...], folder: Path) -> None:
    """Every box has the state as this way makes it, alone."""
    for box in boxes:
        in_box(box, "docker ps -aq --filter name=vllm --filter name=gemma4 | xargs -r docker rm -f; spark-sim-memory reset")
    addresses = {box: box_address(number) for number, box in enumerate(boxes, start=1)}
    once(way, inventory(addresses, folder), folder, first=True)


def row(way: Way, size: int, where: Fleet, hosts: Path, folder: Path) -> dict[str, Any]:
    """All figures of one way over one fleet. A large one gets one run for all of them: how runs scatter is seen on small ones."""
    costs, loads = [], []
    if size < MANY:
        once(way, hosts, folder)
    for _run in range(RUNS if size < MANY else 0):
        close_connections(folder)
        loads.append(os.getloadavg()[0])
        costs.append(once(way, hosts, folder))
    close_connections(folder)
    loads.append(os.getloadavg()[0])
    moved, logins = counters(where.boxes)
    counted = once(way, hosts, folder, memory=True, verbose="ansible" in way.command(hosts, False)[0])
    moved_after, logins_after = counters(where.boxes)
    for cost in [*costs, counted]:
        if not way.unchanged(cost.output):
            raise SystemExit(f"{way.title} changed something although there was nothing to do:\n{cost.output[-4000:]}")
    timed = costs or [counted]
    return {
        "way": way.title,
        "boxes": size,
        "wall_s": statistics.median(cost.wall_s for cost in timed),
        "cpu_s": statistics.median(cost.cpu_s for cost in timed),
        "runs_per_box": remote_runs(counted.output) or None,
        "connections_per_box": (logins_after - logins) / size,
        "kb_per_box": (moved_after - moved) / size / 1000,
        "peak_mb": counted.peak_mb,
        "load_before": max(loads),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = ("boxes", "way", "wall s", "CPU s", "remote runs a box", "SSH connections a box", "kB a box", "controller's memory MB")
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    lines = [
        f"| {row['boxes']} | {row['way']} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['runs_per_box'] or '-'} "
        f"| {row['connections_per_box']:.1f} | {row['kb_per_box']:.0f} | {row['peak_mb']:.0f} |"
        for row in rows
    ]
    return "\n".join([head, *lines])


def main() -> None:
    """All rows, printed as they come and kept in .cache/bench-fleet/rows.json."""
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    CACHE.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-fleet-") as scratch:
        folder = Path(scratch)
        for size in sizes:
            with fleet(size) as where:
                for box in where.boxes:  # compose talks to the engine as the user
                    in_box(box, "usermod -aG docker nvidia")
                for way in ways(folder):
                    deploy(way, where.boxes, folder)
                    rows.append(row(way, size, where, inventory(where.hosts, folder), folder))
                    print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
                    (CACHE / "rows.json").write_text(json.dumps(rows, indent=2))
    subprocess.run([sys.executable, str(ROOT / "tests/sim/lab.py"), "down"], check=True, stdout=sys.stderr)
    print(table(rows))
    loads = [row["load_before"] for row in rows]
    print(f"\nLoad of the machine before the runs: {min(loads):.1f} to {max(loads):.1f}")


if __name__ == "__main__":
    main()
