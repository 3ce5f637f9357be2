# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told about a fleet."""

from __future__ import annotations

from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._monitoring import targets, thresholds


def host(box: str, address: str = "192.168.1.12", **more: Any) -> dict[str, Any]:
    return {"address": address, "port": 8002, "labels": {"box": box, "recipe": "r"}, **more}


def test_a_target_has_its_labels_and_the_job_of_the_rules() -> None:
    assert targets([host("spark-1")], "dgx-spark-vllm") == [
        {"targets": ["192.168.1.12:8002"], "labels": {"job": "dgx-spark-vllm", "box": "spark-1", "recipe": "r"}}
    ]


def test_the_same_fleet_makes_the_same_file() -> None:
    fleet = [host("spark-2"), host("spark-1"), host("spark-3")]
    assert targets(fleet, "j") == targets(fleet[::-1], "j")
    assert thresholds(fleet) == thresholds(fleet[::-1])


def test_an_address_of_version_6_stands_in_brackets() -> None:
    assert targets([host("spark-1", "fe80::1")], "j")[0]["targets"] == ["[fe80::1]:8002"]


def test_what_a_recipe_asks_for_is_a_series_of_the_box() -> None:
    workload = {"parallel": {"requests": 3}, "thresholds": {"decode_tok_s_min": 46.8, "aggregate_tok_s_min": None, "ttft_ms_max": 130}}
    assert thresholds([host("spark-1", throughput=workload)])["groups"][0]["rules"] == [
        {"record": "box:decode_tok_s:threshold", "expr": "vector(46.8)", "labels": {"box": "spark-1"}},
        {"record": "box:parallel_requests:threshold", "expr": "vector(3)", "labels": {"box": "spark-1"}},
    ]


def test_a_fleet_without_thresholds_has_a_file_without_rules() -> None:
    workloads: list[dict[str, Any] | None] = [{}, None, {"parallel": None, "thresholds": {}}]
    for workload in workloads:
        assert thresholds([host("spark-1", throughput=workload)]) == {"groups": []}
