# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""All of bundle_info: it reads a directory of the controller, and no box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import Bundle, BundleError, differences, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle_read import Reader
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import LockError, parse

OPTIONS: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "lock_file": {"type": "str"},
    "recipes": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True
    _supports_diff = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        try:
            bundle = open_bundle(Path(args["path"]))
            _agree(bundle, args["lock_file"])
            paths = {path for recipe in args["recipes"] for path in bundle.need(recipe)}
            if paths:
                size = sum(bundle.about.files[path] for path in paths)
                bundle.verify(paths, Reader(self._templar.template((task_vars or {}).get("spark_progress_seconds")), size).read)
            return {
                "changed": False,
                "recipes": sorted(bundle.about.recipes),
                "machine": bundle.about.machine,
                "release": bundle.about.release,
                "size": sum(bundle.about.files.values()),
                "fingerprint": bundle.fingerprint,
            }
        except (BundleError, LockError, OSError) as exc:
            return {"failed": True, "msg": f"{str(exc).rstrip('.')}. No box was touched."}


def _agree(bundle: Bundle, lock_file: str | None) -> None:
    """Raises BundleError, LockError, OSError."""
    path = Path(lock_file or "")
    if lock_file and path.is_file() and (why := differences(bundle, parse(path.read_text(encoding="utf-8"), lock_file), lock_file)):
        raise BundleError(why)
