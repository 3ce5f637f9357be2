# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""One download of hf_snapshot beside those of `hf download` over HTTP and over Xet, from the lab's stand-in for the Hub over loopback.

What is measured is time, CPU and bytes on the wire: as fast as it goes, then on a link that is as slow for this size as 1 Gbit/s is for
16.5 GB, then on that link killed at the half (SIGKILL, all processes at once) and started again. The files are random bytes, as different
as weights are: Xet has nothing to leave out and nothing to compress. The stand-in is Python and shares the machine's cores with the client,
so the first part compares the clients and says nothing about a network.

`PARTS="loopback link killed"` picks parts, `BENCH_MB` the size.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests")]

REPO = "bench/model"
RUNS = 3
FILES = 4
PARTS = os.environ.get("PARTS", "loopback link killed").split()
SIZE = int(os.environ.get("BENCH_MB", "500")) * 1_000_000
# 16.5 GB take 147 s at 112 MB/s, which 1 Gbit/s leaves of itself; what aria2 writes down once a second is the same share of it here.
LINK = SIZE / (16.5e9 / 112e6)

OURS = """
import sys, tempfile, pathlib
from ansible_collections.dgx.spark.plugins.module_utils._fetch import Address, Limits, carry_out
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import make_plan, read_marker
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub
url, repo, dest = sys.argv[1:]
with tempfile.TemporaryDirectory() as cache:
    hub = Hub(url, None, pathlib.Path(cache))
    listing = hub.listing(repo, "main")
    plan = make_plan(dest, listing.manifest, read_marker(dest))
    addresses = {path: Address(**entry) for path, entry in hub.addresses(listing, [file.path for file in plan.fetch]).items()}
    carry_out(dest, listing.manifest, plan, addresses, Limits(), lambda count: None)
"""

OVER_HTTP = {"HF_HUB_DISABLE_XET": "1"}
OVER_XET = {"HF_HUB_DISABLE_XET": "0"}
FASTER = {**OVER_XET, "HF_XET_HIGH_PERFORMANCE": "1"}
# None is ours; the others are `hf download` with an environment.
TOOLS = {"hf_snapshot": None, "hf download over HTTP": OVER_HTTP, "hf download over Xet": OVER_XET}
MORE = {**TOOLS, "hf download over Xet, HF_XET_HIGH_PERFORMANCE=1": FASTER}


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of the processor, and bytes that the stand-in sent."""

    wall: float
    cpu: float
    wire: int


class StandIn:
    """The Hub's stand-in in a process of its own."""

    def __init__(self, root: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "sim.hub", "--xet", "--root", str(root), "--port", str(port), "--cdn-port", str(port + 1)]
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")})
        for _attempt in range(100):
            try:
                self._ask("repos")  # hashes the files, once
                return
            except OSError:
                time.sleep(0.2)
        raise SystemExit("the stand-in for the Hub does not answer")

    def _ask(self, what: str, method: str = "GET", document: Any = None) -> Any:
        body = json.dumps(document).encode() if document is not None else None
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/_sim/{what}", body, method=method), timeout=60) as answer:
            return json.load(answer)

    def wire(self, below: str = "/") -> int:
        """Bytes of files and xorbs that were sent since the last look from zero, for paths below this one."""
        return sum(request["bytes"] for request in self._ask("requests") if request["path"].startswith(below))

    def from_zero(self, link: float = 0.0) -> None:
        self._ask("requests", "DELETE")
        self._ask("faults", "POST", {"link": link})


@contextmanager
def stand_in(root: Path) -> Iterator[StandIn]:
    found = StandIn(root, 18480)
    try:
        yield found
    finally:
        found.process.terminate()
        found.process.wait()


