# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.vllm_requests: who would be cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _vllm_metrics


def vllm_requests(metrics: str) -> int:
    found = _vllm_metrics.read(metrics)
    return round((found.running or 0) + (found.waiting or 0))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"vllm_requests": vllm_requests}
