# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of vllm_image: it shows what the module is doing, and carries an image that comes from a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import BundleError, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import CarryError
from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import Background

# After the pull comes a look into the image.
LOOK_S = 120


class ActionModule(Background):
    """See the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        try:
            if args.get("bundle"):
                return self._from_bundle(args, task_vars or {})
        except (BundleError, CarryError, OSError) as exc:
            return {"failed": True, "msg": f"Cannot bring the image: {exc}"}
        return self._box(args, task_vars or {})

    def _from_bundle(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Let the box say what it has of the archive, carry the rest, and let it prove and load it."""
        bundle = open_bundle(Path(args["bundle"]))
        name, at, digest = str(args.get("image") or "").partition("@")
        if not at:
            digest = bundle.digest(name)
            args["image"] = f"{name}@{digest}"
        documents, archive = bundle.documents(digest), bundle.archive(digest)
        size, sha256 = archive.stat().st_size, bundle.sums[str(archive.relative_to(bundle.path))]
        args["archive"] = {"digest": digest, "documents": documents, "sha256": sha256, "size": size, "bundle": bundle.archives()}
        result = self._box(args, task_vars)
        if (needed := result.pop("needed", None)) and not result.get("failed"):
            carrier = self.carrier(task_vars, size, needed["have"])
            carrier.push(archive, needed["path"], needed["have"])
            result = {**self._box(args, task_vars), "bytes_fetched": carrier.carried}
        result.get("invocation", {}).get("module_args", {}).pop("archive", None)
        return result

    def _box(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        return self.in_background(args, task_vars, float(args.get("timeout") or 7200) + LOOK_S)
