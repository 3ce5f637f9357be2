# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""One download of hf_snapshot beside one of `hf download`, from the lab's stand-in for the Hub over loopback: time, CPU, bytes on the wire.

Then both are killed at the half (SIGKILL, all processes at once), on a link that is as slow for this size as 1 Gbit/s is for 16.5 GB, and
started again. The stand-in offers no Xet, so `hf` uses HTTP. It is Python and shares the machine's cores with the client, so the speeds
compare the two and say nothing about a network.
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
        command = [sys.executable, str(ROOT / "tests/sim/hub.py"), "--root", str(root), "--port", str(port), "--cdn-port", str(port + 1)]
        self.process = subprocess.Popen(command)
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

    def wire(self) -> int:
        """Bytes of files that were sent since the last look from zero."""
        return sum(request["bytes"] for request in self._ask("requests"))

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
    if tool == "hf_snapshot":
        command = [sys.executable, "-c", OURS, hub.url, REPO, str(dest)]
    else:
        command = [str(Path(sys.executable).with_name("hf")), "download", REPO, "--local-dir", str(dest), "--quiet"]
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)


def ended(process: subprocess.Popen[bytes], hub: StandIn) -> Cost:
    """What a process cost that is waited for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    code = process.wait()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"{process.args!r} ended with code {code}")
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, hub.wire())


def whole(tool: str, hub: StandIn, dest: Path) -> Cost:
    """A download into an empty directory."""
    shutil.rmtree(dest, ignore_errors=True)
    hub.from_zero()
    return ended(start(tool, hub, dest), hub)


def resumed(tool: str, hub: StandIn, dest: Path) -> Cost:
    """A download that is killed at the half and started again: what the second run cost, and the bytes of both."""
    shutil.rmtree(dest, ignore_errors=True)
    hub.from_zero(LINK)
    victim = start(tool, hub, dest)
    while hub.wire() < SIZE / 2:
        if victim.poll() is not None:
            raise SystemExit(f"{tool} ended before it could be killed")
        time.sleep(0.2)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    time.sleep(1)
    return ended(start(tool, hub, dest), hub)


def right(root: Path, dest: Path) -> bool:
    """Are the files those of the repository?"""
    names = [path.name for path in (root / REPO).iterdir()]
    return all((dest / name).exists() and (dest / name).read_bytes() == (root / REPO / name).read_bytes() for name in names)


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
            print(f"| {SIZE / 1e6:.0f} MB in {FILES} files | wall s | CPU s | MB on the wire |\n|---|---|---|---|", flush=True)
            for tool in ("hf_snapshot", "hf download"):
                costs = [whole(tool, hub, dest) for _run in range(RUNS)]
                if not right(root, dest):
                    raise SystemExit(f"{tool} brought something else")
                wall, cpu = (statistics.median(values) for values in zip(*((cost.wall, cost.cpu) for cost in costs), strict=True))
                print(f"| {tool}, median of {RUNS} | {wall:.1f} | {cpu:.1f} | {costs[-1].wire / 1e6:.1f} |", flush=True)
            for tool in ("hf_snapshot", "hf download"):
                cost = resumed(tool, hub, dest)
                again = max(0, cost.wire - SIZE)
                text = f"| {tool}, second run after a kill at the half, {LINK / 1e6:.1f} MB/s | {cost.wall:.1f} | {cost.cpu:.1f}"
                print(f"{text} | {cost.wire / 1e6:.1f} in both, {100 * again / SIZE:.1f} % of all again |", flush=True)


if __name__ == "__main__":
    main()
