# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters around the evidence: evidence, report, report_page and served_bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _evidence
from ansible_collections.dgx.spark.plugins.plugin_utils import _report_bytes, _report_page, _report_text


def evidence(spark: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return _evidence.document(spark, **parts)


def report(boxes: Sequence[Mapping[str, Any]]) -> list[str]:
    return _report_text.summary(boxes)


def report_page(boxes: Sequence[Mapping[str, Any]], run: str, recipe: Mapping[str, Any]) -> str:
    return _report_page.page(boxes, run, recipe)


def served_bytes(boxes: Sequence[Mapping[str, Any]]) -> list[str]:
    return _report_bytes.served_bytes(boxes)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"evidence": evidence, "report": report, "report_page": report_page, "served_bytes": served_bytes}
