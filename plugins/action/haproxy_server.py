# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of haproxy_server: a drain takes as long as the longest stream, and the terminal shows how many are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import LongTask


class ActionModule(LongTask):
    """See the module of the same name."""

    def bound(self, args: Mapping[str, Any]) -> float:
        return float(args.get("timeout") or 300)
