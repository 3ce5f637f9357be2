# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of vllm_container: it shows what the module is doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import LongTask


class ActionModule(LongTask):
    """See the module of the same name."""

    def bound(self, args: Mapping[str, Any]) -> float:
        # The old container may take its whole time to stop, in a swap that fails the new one, too; then memory has to come back.
        stop = float((args.get("spec") or {}).get("stop_timeout") or 120)
        return 2 * stop + float(args.get("memory_timeout") or 180) + 300
