# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.filter.report_rows import report_rows

PROVEN: dict[str, Any] = {"verdict": "proven", "box": "spark-1"}
FAILED: dict[str, Any] = {"verdict": "failed", "box": "spark-1"}


def host(**variables: Any) -> dict[str, Any]:
    return {"inventory_hostname": "spark-1", "preflight_state": "serving", "spark": {"evidence": None}, **variables}


def row(**variables: Any) -> dict[str, Any]:
    [found] = report_rows([host(**variables)])
    return found


def test_a_box_that_has_nothing_to_do_is_known_by_the_evidence_on_it() -> None:
    found = row(preflight_state="current", spark={"evidence": PROVEN})
    assert found == {"box": "spark-1", "state": "current", "evidence": PROVEN, "failed": None, "why": "", "outcome": "untouched"}


def test_this_runs_evidence_comes_before_an_older_one() -> None:
    now = PROVEN | {"time": "now"}
    assert row(spark={"evidence": PROVEN}, proof_evidence=now)["evidence"] == now


def test_what_was_not_proven_stands_beside_what_was_restored() -> None:
    found = row(proof_evidence=PROVEN, proof_failed_evidence=FAILED, rollout_why="Too slow.", rollout_effect="It serves again.")
    assert (found["evidence"], found["failed"], found["why"]) == (PROVEN, FAILED, "Too slow. It serves again.")


def test_a_container_that_was_not_proven_is_no_evidence_of_what_serves() -> None:
    found = row(proof_evidence=FAILED, proof_failed_evidence=FAILED, rollout_why="Garbage.")
    assert (found["evidence"], found["failed"]) == (None, FAILED)


def test_what_a_swap_would_do_is_no_reason_while_nothing_failed() -> None:
    assert row(rollout_effect="Nothing that served was touched.")["why"] == ""


@pytest.mark.parametrize(
    ("variables", "outcome"),
    [
        ({"rollout_outcome": "moved"}, "moved"),
        ({"rollout_outcome": "restored", "rollout_why": "Garbage."}, "restored"),
        ({"rollout_why": "Garbage."}, "failed"),
        # It was moved before it was lost: lost is what somebody has to act on.
        ({"rollout_outcome": "moved", "rollout_lost": True, "rollout_why": "No route."}, "lost"),
        ({"rollout_lost": False}, "untouched"),
    ],
)
def test_what_the_run_did_to_a_box_is_one_word(variables: dict[str, Any], outcome: str) -> None:
    assert row(**variables)["outcome"] == outcome


def test_hosts_outside_of_the_run_are_left_out() -> None:
    assert report_rows([{"inventory_hostname": "spark-9"}]) == []
