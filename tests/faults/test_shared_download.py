# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Three boxes of one play bring a checkpoint, over SSH and from a Hub that counts what it sends: once, whatever happens to one of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.box import BOX, BOXES, FLEET, ROOT, Box, Run
from sim.hub import GATED, Hub

TOKEN = "hf_Qm4RzXcWvUy8Jd1e"
FILES = {**{f"model-{number}.safetensors": os.urandom(16_000_000) for number in (1, 2, 3)}, "config.json": b"{}\n"}
SIZE = sum(map(len, FILES.values()))
LARGE = 16_000_000
MODELS = "/srv/models/fleet"
PORTS = range(6881, 6890)


class Fleet:
    """The boxes, the Hub before them, and the role `model` run on all of them at once."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.names = [BOX, *(f"spark-sim-{BOXES + number}" for number in range(1, FLEET + 1))]
        self.folder = folder

    def bring(self, repo: str = GATED, meanwhile: Callable[[], None] = lambda: None) -> Run:
        """Run the role; C(meanwhile) is called beside it."""
        spec = {"model": {"repo": repo, "revision": "main", "path": f"{MODELS}/main", "files": ["*.safetensors"]}}
        variables = {"recipe_spec": spec, "model_endpoint": self.hub.url, "spark_progress_seconds": 1}
        book = self.folder / "play.yml"
        tasks = [{"name": "Bring the weights", "ansible.builtin.include_role": {"name": "dgx.spark.model"}}]
        book.write_text(yaml.safe_dump([{"hosts": self.names, "gather_facts": False, "vars": variables, "tasks": tasks}]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/sim", str(book), "-v"]
        environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "HF_TOKEN": TOKEN}
        thread = threading.Thread(target=meanwhile, daemon=True)
        thread.start()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
        )
        thread.join(30)
        return Run(done.returncode, done.stdout)

    def sent(self) -> int:
        """Bytes of files that the Hub sent since the last look."""
        requests = self.hub.requests
        with self.hub.state.lock:
            self.hub.state.requests.clear()
        return sum(request["bytes"] for request in requests)

    def sh(self, name: str, command: str) -> str:
        done = subprocess.run(["docker", "exec", name, "sh", "-c", command], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def complete(self) -> list[str]:
        """The boxes on which every file is right."""
        right = hashlib.sha256(b"".join(FILES[path] for path in sorted(FILES))).hexdigest()
        sums = f"cd {MODELS}/main 2>/dev/null && cat {' '.join(sorted(FILES))} | sha256sum"
        return [name for name in self.names if self.sh(name, sums).startswith(right)]

    def left_running(self) -> list[str]:
        """Processes and listening ports of the download, on all boxes. Ansible's own wrapper ends some seconds after what it began."""
        ports = "|".join(f"{port:04X}" for port in PORTS)
        processes = "ps -ww -eo args | grep -E '[a]ria2c|[h]f_snapshot' | grep -v async_wrapper"
        look = f"{processes}; grep -E ':({ports}) 00000000:0000 0A' /proc/net/tcp /proc/net/tcp6"
        return [f"{name}: {text}" for name in self.names if (text := self.sh(name, look))]


@pytest.fixture
def fleet(box: Box, tmp_path: Path) -> Iterator[Fleet]:
    for path, content in FILES.items():
        target = tmp_path / "hub" / GATED / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    gateway = box.address.rpartition(".")[0] + ".1"
    # One process at a time has the boxes that belong to none.
    with (ROOT / ".cache" / "fleet.lock").open("w") as held, Hub(tmp_path / "hub", token=TOKEN, bind=gateway) as hub:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = Fleet(hub, tmp_path)
        for name in found.names:
            found.sh(name, f"rm -rf {MODELS}")
        yield found
        for name in found.names:
            found.sh(name, f"rm -rf {MODELS}")


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (found := condition()):
        if time.monotonic() > end:
            return None
        time.sleep(0.2)
    return found


