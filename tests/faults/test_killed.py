# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed (SIGKILL of ansible-playbook) leaves no box half-done for good: the next run finishes it, or takes it back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from faults.box import NAME, Box, Run

NOW, SOON = "kill -9 $PPID", "(sleep 1.5; kill -9 $PPID) &"
EVIDENCE = f"/var/lib/dgx-spark/evidence/{NAME}.json"
LOCK = "/run/lock/dgx-spark/run.json"


def killed(box: Box, at_task: str, command: str, **variables: Any) -> None:
    run = box.play(at_task=at_task, command=command, **variables)
    assert run.rc == -9, f"it was not killed at {at_task!r}: {run.why}"


def settled(box: Box) -> dict[str, str]:
    """The environment of what serves; it is alone, proven, and nobody holds the box."""
    names = set(box.sh("docker ps --all --format '{{.Names}}'").split())
    assert names <= {NAME, f"{NAME}-previous", f"{NAME}-rolled-back"}
    assert box.sh("docker ps --format '{{.Names}}'") == NAME
    evidence = json.loads(box.sh(f"cat {EVIDENCE}"))
    assert (evidence["verdict"], evidence["container"]["id"]) == ("proven", box.container()["Id"])
    assert box.sh(f"ls {LOCK} 2>/dev/null || true") == ""
    assert "Paris" in box.answer()
    return dict(entry.split("=", 1) for entry in box.container()["Config"]["Env"])


def ok(run: Run) -> Run:
    assert run.rc == 0, run.why
    return run


@pytest.mark.parametrize(
    ("at_task", "command"),
    [
        pytest.param("Hold the box for this run", NOW, marks=pytest.mark.long),
        pytest.param("Bring the image", NOW, marks=pytest.mark.long),
        pytest.param("Wait until nobody is being answered", NOW, marks=pytest.mark.long),
        pytest.param("Get the memory back from Ollama", NOW, marks=pytest.mark.long),
        ("vllm : Serve", SOON),
        pytest.param("Publish what was done", NOW, marks=pytest.mark.long),
        pytest.param("Follow the startup log", NOW, marks=pytest.mark.long),
        pytest.param("Ask the probes", NOW, marks=pytest.mark.long),
        pytest.param("Keep the evidence on the box", NOW, marks=pytest.mark.long),
        pytest.param("Note that it was moved", NOW, marks=pytest.mark.long),
    ],
)
def test_the_next_run_finishes_what_a_killed_one_began(box: Box, at_task: str, command: str) -> None:
    # What serves before is of no importance: the case before left it, and it is another one.
    target = {"CASE": at_task.replace(" ", "-")}
    killed(box, at_task, command, vllm_env=target)
    ok(box.play(vllm_env=target))
    assert settled(box).items() >= target.items()


@pytest.mark.long
def test_what_a_killed_run_left_unproven_is_taken_back_when_it_turns_out_bad(box: Box) -> None:
    ok(box.play(vllm_env={"CASE": "good"}))
    bad = {"SIM_SCENARIO": "garbage-empty"}
    killed(box, "Ask the probes", NOW, vllm_env=bad)
    run = box.play(vllm_env=bad)
    assert run.rc != 0
    run.says("the lock was taken over from the run", "What served before was restored and answers again.")
    assert settled(box)["CASE"] == "good"


@pytest.mark.long
@pytest.mark.parametrize(
    ("at_task", "command"),
    [
        ("Serve again what served before", SOON),
        ("Prove that it serves again", NOW),
    ],
)
def test_a_restoration_that_was_killed_is_finished(box: Box, at_task: str, command: str) -> None:
    good = {"CASE": "good"}
    ok(box.play(vllm_env=good))
    killed(box, at_task, command, vllm_env={"SIM_SCENARIO": "garbage-empty"})
    ok(box.play(vllm_env=good))
    assert settled(box)["CASE"] == "good"
