# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the role monitoring writes for a small fleet, in a directory that Prometheus' tools can read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.dgx.spark.plugins.plugin_utils import _monitoring

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles" / "monitoring" / "files"
RULES = FILES / "dgx-spark.rules.yml"
DASHBOARD = FILES / "dgx-spark.dashboard.json"
CORPUS = ROOT / "tests" / "corpus" / "metrics"
# The article's thresholds.
THROUGHPUT = {"parallel": {"requests": 3}, "thresholds": {"decode_tok_s_min": 46.8, "aggregate_tok_s_min": 103, "ttft_ms_max": 130}}


def box(name: str, port: int = 8002, throughput: dict[str, Any] | None = None) -> dict[str, Any]:
    """A box as the playbook hands it to the role."""
    labels = {"box": name, "recipe": "gemma4-26b-a4b-nvfp4", "model": "gemma-4-26b"}
    return {"address": "127.0.0.1", "port": port, "labels": labels, "throughput": throughput if throughput is not None else THROUGHPUT}


def publish(into: Path, boxes: list[dict[str, Any]], gateways: list[dict[str, Any]] | None = None) -> None:
    """The files of the role."""
    shutil.copy(RULES, into)
    (into / "dgx-spark.thresholds.yml").write_text(yaml.safe_dump(_monitoring.thresholds(boxes)))
    for job, hosts in (("dgx-spark-vllm", boxes), ("dgx-spark-gateway", gateways or [])):
        (into / f"{job}.targets.json").write_text(json.dumps(_monitoring.targets(hosts, job)))


def rules() -> list[dict[str, Any]]:
    """All rules of the role's file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
