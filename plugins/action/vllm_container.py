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
        # The module is bounded by the time that the containers themselves have to stop, which is not known here where there is no spec. In a
        # swap that fails two of them stop, and memory has to come back each time. Killing it in between would be worse than waiting.
        stop = max(900.0, float((args.get("spec") or {}).get("stop_timeout") or 0))
        return 2 * (stop + float(args.get("memory_timeout") or 180)) + 300
