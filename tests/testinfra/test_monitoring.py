# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Prometheus that was there before reads what the role wrote."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-2"]
FOLDER = "/etc/prometheus/dgx-spark"


def ask(host: Host, path: str) -> dict[str, Any]:
    script = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9090/api/v1/{path}', timeout=20).read().decode())"
    answer: dict[str, Any] = json.loads(host.check_output(f'python3 -c "{script}"'))["data"]
    return answer


def test_the_files_are_prometheus_to_read(host: Host) -> None:
    files = {"dgx-spark.rules.yml", "dgx-spark.thresholds.yml", "dgx-spark.dashboard.json"}
    files |= {"dgx-spark-vllm.targets.json", "dgx-spark-gateway.targets.json"}
    assert set(host.file(FOLDER).listdir()) == files
    assert {(host.file(f"{FOLDER}/{name}").group, host.file(f"{FOLDER}/{name}").mode) for name in files} == {("prometheus", 0o644)}


def test_prometheus_took_the_rules_without_a_restart(host: Host) -> None:
    groups = {group["name"]: group["rules"] for group in ask(host, "rules")["groups"]}
    assert set(groups) == {"dgx-spark-alerts", "dgx-spark-series", "dgx-spark-thresholds"}
    assert [rule["name"] for rules in groups.values() for rule in rules if rule["health"] == "err"] == []


def test_prometheus_knows_the_box(host: Host) -> None:
    found = [target["labels"] for target in ask(host, "targets")["activeTargets"]]
    wanted = {"box": "spark-sim-2", "job": "dgx-spark-vllm", "model": "gemma-4-26b", "recipe": "gemma4-26b-a4b-nvfp4"}
    assert found == [{**wanted, "instance": "172.30.99.12:8002"}]
