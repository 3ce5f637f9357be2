# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""All of run_record: it writes on the controller, in this process, and no box is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

OPTIONS: dict[str, Any] = {"dir": {"type": "path", "required": True}, "files": {"type": "dict", "required": True}}


class ActionModule(ActionBase):
    """See the module of the same name."""

    _supports_check_mode = True
    _supports_diff = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        folder = Path(args["dir"])
        wrong = [name for name in args["files"] if not name or Path(name).name != name]
        if wrong:
            return {"failed": True, "msg": f"files: {wrong[0]!r} is no plain name of a file"}
        paths = [folder / name for name in args["files"]]
        if not self._task.check_mode:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for path, document in zip(paths, args["files"].values(), strict=True):
                    _write(path, document)
            except OSError as exc:
                why = f"{exc.strerror} ({exc.filename})"
                return {"failed": True, "msg": f"Cannot keep the record of this run on the controller: {why}"}
        return {"changed": False, "paths": [str(path) for path in paths]}


def _write(path: Path, document: Any) -> None:
    """The file is there as a whole, or as it was. Raises OSError."""
    text = document if isinstance(document, str) else json.dumps(document, indent=4, ensure_ascii=False, sort_keys=True, default=str) + "\n"
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)
