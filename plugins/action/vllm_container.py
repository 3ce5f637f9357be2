# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of vllm_container: it shows what the module is doing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import LongTask

# As the module waits for one that a killed controller left.
WAIT_FOR_ANOTHER_S = 900


class ActionModule(LongTask):
    """See the module of the same name."""

    def bound(self, args: Mapping[str, Any]) -> float:
        # The containers themselves say how long they may take to stop, and without a spec nobody knows that here. In a swap that fails two
        # of them stop, and memory comes back each time. To kill the module in between would be worse than to wait.
        stop = max(900.0, float((args.get("spec") or {}).get("stop_timeout") or 0))
        return 2 * (stop + float(args.get("memory_timeout") or 180)) + 300 + WAIT_FOR_ANOTHER_S
