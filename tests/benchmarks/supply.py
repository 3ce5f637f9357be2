# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A fleet's download beside `hf download` on each box and beside a star of rsync: time, and bytes that crossed the WAN.

Each box is a network namespace with a link of 1 Gbit/s, and so is the origin, the lab's stand-in for the Hub, behind 100 Mbit/s
(tc tbf, both directions). All share this machine's processors. What runs is the module hf_snapshot, with what its action half would give
it, and without Ansible's way to a box; the first box seeds. The star is what sparkrun does: one box downloads, then rsync copies to all
others at once (`-a --size-only --partial`); here over rsync's own protocol, so without the cost of SSH's encryption. Needs root, tc and,
for the star, rsync.

    python tests/benchmarks/supply.py [N …] [ours|hf|star …]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REPO = "bench/model"
FILES = 4
SIZE = int(os.environ.get("BENCH_MB", "500")) * 1_000_000
WAN, LAN = "100mbit", "1gbit"
HUB = "10.83.0.254"
BOXES = (1, 2, 4, 8)
NETWORK = "spark-bench"

# What the controller does once for a fleet: manifest, and addresses for the seed.
ASK = """
import json, pathlib, sys, tempfile
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub
url, repo = sys.argv[1:]
with tempfile.TemporaryDirectory() as cache:
    hub = Hub(url, None, pathlib.Path(cache))
    listing = hub.listing(repo, "main")
    print(json.dumps([listing.manifest.to_json(), hub.addresses(listing, [file.path for file in listing.manifest.files])]))
"""
MODULE = ROOT / ".collections/ansible_collections/dgx/spark/plugins/modules/hf_snapshot.py"


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock until the last box was complete, and bytes of files that the origin sent."""

    wall: float
    wan: int


def sh(*command: str, check: bool = True) -> None:
    subprocess.run(command, check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def ip(text: str) -> None:
    sh("ip", *text.split())


def shape(namespace: str, device: str, rate: str) -> None:
    sh("tc", "-n", namespace, *f"qdisc add dev {device} root tbf rate {rate} burst 256kb latency 50ms".split())


@contextmanager
def network(boxes: int) -> Iterator[list[str]]:
    """A switch (a namespace of its own, where no firewall of this machine applies), the origin and the boxes. Yields the boxes' names."""
    names = [f"{NETWORK}-{number}" for number in range(1, boxes + 1)]
    every = {f"{NETWORK}-hub": (HUB, WAN), **{name: (f"10.83.0.{number}", LAN) for number, name in enumerate(names, 1)}}
    try:
        ip(f"netns add {NETWORK}")
        ip(f"-n {NETWORK} link add name switch type bridge")
        ip(f"-n {NETWORK} link set switch up")
        for name, (address, rate) in every.items():
            port = name.removeprefix(f"{NETWORK}-")
            ip(f"netns add {name}")
            ip(f"-n {NETWORK} link add port-{port} type veth peer name eth0 netns {name}")
            ip(f"-n {NETWORK} link set port-{port} master switch up")
            ip(f"-n {name} address add {address}/24 dev eth0")
            ip(f"-n {name} link set lo up")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} route add default via {HUB if address != HUB else '10.83.0.1'}")
            shape(name, "eth0", rate)
            shape(NETWORK, f"port-{port}", rate)
        yield names
    finally:
        for name in (*every, NETWORK):
            sh("ip", "netns", "delete", name, check=False)


class Origin:
    """The Hub's stand-in in its namespace; it is asked for its count from there, too."""

    def __init__(self, root: Path) -> None:
        command = [sys.executable, "-m", "sim.hub", "--root", str(root), "--bind", HUB]
        self.process = start(f"{NETWORK}-hub", command)
        self.url = f"http://{HUB}:8080"
        for _attempt in range(100):
            try:
                self._ask("repos")  # hashes the files, once
                return
            except (OSError, subprocess.CalledProcessError):
                time.sleep(0.2)
        raise SystemExit("the stand-in for the Hub does not answer")

    def _ask(self, what: str) -> Any:
        fetch = f"import urllib.request; print(urllib.request.urlopen('{self.url}/_sim/{what}', timeout=60).read().decode())"
        command = ["ip", "netns", "exec", f"{NETWORK}-hub", sys.executable, "-c", fetch]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout)

    def sent(self) -> int:
        return sum(request["bytes"] for request in self._ask("requests"))


def environment(**more: str) -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    return {**found, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT / "tests")]), **more}


