# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A new container that starts badly, or answers garbage: the run says why and fails, and what served before serves again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from faults.box import BOX, NAME, Served

RESTORED = "What served before was restored and answers again."


@pytest.mark.parametrize(
    ("scenario", "texts"),
    [
        pytest.param("cutlass-moe", ["MARLIN", "VLLM_CUTLASS", "was not picked up"], marks=pytest.mark.long),
        pytest.param("fp4-crash", ["Failed to run cutlass FP4 gemm"], marks=pytest.mark.long),
        ("exit-in-start", ["exit"]),
        pytest.param("oom", ["Free memory on device"], marks=pytest.mark.long),
        ("slow", ["decode_tok_s_min"]),
        pytest.param("garbage-empty", ["visible"], marks=pytest.mark.long),
        pytest.param("garbage-bang", ["!"], marks=pytest.mark.long),
        pytest.param("garbage-loop", ["loop"], marks=pytest.mark.long),
        pytest.param("nan-logprobs", ["NaN"], marks=pytest.mark.long),
        pytest.param("tools-in-text", ["tool_calls"], marks=pytest.mark.long),
        pytest.param("no-usage", ["usage"], marks=pytest.mark.long),
    ],
)
def test_a_bad_version_is_undone(served: Served, scenario: str, texts: list[str]) -> None:
    run = served.box.play(vllm_env={"SIM_SCENARIO": scenario})
    assert run.rc != 0
    run.says(*texts, RESTORED)
    served.serves_again()


@pytest.mark.long
def test_a_start_that_hangs_ends_at_its_bound_and_shows_the_log(served: Served) -> None:
    run = served.box.play(vllm_env={"SIM_SCENARIO": "hang-in-start"}, proof_startup_timeout=12)
    assert run.rc != 0
    run.says("12", RESTORED)
    served.serves_again()


def test_the_evidence_of_the_failure_is_kept_beside_that_of_what_serves(served: Served) -> None:
    run = served.box.play(vllm_env={"SIM_SCENARIO": "cutlass-moe"})
    failed = json.loads(served.box.sh(f"cat /var/lib/dgx-spark/evidence/{NAME}.failed.json"))
    proven = json.loads(served.box.sh(f"cat /var/lib/dgx-spark/evidence/{NAME}.json"))
    assert failed["verdict"] == "failed"
    assert failed["startup"]["moe_backend"] == "VLLM_CUTLASS"
    assert proven["container"]["id"] == served.id
    page = re.search(r"Report: +(\S+)", run.output)
    assert page, run.why
    report = Path(page[1])
    assert (report.parent / f"{BOX}.failed.json").exists()
    # The page shows what was not proven, and names what serves instead.
    assert "VLLM_CUTLASS" in report.read_text()
    assert "Serves now:" in report.read_text()
