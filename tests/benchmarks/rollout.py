# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a rollout takes beside what it is for: the time of its batches less the drain, the swap and the proof of each box.

The boxes stand behind a gateway, and nobody asks them: a drain ends as soon as it is seen that nothing runs.

    python -m benchmarks.rollout [BOXES]
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.process import run

from tools.make_venv import ROOT

TIMEOUT_S = 1800
# What each module's time belongs to. Everything else is the rollout's own.
WORK = {
    "haproxy_server": "drain and admission",
    "vllm_idle": "drain and admission",
    "vllm_container": "swap",
    "vllm_startup_log": "proof",
    "openai_probe": "proof",
    "openai_throughput": "proof",
}
OWN = "the rollout's own"
BATCHES = "Roll out to serving boxes"
LIGHT = {
    "proof_throughput": {"warmup": 0, "ignore_eos": True, "sequential": {"runs": 1, "tokens": 40}, "thresholds": {"decode_tok_s_min": 40}},
    "rollout_fresh_batches": ["100%"],
    "rollout_batches": [1],
    "spark_progress_seconds": 0,
}


def roll_out(version: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """Wall seconds of a rollout, and what the JSON callback says of it. Raises SystemExit when it fails."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/gemma4.yml", "-i", "inventories/sim"]
    variables = {**LIGHT, "vllm_env": {"VERSION": version, "SIM_START_SECONDS": "0.3"}}
    environment = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_NOCOLOR": "1", "PWD": str(folder)}
    os.chdir(ROOT)
    cost = run([*command, "-e", json.dumps(variables)], folder / "output.json", TIMEOUT_S, environment)
    if cost.code:
        raise SystemExit(f"the rollout failed with code {cost.code}:\n{cost.output[-4000:]}")
    document: dict[str, Any] = json.loads(cost.output[cost.output.index('{\n    "') :])
    return cost.wall_s, document


def seconds(timed: dict[str, Any]) -> float:
    """How long a play or a task took."""
    begin, end = (datetime.fromisoformat(timed["duration"][at]) for at in ("start", "end"))
    return (end - begin).total_seconds()


def parts(document: dict[str, Any]) -> dict[str, float]:
    """Seconds of each kind of work in the batches, and of the rest. Tasks of a batch of one box are never at the same time."""
    found: dict[str, float] = collections.defaultdict(float)
    for play in document["plays"]:
        if play["play"]["name"] != BATCHES:
            continue
        found[OWN] += seconds(play["play"])
        for task in play["tasks"]:
            module = next((str(result.get("action", "")) for result in task["hosts"].values()), "").rpartition(".")[2]
            if module in WORK:
                found[WORK[module]] += seconds(task["task"])
                found[OWN] -= seconds(task["task"])
    return dict(found)


def main() -> None:
    """Roll out to fresh boxes, then a new version to all of them."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    lab = [sys.executable, str(ROOT / "tests/sim/lab.py")]
    subprocess.run([*lab, "up", "--boxes", str(count), "--gateway", "--no-real-vllm"], check=True, stdout=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="bench-rollout-") as scratch:
        roll_out("one", Path(scratch))
        load = os.getloadavg()[0]
        wall, document = roll_out("two", Path(scratch))
    subprocess.run([*lab, "down"], check=True, stdout=sys.stderr)
    found = parts(document)
    print(f"a rollout to {count} boxes in batches of one: {wall:.1f} s (load before it: {load:.1f})\n")
    print("| | s a box |\n|---|---|")
    for name, taken in found.items():
        print(f"| {name} | {taken / count:.1f} |")
    once = wall - sum(found.values())
    print(f"\nBefore and after the batches, for all boxes at the same time (plan, stage, gateway, firewall, report): {once:.1f} s")


if __name__ == "__main__":
    main()
