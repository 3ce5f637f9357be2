# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of vllm_image: it shows what the module is doing, carries an image that comes from a bundle, and lets boxes share.

Of several boxes one pulls, or has the image, and gives it to the others. Whatever goes wrong with that, a box pulls for itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._image_share import OPTIONS
from ansible_collections.dgx.spark.plugins.plugin_utils._background_job import every
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import BundleError, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import CarryError
from ansible_collections.dgx.spark.plugins.plugin_utils._fleet import DONE, Fleet, Part
from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import Background
from ansible_collections.dgx.spark.plugins.plugin_utils._sharing import Died, Sharing, Watching, fleet_of

display = Display()
# After the pull comes a look into the image.
LOOK_S = 120
# What Docker may take to begin with an archive, or to load one.
ARCHIVE_S = 3600
# Another box takes the first one's place. When that gives nothing either, all pull at once rather than one after the other.
FAILURES = 2


class ActionModule(Background):
    """See the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args, task_vars = self.validate_argument_spec(argument_spec=OPTIONS)[1], task_vars or {}
        self._host = task_vars.get("inventory_hostname", "")
        try:
            if args["bundle"]:
                return self._from_bundle(args, task_vars)
            fleet = (
                fleet_of(("image", args["image"]), self._host, task_vars, FAILURES) if args["share"] and not self._task.check_mode else None
            )
            return self._in_fleet(fleet, args, task_vars) if fleet else self._box(args, task_vars)
        except (BundleError, CarryError, Died, OSError) as exc:
            return {"failed": True, "msg": f"Cannot bring the image: {exc}. Nothing that serves was touched"}

    def _from_bundle(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Let the box say what it has of the archive, carry the rest, and let it prove and load it."""
        bundle = open_bundle(Path(args["bundle"]))
        name, at, digest = args["image"].partition("@")
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
        return result

    def _in_fleet(self, fleet: Fleet, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Let the box look, and then pull and give the image, or take it from another box, or pull for itself."""
        interval = every(self._setting(task_vars), len(task_vars["ansible_play_batch"]))
        sharing = Sharing(fleet, "image", "Pulling it from the registry", self._say, args["timeout"], interval)
        try:
            result = self._part(args, task_vars, {"look": True})
            lacks = result.pop("needed", False)
            # What came from no registry has no digest by which others could prove it.
            if result.get("failed") or not (lacks or result["image"]["digest"]):
                return result
            part, came = sharing.part(lacks), 0
            while part.follow:
                result = self._part(args, task_vars, {"follow": part.follow, "about": part.about}, bound=ARCHIVE_S)
                came += result.get("bytes_fetched", 0)
                lost = result.pop("lost", None)
                if not lost:
                    return result
                part = sharing.after(part, lost, result.pop("seed_gone"), result["bytes_fetched"])
            if lacks:
                result = self._part(args, task_vars, {"pull": True}, fleet)
                result["bytes_fetched"] = result.get("bytes_fetched", 0) + came
                result["bytes_from_peers"] = came
            if part.seed:
                self._give(fleet, part, args, task_vars, result)
            return result
        except Died as exc:
            fleet.failed(f"{self._host}: {exc}")
            raise
        finally:
            fleet.note(DONE)

    def _give(self, fleet: Fleet, part: Part, args: dict[str, Any], task_vars: dict[str, Any], result: Mapping[str, Any]) -> None:
        """Give the image that is here now to those that wait for it, if any does. When that fails it is the others that miss something."""
        if result.get("failed"):
            fleet.failed(f"{self._host} could not pull it")
            return
        if not fleet.asked():
            return
        give = {"seed": part.seed, "digest": result["image"]["digest"]}
        try:
            given = self._part(args, task_vars, give, fleet, bound=args["timeout"] + ARCHIVE_S)
            lost = given.get("lost") or (given.get("msg") if given.get("failed") else "")
        except Died as exc:
            lost = str(exc)
        if lost:
            self._say(f"cannot give the image to the other boxes: {lost}")
            fleet.failed(f"{self._host} cannot give it: {lost}")

    def _say(self, text: str) -> None:
        display.display(f"{self._host}: {text}")

    def _part(
        self, args: dict[str, Any], task_vars: dict[str, Any], part: Mapping[str, Any], seeds_for: Fleet | None = None, bound: float = 0
    ) -> dict[str, Any]:
        """The box's half does one thing. Raises Died."""
        return self._box({**args, "part": json.dumps(part)}, task_vars, Watching(seeds_for), bound)

    def _box(self, args: dict[str, Any], task_vars: dict[str, Any], watching: Watching | None = None, bound: float = 0) -> dict[str, Any]:
        """Run the box's half. Its arguments are long, and an invocation says what the task said."""
        result = self.in_background(args, task_vars, args["timeout"] + LOOK_S + bound, watching)
        for name in ("archive", "part", "progress_file"):
            result.get("invocation", {}).get("module_args", {}).pop(name, None)
        return result
