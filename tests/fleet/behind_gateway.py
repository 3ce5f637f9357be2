# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Four simulated boxes behind a gateway, and a constant load of streams on it.

SIM_FLEET names other boxes (`spark-sim-5,spark-sim-6 spark-sim-7` for boxes and gateway), so that several people can use one lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
import threading
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from faults.box import ROOT, Box, Run, play
from load.streams import WHOLE, Load

_NAMES, GATEWAY = os.environ.get("SIM_FLEET", "spark-sim-1,spark-sim-2,spark-sim-3,spark-sim-4 spark-sim-gateway").split(" ")
BOXES = _NAMES.split(",")
# What takes long on a box is left out: what is shown here is what happens between boxes.
LIGHT: dict[str, Any] = {
    "proof_throughput": {"warmup": 0, "ignore_eos": True, "sequential": {"runs": 1, "tokens": 8}, "thresholds": {"decode_tok_s_min": 10}},
    "proof_probes": ["models", "fact"],
    "vllm_stop_timeout": 30,
    "rollout_batches": [1, 2],
    "gateway_hosts": [GATEWAY],
    "gateway_probe_interval": 1,
    "gateway_slow_start": 1,
    "gateway_show_box": True,
}
# Nothing of a run may last as long as the tests.
STREAMS, TOKENS = 8, (40, 200)


@dataclass(frozen=True)
class Served:
    """What serves on a box: its container's id, since when, and its environment."""

    id: str
    since: str
    environment: str

    @property
    def version(self) -> str:
        found = re.search(r"VERSION=(\w+)", self.environment)
        return found[1] if found else ""


class Fleet:
    """The boxes and the gateway, seen from outside."""

    def __init__(self, folder: Path) -> None:
        self.boxes = {name: Box(name) for name in BOXES}
        self.address = Box(GATEWAY).address
        self.inventory = folder / "fleet.yml"
        group_vars = ROOT / "inventories/sim/group_vars"
        shared = yaml.safe_load((group_vars / "all.yml").read_text())
        connection = yaml.safe_load((group_vars / "spark/connection.yml").read_text())
        connection["ansible_ssh_private_key_file"] = str(ROOT / "tests/sim/.cache/id_ed25519")
        hosts = {name: {"ansible_host": box.address} for name, box in self.boxes.items()}
        groups = {"spark": {"hosts": hosts}, "gateway": {"hosts": {GATEWAY: {"ansible_host": self.address}}}}
        self.inventory.write_text(yaml.safe_dump({"all": {"vars": shared | connection, "children": groups}}))

    @property
    def url(self) -> str:
        return f"http://{self.address}:8000"

    @property
    def key(self) -> str:
        """What clients send; the first run makes it."""
        return self.inventory.with_name(".gemma4.api_key").read_text().strip()

    def play(self, playbook: str = "gemma4", **options: Any) -> Run:
        return play(playbook, inventory=str(self.inventory), **{**LIGHT, **options})

    def served(self) -> dict[str, Served]:
        containers = {name: box.container() for name, box in self.boxes.items()}
        return {
            name: Served(found["Id"], found["State"]["StartedAt"], " ".join(found["Config"]["Env"])) for name, found in containers.items()
        }

    def versions(self) -> dict[str, str]:
        return {name: served.version for name, served in self.served().items()}

    def gateway_state(self) -> dict[str, str]:
        """HAProxy's word for each box: UP, DRAIN, …"""
        show = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/haproxy/admin.sock'); s.sendall(b'show stat\\n');"
        table = Box(GATEWAY).sh(f'python3 -c "{show} print(s.makefile().read())"').splitlines()
        columns = table[0].lstrip("# ").split(",")
        rows = [dict(zip(columns, line.split(","), strict=False)) for line in table[1:] if line]
        return {row["svname"]: row["status"] for row in rows if row["svname"] in self.boxes}


def version(name: str) -> dict[str, Any]:
    """The environment that makes a version."""
    return {"VERSION": name, "SIM_START_SECONDS": "0.3"}


def new_version() -> dict[str, Any]:
    """One that no box has."""
    return version(secrets.token_hex(4))


def with_scenario(version: dict[str, Any], scenario: str, only: str = "") -> dict[str, Any]:
    """A version that plays a scenario, on the box C(only) if it is given: on the others it is as without."""
    return {**version, "SIM_SCENARIO": f"{{{{ '{scenario}' if inventory_hostname == '{only}' else none }}}}" if only else scenario}


def remote_runs(run: Run) -> dict[str, int]:
    """How many modules a run with C(-vvv) has run on each address."""
    return Counter(re.findall(r"<([\d.]+)> SSH: EXEC .*BECOME-SUCCESS", run.output))


def rows(run: Run) -> dict[str, dict[str, Any]]:
    """The report of a run, by box."""
    found = re.search(r"Report: +(\S+)", run.output)
    assert found, run.why
    return {row["box"]: row for row in json.loads((Path(found[1]).parent / "report.json").read_text())}


def outcomes(run: Run) -> dict[str, str]:
    return {name: row["outcome"] for name, row in rows(run).items()}


class Clients:
    """A constant load in a thread, and how each of its streams ended."""

    def __init__(self, url: str, key: str, streams: int = STREAMS, tokens: tuple[int, int] = TOKENS) -> None:
        asked = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            model = str(json.load(answer)["data"][0]["id"])
        self.load = Load(url, model, streams=streams, tokens=tokens, api_key=key)
        self._thread = threading.Thread(target=lambda: asyncio.run(self.load.run()), daemon=True)
        self._thread.start()

    def lost(self) -> list[str]:
        """The streams so far that were not whole."""
        return [f"{stream.box or 'nobody'}: {stream.status} {stream.why}" for stream in list(self.load.done) if stream.kind != WHOLE]

    def stop(self) -> None:
        self.load.stop_soon()
        self._thread.join(timeout=120)


class Watch:
    """Looks at the gateway every second while it is entered: so many boxes as `fewest` took part at any time."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.fewest = len(BOXES)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def _look(self) -> None:
        while not self._end.wait(1):
            # While HAProxy reloads, a look may fall between two processes.
            with contextlib.suppress(subprocess.CalledProcessError, IndexError):
                states = self._fleet.gateway_state().values()
                self.fewest = min(self.fewest, sum(state.startswith("UP") for state in states))
