# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a run costs that has nothing to do: wall time, and commands sent over SSH per box, for 1 and 4 simulated boxes.

Controller and boxes share this machine's cores, so the times are of this machine; the counts are not.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNS = 3
QUICK = {
    "proof_throughput": {"warmup": 0, "ignore_eos": True, "sequential": {"runs": 1, "tokens": 40}, "thresholds": {"decode_tok_s_min": 40}},
}


def play(*options: str) -> tuple[float, str]:
    """Wall seconds and output of one run of the main playbook over all simulated boxes."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "playbooks/gemma4.yml",
        "-i",
        "inventories/sim",
        "-e",
        json.dumps(QUICK),
    ]
    start = time.monotonic()
    done = subprocess.run(
        [*command, *options], cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the playbook failed:\n{done.stdout[-4000:]}")
    return time.monotonic() - start, done.stdout


def main() -> None:
    print("boxes  wall s (median of 3)  SSH commands a box  changed")
    for boxes in (1, 4):
        subprocess.run(
            [sys.executable, str(ROOT / "tests/sim/lab.py"), "up", "--boxes", str(boxes), "--no-real-vllm"], check=True, stdout=sys.stderr
        )
        play()
        walls = [play()[0] for _run in range(RUNS)]
        output = play("-vvv")[1]
        commands = Counter(re.findall(r"<([\d.]+)> SSH: EXEC", output))
        changed = {int(count) for count in re.findall(r"changed=(\d+)", output)}
        print(f"{boxes:5}  {statistics.median(walls):20.1f}  {max(commands.values()):18}  {max(changed):7}", flush=True)
    subprocess.run([sys.executable, str(ROOT / "tests/sim/lab.py"), "down"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
