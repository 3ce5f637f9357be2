# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Simulated boxes that serve the scripted vLLM, and the playbook that is run against them with something broken.

Tests may run in several processes, each with a box of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOXES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
BOX = f"spark-sim-{1 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
# Boxes for tests that need more than one; their numbers follow those of the processes' boxes.
FLEET = 2
NAME = "gemma4-nvfp4"
KEY_FILE = ROOT / "inventories" / "sim" / ".gemma4.api_key"
# A machine of the lab that has no business with the boxes.
NEIGHBOUR = "spark-sim-hub"
_GET = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=3)
key = sys.stdin.read()
try:
    connection.request("GET", sys.argv[3], headers={"Authorization": f"Bearer {key}"} if key else {})
    print(connection.getresponse().status)
except OSError:
    print(0)
"""
# The article's workload takes two minutes; faults need only enough tokens to tell slow from fast.
QUICK: dict[str, Any] = {
    "proof_throughput": {
        "warmup": 0,
        "ignore_eos": True,
        "sequential": {"runs": 1, "tokens": 40},
        "parallel": {"requests": 3, "tokens": 20},
        "thresholds": {"decode_tok_s_min": 46.8},
    },
    # Without the story, which takes twenty seconds at 52 tok/s, and is asked twice when something is restored.
    "proof_probes": ["models", "arithmetic", "fact", "json", "tool_call", "logprobs"],
    "proof_startup_timeout": 60,
    "vllm_stop_timeout": 5,
    # Where the lab has a host for a gateway, it is not this box's.
    "gateway_hosts": [],
}


@dataclass(frozen=True)
class Run:
    """What a run of a playbook ended with."""

    rc: int
    output: str = field(repr=False)

    @property
    def why(self) -> str:
        """What to look at when the run is not what it should be: the output around the first error, and its end."""
        error = re.search(r"\[ERROR\]|fatal: ", self.output)
        start = max(0, self.output.rfind("\nTASK", 0, error.start())) if error else len(self.output)
        around = f"{self.output[start : start + 4000]}\n[…]\n" if start < len(self.output) - 6000 else ""
        return around + self.output[-6000:]

    def says(self, *texts: str) -> None:
        """The output has each text; white space and line breaks of the terminal do not matter."""
        flat = " ".join(self.output.split())
        for text in texts:
            assert text in flat, f"{text!r} is not in the output:\n{self.why}"


def play(
    playbook: str,
    limit: str = "all",
    inventory: str = "inventories/sim",
    arguments: Sequence[str] = (),
    at_task: str = "",
    command: str = "",
    **variables: Any,
) -> Run:
    """Run a playbook with these extra variables. When the task C(at_task) starts, its process has a shell run C(command)."""
    line = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        f"playbooks/{playbook}.yml",
        "-i",
        inventory,
        "--limit",
        limit,
        "-e",
        json.dumps({**QUICK, **variables}),
        *arguments,
    ]
    environment = os.environ | {
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Reports are named by the second, and another process may run a playbook in the same one.
        "PWD": str(ROOT / ".cache" / "faults" / limit.partition(",")[0]),
    }
    if at_task:
        callbacks = {"ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).with_name("callbacks")), "ANSIBLE_CALLBACKS_ENABLED": "at_task"}
        environment |= callbacks | {"SIM_AT_TASK": at_task, "SIM_COMMAND": command}
    done = subprocess.run(
        line,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(done.returncode, done.stdout)


class Box:
    """A box, seen from outside."""

    def __init__(self, name: str = BOX) -> None:
        self.name = name
        found = subprocess.run(
            ["docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name],
            capture_output=True,
            text=True,
            check=True,
        )
        self.address = found.stdout.strip()

    def play(self, playbook: str = "gemma4", limit: str = "", **options: Any) -> Run:
        """Run a playbook on this box alone, or on those of C(limit)."""
        return play(playbook, limit or self.name, **options)

    def sh(self, command: str) -> str:
        """Run a command in the box as root."""
        return subprocess.run(["docker", "exec", self.name, "sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()

    def container(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sh(f"docker inspect {name}"))[0]
        return found

    def answer(self, key: str | None = None) -> str:
        """What the endpoint says is the capital of France, to who has the fleet's key or another one."""
        key = KEY_FILE.read_text().strip() if key is None else key
        body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
        request = urllib.request.Request(
            f"http://{self.address}:8002/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            content: str = json.load(response)["choices"][0]["message"]["content"]
        return content

    def for_neighbour(self, path: str, key: str = "") -> int:
        """HTTP's status that the neighbour gets for a GET; 0 when nothing answers within three seconds."""
        command = ["docker", "exec", "-i", NEIGHBOUR, "python3", "-c", _GET, self.address, "8002", path]
        return int(subprocess.run(command, input=key, capture_output=True, text=True, check=True).stdout)


@dataclass(frozen=True)
class Served:
    """What served before the fault."""

    box: Box
    id: str
    started_at: str

    def still_serves(self) -> None:
        """The same container answers, and was not even restarted."""
        assert self.box.container()["State"]["StartedAt"] == self.started_at
        self.serves_again()

    def serves_again(self) -> None:
        """The same container answers; it may have been stopped in between."""
        assert self.box.container()["Id"] == self.id
        assert "Paris" in self.box.answer()