def start(tool: str, hub: StandIn, dest: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(dest.parent / "hf-home"), "PYTHONPATH": os.pathsep.join(sys.path[:2])}
    told = MORE[tool]
    if told is None:
        command = [sys.executable, "-c", OURS, hub.url, REPO, str(dest)]
    else:
        command = [str(Path(sys.executable).with_name("hf")), "download", REPO, "--local-dir", str(dest), "--quiet"]
    return subprocess.Popen(command, env={**environment, **(told or {})}, start_new_session=True, stdout=subprocess.DEVNULL)


def ended(tool: str, process: subprocess.Popen[bytes], hub: StandIn) -> Cost:
    """What a process cost that is waited for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    code = process.wait()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"{process.args!r} ended with code {code}")
    if bool(hub.wire("/xorbs/")) != ("Xet" in tool):
        raise SystemExit(f"{tool} came another way")
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, hub.wire())


def whole(tool: str, hub: StandIn, dest: Path, link: float = 0.0) -> Cost:
    """A download into an empty directory, with nothing in any cache."""
    shutil.rmtree(dest.parent, ignore_errors=True)
    hub.from_zero(link)
    return ended(tool, start(tool, hub, dest), hub)


def resumed(tool: str, hub: StandIn, dest: Path) -> Cost:
    """A download that is killed at the half and started again: what the second run cost, and the bytes of both."""
    shutil.rmtree(dest.parent, ignore_errors=True)
    hub.from_zero(LINK)
    victim = start(tool, hub, dest)
    while hub.wire() < SIZE / 2:
        if victim.poll() is not None:
            raise SystemExit(f"{tool} ended before it could be killed")
        time.sleep(0.2)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    time.sleep(1)
    return ended(tool, start(tool, hub, dest), hub)


def checked(tool: str, cost: Cost, root: Path, dest: Path) -> Cost:
    """The same, once the files are those of the repository."""
    for path in (root / REPO).iterdir():
        if (dest / path.name).read_bytes() != path.read_bytes():
            raise SystemExit(f"{tool} brought something else")
    return cost


def row(what: str, wall: float, cpu: float, wire: str) -> None:
    print(f"| {what} | {wall:.1f} | {cpu:.1f} | {wire} | {os.getloadavg()[0]:.1f} |", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, dest = Path(folder, "hub"), Path(folder, "box", "model")
        (root / REPO).mkdir(parents=True)
        (root / REPO / "config.json").write_text("{}\n")
        for number in range(FILES):
            with (root / REPO / f"model-{number}.safetensors").open("wb") as stream:
                for _piece in range(SIZE // FILES // 1_000_000):
                    stream.write(os.urandom(1_000_000))
        with stand_in(root) as hub:
            print(f"| {SIZE / 1e6:.0f} MB in {FILES} files | wall s | CPU s | MB on the wire | load |\n|---|---|---|---|---|", flush=True)
            if "loopback" in PARTS:
                for tool in MORE:
                    costs = [checked(tool, whole(tool, hub, dest), root, dest) for _run in range(RUNS)]
                    wall, cpu = (statistics.median(values) for values in zip(*((cost.wall, cost.cpu) for cost in costs), strict=True))
                    row(f"{tool}, median of {RUNS}", wall, cpu, f"{costs[-1].wire / 1e6:.1f}")
            if "link" in PARTS:
                for tool in MORE:
                    cost = checked(tool, whole(tool, hub, dest, LINK), root, dest)
                    row(f"{tool}, {LINK / 1e6:.1f} MB/s", cost.wall, cost.cpu, f"{cost.wire / 1e6:.1f}")
            if "killed" in PARTS:
                for tool in TOOLS:
                    cost = checked(tool, resumed(tool, hub, dest), root, dest)
                    again = f"{cost.wire / 1e6:.1f} in both, {100 * max(0, cost.wire - SIZE) / SIZE:.1f} % of all again"
                    row(f"{tool}, second run after a kill at the half, {LINK / 1e6:.1f} MB/s", cost.wall, cost.cpu, again)


if __name__ == "__main__":
    main()
