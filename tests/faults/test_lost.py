# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A box that is lost in the middle of its rollout: the run names it, reports, and fails; the next run finishes it or takes it back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.box import BOX, Box, Run
from faults.test_killed import ok, settled

# So that a test takes seconds: a box counts as lost after ninety.
SOON: dict[str, Any] = {"spark_lost_seconds": 3, "ansible_ssh_timeout": 3}


# The box runs on, as others may count on; but nothing that Ansible says gets through.
CUT = "INPUT -p tcp --dport 22 -j DROP"


@pytest.fixture
def cut_off() -> Iterator[str]:
    """The command that loses the box. It is back after the test."""
    yield f"docker exec {BOX} iptables -I {CUT}"
    back()


def back() -> None:
    subprocess.run(["docker", "exec", BOX, "iptables", "-D", *CUT.split()], capture_output=True, check=False)


def report(run: Run) -> Path:
    found = re.search(r"Report: +(\S+)", run.output)
    assert found, run.why
    return Path(found[1]).parent


@pytest.mark.parametrize(
    ("at_task", "step"),
    [
        pytest.param("Wait until nobody is being answered", "drained", marks=pytest.mark.long),
        ("vllm : Serve", "swapped"),
        pytest.param("Ask the probes", "proven", marks=pytest.mark.long),
    ],
)
def test_a_lost_box_is_named_and_reported_and_the_next_run_finishes_it(box: Box, cut_off: str, at_task: str, step: str) -> None:
    target = {"CASE": f"lost-when-{step}"}
    run = box.play(at_task=at_task, command=cut_off, vllm_env=target, **SOON)
    assert run.rc == 2, run.why
    run.says(f"{BOX} was lost while it was {step}", "Bring it back and run again")
    [row] = json.loads((report(run) / "report.json").read_text())
    assert (row["box"], row["outcome"]) == (BOX, "lost")
    back()
    ok(box.play(vllm_env=target))
    assert settled(box).items() >= target.items()
