# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A rollout that a program runs: events while it goes on, results in the end, and no secret in either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults.box import BOX, QUICK, Served
from faults.runner import Played, play

KEY = "a-key-that-nobody-may-find"
# The lab's Hub knows it.
TOKEN = "hf_sim_token"


def roll_out(private: Path, **variables: Any) -> Played:
    return play("playbooks/gemma4.yml", ["-i", "inventories/sim", "--limit", BOX], private, {**QUICK, **variables})


def test_a_rollout_hands_over_its_evidence_and_no_secret(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("PWD", str(tmp_path))  # where the report goes
    monkeypatch.delenv("CI", raising=False)
    assert served.box.play("remove").rc == 0
    # A start that is long enough to be told of.
    played = roll_out(tmp_path, vllm_api_key=KEY, vllm_env={"SIM_START_SECONDS": "5"}, spark_progress_seconds=1)
    assert played.outcome.rc == 0, played.why()
    row = played.row(BOX)
    assert (row["state"], row["why"], row["evidence"]["verdict"]) == ("fresh", "", "proven")
    assert row["evidence"]["throughput"]["sequential"]["decode_tok_s"]["mean"] > 46.8
    assert Path(played.outcome.report_dir, "index.html").exists()
    assert [name for name in played.plays() if name in ("Plan", "Stage", "Report")] == ["Plan", "Stage", "Report"]
    assert "Follow the startup log" in played.tasks(BOX)
    assert [event for event in played.events if event["event"] == "verbose" and event["stdout"].startswith(f"{BOX}: ")]

    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "variables.json"]
    assert written
    found = [str(path) for path in written if any(secret in path.read_text(errors="replace") for secret in (KEY, TOKEN))]
    assert found == []
    assert [event for event in played.events if KEY in str(event) or TOKEN in str(event)] == []


@pytest.mark.long
def test_a_rollout_that_fails_says_of_each_box_why(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(tmp_path))
    assert served.box.play("remove").rc == 0
    played = roll_out(tmp_path, vllm_env={"SIM_SCENARIO": "garbage-bang"})
    assert played.outcome.rc == 2
    row = played.row(BOX)
    assert row["evidence"] is None
    assert row["failed"]["verdict"] == "failed"
    assert "Nothing served before" in row["why"]
    assert played.of("runner_on_failed", BOX)