def start(namespace: str, command: Sequence[str], **more: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(["ip", "netns", "exec", namespace, *command], env=environment(**more), stdout=quiet, stderr=quiet)


def wait(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.wait():
            raise SystemExit(f"{process.args!r} ended with code {process.returncode}")


def ours(origin: Origin, boxes: Sequence[str], dests: Sequence[Path]) -> None:
    """The controller asks once; the first box seeds until the others, which follow, are complete."""
    ask = ["ip", "netns", "exec", boxes[0], sys.executable, "-c", ASK, origin.url, REPO]
    manifest, addresses = json.loads(subprocess.run(ask, check=True, capture_output=True, text=True, env=environment()).stdout)

    def module(box: str, dest: Path, part: dict[str, str]) -> subprocess.Popen[bytes]:
        given = {"manifest": manifest, "addresses": json.dumps({} if "follow" in part else addresses), "part": json.dumps(part)}
        options = {"repo": REPO, "dest": str(dest), "endpoint": origin.url, "progress_file": f"{dest}.progress", **given}
        Path(f"{dest}.json").write_text(json.dumps({"ANSIBLE_MODULE_ARGS": options}))
        return start(box, [sys.executable, str(MODULE), f"{dest}.json"])

    if len(boxes) == 1:
        wait([module(boxes[0], dests[0], {})])
        return
    seed = module(boxes[0], dests[0], {"seed": "bench"})
    told = Path(f"{dests[0]}.progress.told")
    while not told.exists() and seed.poll() is None:
        time.sleep(0.1)
    follow = {"follow": json.loads(told.read_text())["url"]}
    wait([module(box, dest, follow) for box, dest in zip(boxes[1:], dests[1:], strict=True)])
    Path(f"{dests[0]}.progress.heard").write_text("end")
    wait([seed])


def hf(origin: Origin, boxes: Sequence[str], dests: Sequence[Path]) -> None:
    """Each box for itself."""
    tool = str(Path(sys.executable).with_name("hf"))
    wait(
        [
            start(box, [tool, "download", REPO, "--local-dir", str(dest), "--quiet"], HF_ENDPOINT=origin.url, HF_HOME=f"{dest}.home")
            for box, dest in zip(boxes, dests, strict=True)
        ]
    )


def star(origin: Origin, boxes: Sequence[str], dests: Sequence[Path]) -> None:
    """One box downloads, then it copies to all others."""
    hf(origin, boxes[:1], dests[:1])
    settings = dests[0].parent / "rsyncd.conf"
    settings.write_text(f"use chroot = no\nuid = root\ngid = root\n[all]\npath = {dests[0].parent}\nread only = no\n")
    daemons = [start(box, ["rsync", "--daemon", "--no-detach", f"--config={settings}"]) for box in boxes[1:]]
    time.sleep(0.5)
    copies = [
        start(boxes[0], ["rsync", "-a", "--size-only", "--partial", f"{dests[0]}/", f"rsync://10.83.0.{number}/all/{dest.name}/"])
        for number, dest in enumerate(dests[1:], 2)
    ]
    try:
        wait(copies)
    finally:
        for daemon in daemons:
            daemon.terminate()
            daemon.wait()


TOOLS: dict[str, tuple[str, Callable[[Origin, Sequence[str], Sequence[Path]], None]]] = {
    "ours": ("hf_snapshot, shared", ours),
    "hf": ("hf download on each", hf),
    "star": ("hf download on one, then rsync to the rest", star),
}


def measured(tool: str, number: int, root: Path, folder: Path) -> Cost:
    """One run into empty directories, all of them right in the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    dests = [folder / f"box{box}" for box in range(1, number + 1)]
    with network(number) as boxes:
        origin = Origin(root)
        try:
            began = time.monotonic()
            TOOLS[tool][1](origin, boxes, dests)
            cost = Cost(time.monotonic() - began, origin.sent())
        finally:
            origin.process.terminate()
            origin.process.wait()
    for dest in dests:
        sh("diff", "-rq", "--exclude=.*", str(root / REPO), str(dest))
    shutil.rmtree(folder)
    return cost


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()] or BOXES
    tools = [word for word in sys.argv[1:] if word in TOOLS] or list(TOOLS)
    needed = ("ip", "tc", *(["rsync"] if "star" in tools else []))
    if missing := [name for name in needed if not shutil.which(name)]:
        raise SystemExit(f"not on this machine: {', '.join(missing)} (packages iproute2, rsync)")
    # In memory: eight boxes on one disk would measure that.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:  # noqa: S108
        root, folder = Path(memory, "hub"), Path(memory, "boxes")
        (root / REPO).mkdir(parents=True)
        (root / REPO / "config.json").write_text("{}\n")
        for number in range(FILES):
            with (root / REPO / f"model-{number}.safetensors").open("wb") as stream:
                for _piece in range(SIZE // FILES // 1_000_000):
                    stream.write(os.urandom(1_000_000))
        print(f"| {SIZE / 1e6:.0f} MB in {FILES} files, WAN {WAN}, LAN {LAN} | boxes | wall s | WAN, times the size | load |")
        print("|---|---|---|---|---|", flush=True)
        for tool in tools:
            for boxes in numbers:
                cost = measured(tool, boxes, root, folder)
                load = os.getloadavg()[0]
                print(f"| {TOOLS[tool][0]} | {boxes} | {cost.wall:.1f} | {cost.wan / SIZE:.3f} | {load:.1f} |", flush=True)


if __name__ == "__main__":
    main()
