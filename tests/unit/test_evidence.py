# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._evidence import document, summary, table

SPARK = {
    "containers": [{"name": "gemma4-nvfp4", "id": "c1", "spec_digest": "d1", "started_at": "2026-11-23T10:00:00Z", "image": "vllm:x"}],
    "model": {"repo": "a/b", "commit": "f00", "path": "/srv/models/x"},
}
IMAGE = {"id": "sha256:1", "digest": "sha256:2", "vllm_version": "0.19.1.dev6"}
STARTUP = {"startup": {"vllm_version": "0.19.1.dev6", "ready": True}, "failures": []}
PROBES = {"probes": [{"name": "fact", "ok": True}, {"name": "json", "ok": False}], "failures": []}
SPEED: dict[str, Any] = {
    "sequential": {"decode_tok_s": {"mean": 51.56}, "ttft_ms": {"mean": 53.2}},
    "long": None,
    "parallel": {"aggregate_tok_s": 114.6},
    "failures": [],
}


def evidence(**changed: Any) -> dict[str, Any]:
    parts: dict[str, Any] = {"image": IMAGE, "startup": STARTUP, "probes": PROBES, "throughput": SPEED, "failure": ""}
    return document(SPARK, box="spark-1", container="gemma4-nvfp4", recipe="r", **(parts | changed))


def test_nothing_failed_is_proven() -> None:
    found = evidence()
    assert found["verdict"] == "proven"
    assert found["container"] == {"name": "gemma4-nvfp4", "id": "c1", "spec_digest": "d1", "started_at": "2026-11-23T10:00:00Z"}
    assert found["model"] == {"repo": "a/b", "commit": "f00"}
    assert "long" not in found["throughput"]


def test_a_startup_failure_says_expected_seen_line_and_remedy() -> None:
    failure = {"expected": "moe_backend MARLIN", "seen": "VLLM_CUTLASS", "line": "Using 'VLLM_CUTLASS' …\n", "remedy": "stop and fix"}
    found = evidence(startup=STARTUP | {"failures": [failure]})
    assert found["verdict"] == "failed"
    assert found["failures"] == [
        "startup log: expected moe_backend MARLIN, saw VLLM_CUTLASS in the line \"Using 'VLLM_CUTLASS' …\"; stop and fix"
    ]


def test_a_step_that_broke_without_a_list_of_failures_is_a_failure() -> None:
    assert evidence(probes={}, throughput={}, failure="Ask the probes: refused")["failures"] == ["Ask the probes: refused"]


def test_the_message_is_not_repeated_beside_the_list() -> None:
    assert evidence(throughput=SPEED | {"failures": ["too slow"]}, failure="Measure: too slow")["failures"] == ["too slow"]


def test_the_summary_is_one_row() -> None:
    assert summary(evidence()) == {
        "vLLM": "0.19.1.dev6",
        "log": "ok",
        "probes": "1/2",
        "decode tok/s": "51.6",
        "TTFT ms": "53.2",
        "aggregate": "114.6",
        "verdict": "proven",
    }


def test_what_was_not_measured_is_a_dash() -> None:
    assert summary(evidence(throughput={}))["decode tok/s"] == "-"


def test_the_table_is_aligned() -> None:
    assert table([{"box": "spark-1", "n": "1"}, {"box": "s", "n": "22"}]) == ["box      n", "-------  --", "spark-1  1", "s        22"]
    assert table([]) == []
