# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters around the evidence: evidence and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _evidence


def evidence(spark: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return _evidence.document(spark, **parts)


def report(boxes: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a box, aligned; C(boxes) are mappings of C(box), C(state) and C(evidence)."""
    rows = []
    for entry in boxes:
        row = {"box": entry["box"], "was": entry["state"]}
        if entry.get("evidence"):
            row |= _evidence.summary(entry["evidence"])
        else:
            row |= dict.fromkeys(_EMPTY, "-") | {"verdict": "no evidence"}
        rows.append(row)
    return _evidence.table(rows)


_EMPTY = ("vLLM", "log", "probes", "decode tok/s", "TTFT ms", "aggregate", "verdict")


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"evidence": evidence, "report": report}
