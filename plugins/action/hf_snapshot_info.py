# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""All of hf_snapshot_info: it asks the Hub on the controller, and no box."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible import constants as C  # noqa: N812
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Digests
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, HubError, HubUnavailable, Listing

display = Display()
OPTIONS: dict[str, Any] = {
    "repo": {"type": "str", "required": True},
    "revision": {"type": "str", "default": "main"},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "token": {"type": "str", "no_log": True},
    "texts": {"type": "list", "elements": "str", "default": []},
    "since": {"type": "str"},
}


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True
    _supports_diff = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        host = (task_vars or {}).get("inventory_hostname", "")
        try:
            hub = Hub(args["endpoint"], args["token"], Path(C.DEFAULT_LOCAL_TMP), say=lambda text: display.display(f"{host}: {text}"))
            listing = hub.listing(args["repo"], args["revision"])
            manifest = listing.manifest
            return {
                "changed": False,
                "commit": manifest.commit,
                "revision": manifest.revision,
                "files": [asdict(file) for file in manifest.files],
                "texts": {path: _text(hub, listing, path) for path in args["texts"]},
                "texts_since": _texts_since(hub, args) if args["since"] else {},
            }
        except SnapshotError as exc:
            return {"failed": True, "msg": f"Cannot look at {args['repo']}: {exc}"}


def _text(hub: Hub, listing: Listing, path: str) -> dict[str, str]:
    content = hub.content(listing, path)
    return {"sha256": Digests.of(content).sha256, "text": content.decode("utf-8", "replace")}


def _texts_since(hub: Hub, args: dict[str, Any]) -> dict[str, dict[str, str] | None]:
    """The same texts as they were; None for what the Hub has no more. Raises HubUnavailable."""
    found: dict[str, dict[str, str] | None] = dict.fromkeys(args["texts"])
    try:
        listing = hub.listing(args["repo"], args["since"])
        for path in found:
            found[path] = _text(hub, listing, path)
    except HubUnavailable:
        raise
    except HubError:
        pass  # a commit that was taken back, or a file that was not there yet
    return found
