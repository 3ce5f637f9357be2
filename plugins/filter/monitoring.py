# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters dgx.spark.monitoring_targets and dgx.spark.monitoring_thresholds: what the role monitoring writes for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils import _monitoring


def monitoring_targets(hosts: Iterable[Mapping[str, Any]], job: str) -> list[dict[str, Any]]:
    return _monitoring.targets(hosts, job)


def monitoring_thresholds(boxes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return _monitoring.thresholds(boxes)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"monitoring_targets": monitoring_targets, "monitoring_thresholds": monitoring_thresholds}
