# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What Prometheus is told about a fleet: where to scrape, and what each box's recipe asks for, as series to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A series of a box, and where a recipe's workload says it.
_THRESHOLDS = {
    "box:decode_tok_s:threshold": ("thresholds", "decode_tok_s_min"),
    "box:aggregate_tok_s:threshold": ("thresholds", "aggregate_tok_s_min"),
    # The streams with which the aggregate was measured: it says nothing about fewer.
    "box:parallel_requests:threshold": ("parallel", "requests"),
}


def targets(hosts: Iterable[Mapping[str, Any]], job: str) -> list[dict[str, Any]]:
    """A file_sd document: one group for each mapping of C(address), C(port) and C(labels), sorted by their labels.

    C(job) becomes the label of that name, whatever Prometheus calls its scrape job.
    """
    groups = [{"targets": [_target(host)], "labels": {"job": job, **host["labels"]}} for host in hosts]
    return sorted(groups, key=lambda group: sorted(group["labels"].items()))


def thresholds(boxes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A file of recording rules: for each mapping of C(labels), with a C(box) in it, and C(throughput), what its workload asks for.

    A box without thresholds has no series, and no alert compares it.
    """
    rules = [
        {"record": record, "expr": f"vector({value})", "labels": {"box": box["labels"]["box"]}}
        for box in sorted(boxes, key=lambda box: str(box["labels"]["box"]))
        for record, (part, name) in _THRESHOLDS.items()
        if (value := ((box.get("throughput") or {}).get(part) or {}).get(name)) is not None
    ]
    return {"groups": [{"name": "dgx-spark-thresholds", "rules": rules}] if rules else []}


def _target(host: Mapping[str, Any]) -> str:
    address = str(host["address"])
    return f"[{address}]:{host['port']}" if ":" in address else f"{address}:{host['port']}"
