# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters dgx.spark.comparison and dgx.spark.comparison_table: what playbooks/compare.yml keeps, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils import _comparison


def comparison(spark: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    return _comparison.document(spark, **parts)


def comparison_table(document: Mapping[str, Any]) -> list[str]:
    return _comparison.lines(document)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"comparison": comparison, "comparison_table": comparison_table}
