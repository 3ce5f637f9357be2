# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of run_lock: it says who runs this, and knows which of its own runs are over."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx.spark.plugins.plugin_utils._controller import is_over, owner, process


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        # Plugins run in workers: their parent is the run itself.
        args = {"owner": owner(), "process": process(os.getppid()), **self._task.args}
        result: dict[str, Any] = self._execute_module(module_args=args, task_vars=task_vars)
        held = result.get("holder") or {}
        gone = str(held.get("process") or "")
        if result.get("failed") and is_over(gone):
            # Exactly that one: should another run have been quicker, it keeps its lock.
            result = self._execute_module(module_args=args | {"instead_of": gone}, task_vars=task_vars)
        return result