def test_a_fleet_takes_every_byte_from_the_hub_once_and_a_box_that_comes_later_takes_none(fleet: Fleet) -> None:
    fleet.hub.faults.link = 8_000_000
    seen: list[str] = []

    def watch() -> None:
        until(lambda: len(fleet.left_running()) == len(fleet.names))
        seen.extend(fleet.sh(name, "ps -ww -eo args") for name in fleet.names)

    run = fleet.bring(meanwhile=watch)
    assert run.rc == 0, run.why
    assert fleet.complete() == fleet.names
    assert fleet.sent() <= 1.02 * SIZE
    assert fleet.left_running() == []
    # It was seen at work on every box, and nobody could read there where the seed is, or with what secret.
    assert len(seen) == len(fleet.names)
    secret = re.compile(r"http://[\d.]+:688\d/|rpc-secret|Signature=|" + TOKEN)
    assert [text for text in seen if secret.search(text)] == []
    assert TOKEN not in run.output
    assert not re.search(r"http://[\d.]+:688\d/", run.output)
    assert [
        name for name in fleet.names if fleet.sh(name, f"grep -rl {TOKEN} {MODELS} /root/.ansible* /home/*/.ansible* 2>/dev/null")
    ] == []

    again = fleet.bring()
    assert again.rc == 0
    assert len(re.findall(r"changed=0 ", again.output)) == 3, again.why

    for name in fleet.names[1:]:
        fleet.sh(name, f"rm -rf {MODELS}")
    fleet.sent()
    late = fleet.bring()
    assert late.rc == 0, late.why
    late.says(f"{fleet.names[0]}: gives the files to the other boxes")
    assert fleet.complete() == fleet.names
    assert fleet.sent() == 0
    assert fleet.left_running() == []


@pytest.mark.long
def test_a_seed_that_is_killed_in_the_middle_of_a_file_is_replaced(fleet: Fleet) -> None:
    fleet.hub.faults.link = 4_000_000
    killed: list[str] = []
    lost: list[int] = []

    def kill() -> None:
        def victim() -> str | None:
            # The one that fetches over HTTP; the others have a port for their peers.
            return next((name for name in fleet.names if fleet.sh(name, "pgrep -f '[-]-input-file=-'")), None)

        def halfway() -> bool:
            return sum(request["bytes"] for request in fleet.hub.requests) > 1.5 * LARGE

        name = until(lambda: halfway() and victim())
        fleet.sh(name, "pkill -9 -f '[h]f_snapshot'; pkill -9 aria2c")
        came = sum(request["bytes"] for request in fleet.hub.requests)
        # What the others have by now need not come again.
        blocks = f"find {MODELS}/main/.dgx-spark-partial -size +1000k -printf '%b\\n' | awk '{{s += $1}} END {{print s * 512}}'"
        lost.append(came - min(int(fleet.sh(other, blocks) or 0) for other in fleet.names if other != name))
        killed.append(name)

    run = fleet.bring(meanwhile=kill)
    assert killed, run.why
    others = [name for name in fleet.names if name not in killed]
    assert fleet.complete() == others, run.why
    # What it had not passed on yet came once more, and no more than that.
    assert fleet.sent() <= 1.02 * SIZE + lost[0]
    assert run.rc == 2
    run.says(f"fatal: [{killed[0]}]: FAILED!", "it does not work on the box any more: was it killed, or did the box restart?")
    assert fleet.left_running() == []

    # The next run brings the rest to the box that was killed, from the others.
    fleet.sent()
    again = fleet.bring()
    assert again.rc == 0, again.why
    assert fleet.complete() == fleet.names
    assert fleet.sent() == 0


@pytest.mark.long
def test_boxes_that_do_not_reach_each_other_get_their_files_from_the_hub(fleet: Fleet) -> None:
    rule = f"INPUT -p tcp --dport {PORTS[0]}:{PORTS[-1]} -j REJECT"
    for name in fleet.names:
        fleet.sh(name, f"iptables -I {rule}")
    try:
        run = fleet.bring()
    finally:
        for name in fleet.names:
            fleet.sh(name, f"iptables -D {rule}")
    assert run.rc == 0, run.why
    assert fleet.complete() == fleet.names
    assert fleet.sent() >= 3 * 3 * LARGE
    run.says("does not answer", "(do the boxes reach each other by TCP on peer_ports?). Going to the Hub for the rest")
