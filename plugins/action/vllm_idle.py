# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of vllm_idle: it shows how many requests are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import LongTask


class ActionModule(LongTask):
    """See the module of the same name."""

    def bound(self, args: Mapping[str, Any]) -> float:
        timeout = args.get("timeout")
        # A look that is under way when the time is over gets its own.
        return float(300 if timeout is None else timeout) + 30
