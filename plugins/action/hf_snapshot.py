# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of hf_snapshot: asks the Hub, lets the box compare, and gives it addresses for what it lacks.

The token ends here: the box's half is called without it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._manifest import OPTIONS, SnapshotError, require
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, HubUnavailable, Listing

display = Display()
# A box expands ~ and $HOME in its own path; the controller must not.
CONTROLLER_OPTIONS = {**OPTIONS, "dest": {"type": "str", "required": True}}
FRUITLESS = 2  # times that a host refuses fresh addresses before it is believed


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=CONTROLLER_OPTIONS)[1]
        token = args.pop("token", None)
        host = (task_vars or {}).get("inventory_hostname", "")
        try:
            hub = Hub(args["endpoint"], token, Path(C.DEFAULT_LOCAL_TMP), say=lambda text: display.display(f"{host}: {text}"))
            try:
                listing = hub.listing(args["repo"], args["revision"])
            except HubUnavailable as exc:
                return self._without_hub(args, task_vars, exc)
            manifest = listing.manifest
            require(manifest.files, args["files"] or [], f"revision {manifest.revision} (commit {manifest.commit})")
            return self._with_hub(hub, listing, args, task_vars)
        except SnapshotError as exc:
            return {"failed": True, "msg": f"Cannot bring {args['repo']} to {args['dest']}: {exc}", "bytes_fetched": 0}

    def _without_hub(self, args: dict[str, Any], task_vars: dict[str, Any] | None, cause: HubUnavailable) -> dict[str, Any]:
        """What is complete on the box in the revision that is asked is good enough."""
        result = self._box(args, task_vars)
        if result.get("failed"):
            result.pop("exception", None)
            result["msg"] = f"{result.get('msg')}, and the Hub could not be asked: {cause}"
        else:
            text = f"The Hub could not be asked whether {args['revision']} of {args['repo']} has moved; what is there is complete. {cause}"
            result.setdefault("warnings", []).append(text)
        return result

    def _with_hub(self, hub: Hub, listing: Listing, args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Let the box say what it lacks, give it addresses for that, and fresh ones as long as they expire while bytes come."""
        deadline = time.monotonic() + args["timeout"]
        manifest = listing.manifest.to_json()
        result = self._box(args, task_vars, manifest=manifest)
        fetched = fruitless = 0
        newer_than = 0.0
        while (needed := result.pop("needed", None)) and not result.get("failed"):
            manifest["verified"] = result.pop("verified", {})
            if self._task.check_mode:
                if listing.gated:  # may we have it at all?
                    hub.addresses(listing, needed[:1])
                break
            addresses = hub.addresses(listing, needed, newer_than)
            left = max(1, int(deadline - time.monotonic()))
            result = self._box({**args, "timeout": left}, task_vars, manifest=manifest, addresses=json.dumps(addresses))
            came = result.get("bytes_fetched", 0)
            fetched += came
            result["bytes_fetched"] = fetched
            refused = result.pop("refused", None)
            if refused is None:
                continue
            newer_than = time.time()
            fruitless = 0 if came else fruitless + 1
            if fruitless >= FRUITLESS:
                raise SnapshotError(f"{refused}, although it is fresh: check the box's clock, and what its proxy lets through")
        result.pop("verified", None)
        return result

    def _box(self, args: dict[str, Any], task_vars: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        """Run the box's half. Its arguments are long, and an invocation says what the task said."""
        result: dict[str, Any] = self._execute_module(
            module_name="dgx.spark.hf_snapshot", module_args={**args, **more}, task_vars=task_vars, wrap_async=False
        )
        for name in ("manifest", "addresses"):
            result.get("invocation", {}).get("module_args", {}).pop(name, None)
        return result
