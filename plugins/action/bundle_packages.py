# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of bundle_packages: it carries the files that the box lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import PACKAGES, BundleError, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import CarryError
from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import Background


class ActionModule(Background):
    """See the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        try:
            return self._bring(dict(self._task.args), task_vars or {})
        except (BundleError, CarryError, OSError) as exc:
            return {"failed": True, "msg": f"Cannot bring the packages: {exc}"}

    def _bring(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        bundle = open_bundle(Path(args.get("bundle") or ""))
        args["wanted"] = bundle.packages()
        result: dict[str, Any] = self._execute_module(module_args=args, task_vars=task_vars)
        needed = result.pop("needed", {})
        if needed and not result.get("failed"):
            folder = bundle.path / PACKAGES
            carrier = self.carrier(task_vars, sum((folder / name).stat().st_size for name in needed))
            for name, path in needed.items():
                carrier.push(folder / name, path)
            before = result.get("diff")
            result = self._execute_module(module_args=args, task_vars=task_vars)
            if result.pop("needed", None):
                raise CarryError("they came to the box in other bytes than the bundle has: check the box's memory and disk, then run again")
            result["diff"] = before
        result.get("invocation", {}).get("module_args", {}).pop("wanted", None)
        return result
