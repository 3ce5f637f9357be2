# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of hf_snapshot: asks the Hub, lets the box compare, and gives it addresses for what it lacks.

The box's half runs in its background, and the terminal shows how far it is. Of several boxes one fetches from the Hub, when they share.

From a bundle it carries the files itself, and asks nobody.

The token ends here: the box's half is called without it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812
from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._locked import locked_files
from ansible_collections.dgx.spark.plugins.module_utils._manifest import OPTIONS, Manifest, SnapshotError, require
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import LOCK, BundleError, model_folder, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import CarryError
from ansible_collections.dgx.spark.plugins.plugin_utils._fleet import ALONE, DONE, Fleet
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, HubUnavailable, Listing
from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import Background
from ansible_collections.dgx.spark.plugins.plugin_utils._sharing import Died, Sharing, Watching, fleet_of

display = Display()
# A box expands ~ and $HOME in its own path; the controller must not.
CONTROLLER_OPTIONS = {**OPTIONS, "dest": {"type": "str", "required": True}}
FRUITLESS = 2  # times without a byte that fresh addresses are refused, or another way is tried, before it is believed
SLOW_DISK = 50e6  # bytes per second; files are read at least so fast when they are verified


class ActionModule(Background):
    """See the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._fetched = self._from_peers = 0
        args = self.validate_argument_spec(argument_spec=CONTROLLER_OPTIONS)[1]
        token = args.pop("token", None)
        self._host = (task_vars or {}).get("inventory_hostname", "")
        try:
            if args["bundle"]:
                return self._from_bundle(args, task_vars or {})
            hub = Hub(args["endpoint"], token, Path(C.DEFAULT_LOCAL_TMP), say=self._say)
            try:
                listing = hub.listing(args["repo"], args["revision"])
            except HubUnavailable as exc:
                return self._without_hub(args, task_vars or {}, exc)
            manifest = listing.manifest
            require(manifest.files, args["files"] or [], f"revision {manifest.revision} (commit {manifest.commit})")
            sharing = self._sharing(args, manifest, task_vars or {})
            try:
                return self._with_hub(hub, listing, args, task_vars or {}, sharing)
            finally:
                if sharing:
                    sharing.fleet.note(DONE)
        except (SnapshotError, Died, BundleError, CarryError, OSError) as exc:
            return {"failed": True, "msg": f"Cannot bring {args['repo']} to {args['dest']}: {exc}", **self._bytes()}

    def _bytes(self) -> dict[str, int]:
        return {"bytes_fetched": self._fetched, "bytes_from_peers": self._from_peers}

    def _sharing(self, args: dict[str, Any], manifest: Manifest, task_vars: dict[str, Any]) -> Sharing | None:
        """With which boxes this one shares, if it does."""
        if not args["share"] or self._task.check_mode:
            return None
        fleet = fleet_of((args["endpoint"], manifest.repo, manifest.commit), self._host, task_vars)
        return Sharing(fleet, "files", "Going to the Hub for the rest", self._say) if fleet else None

    def _say(self, text: str) -> None:
        display.display(f"{self._host}: {text}")

    def _from_bundle(self, args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Let the box say what it lacks, carry that, and let the box verify it and put it in place."""
        bundle = open_bundle(Path(args["bundle"]))
        lock = args["lock"]
        if not lock:
            raise SnapshotError(f"what comes from a bundle is judged by a lock: set lock, as {bundle.path / LOCK} has it")
        found = Manifest(args["repo"], args["revision"], lock["commit"], tuple(locked_files(lock["files"])))
        manifest = found.to_json()
        folder = bundle.path / model_folder(found.repo, found.commit)
        result = self._box(args, task_vars, manifest=manifest)
        parts = result.pop("parts", {})
        if result.pop("needed", None) and not result.get("failed") and not self._task.check_mode:
            manifest["verified"] = result.pop("verified", {})
            sizes = {file.path: file.size for file in found.files}
            carrier = self.carrier(task_vars, sum(sizes[path] for path in parts), sum(part["have"] for part in parts.values()))
            for path, part in parts.items():
                carrier.push(folder / path, part["path"], part["have"])
            nothing: dict[str, Any] = {file.path: {} for file in found.files}
            result = self._box(args, task_vars, manifest=manifest, addresses=json.dumps(nothing))
            result["bytes_fetched"] = carrier.carried
        result.pop("verified", None)
        return result

    def _without_hub(self, args: dict[str, Any], task_vars: dict[str, Any], cause: HubUnavailable) -> dict[str, Any]:
        """What is complete on the box in the revision that is asked is good enough."""
        result = self._box(args, task_vars)
        if result.get("failed"):
            result.pop("exception", None)
            result["msg"] = f"{result.get('msg')}, and the Hub could not be asked: {cause}"
        else:
            text = f"The Hub could not be asked whether {args['revision']} of {args['repo']} has moved; what is there is complete. {cause}"
            result.setdefault("warnings", []).append(text)
        return result

    def _with_hub(
        self, hub: Hub, listing: Listing, args: dict[str, Any], task_vars: dict[str, Any], sharing: Sharing | None
    ) -> dict[str, Any]:
        """Let the box say what it lacks, and give it addresses for that, or those of another box that has it.

        It gets fresh ones when they have expired, and others when nothing comes by them, as long as bytes come.
        """
        deadline = time.monotonic() + args["timeout"]
        manifest = listing.manifest.to_json()
        result = self._box(args, task_vars, manifest=manifest)
        fruitless, newer_than, redirect = 0, 0.0, False
        part = sharing.part(bool(result.get("needed"))) if sharing and not result.get("failed") else ALONE
        while not result.get("failed") and (result.get("needed") or part.seed):
            needed = result.pop("needed", [])
            manifest["verified"] = result.pop("verified", {})
            if self._task.check_mode:
                if listing.gated:  # may we have it at all?
                    hub.addresses(listing, needed[:1])
                break
            addresses = {} if part.follow else hub.addresses(listing, needed, newer_than, redirect)
            left = max(1, int(deadline - time.monotonic()))
            more = {
                "manifest": manifest,
                "addresses": json.dumps(addresses),
                "part": json.dumps({"seed": part.seed, "follow": part.follow}),
            }
            result = self._box({**args, "timeout": left}, task_vars, sharing.fleet if sharing and part.seed else None, **more)
            came = result.get("bytes_fetched", 0)
            self._fetched += came
            self._from_peers += result.get("bytes_from_peers", 0)
            result.update(self._bytes())
            lost, refused, stuck = (result.pop(name, None) for name in ("lost", "refused", "stuck"))
            if sharing and lost:
                part = sharing.after(part, lost, result.pop("seed_gone"), came)
            elif not refused and not stuck:
                part = ALONE  # what it seeded, all have
            else:
                newer_than = time.time()
                fruitless = 0 if came else fruitless + 1
                if fruitless >= FRUITLESS:
                    raise SnapshotError(stuck or f"{refused}, although it is fresh: check the box's clock, and what its proxy lets through")
                if stuck:
                    redirect = not redirect
                    self._say(f"{stuck}. Trying another way")
        for name in ("needed", "verified"):
            result.pop(name, None)
        return result

    def _box(self, args: dict[str, Any], task_vars: dict[str, Any], seeds_for: Fleet | None = None, **more: Any) -> dict[str, Any]:
        """Run the box's half. Its arguments are long, and an invocation says what the task said."""
        size = sum(file["size"] for file in more.get("manifest", {}).get("files", ()))
        bound = args["timeout"] * (2 if seeds_for else 1) + size / SLOW_DISK
        result = self.in_background({**args, **more}, task_vars, bound, Watching(seeds_for))
        for name in ("manifest", "addresses", "part", "progress_file"):
            result.get("invocation", {}).get("module_args", {}).pop(name, None)
        return result
