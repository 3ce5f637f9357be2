# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters around the lock: lock_document reads one, lock makes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx.spark.plugins.plugin_utils import _lock, _lock_build


def lock_document(text: str, path: str) -> dict[str, Any]:
    try:
        return _lock.parse(text, path)
    except _lock.LockError as error:
        raise AnsibleFilterError(str(error)) from error


def lock(hosts: Sequence[Mapping[str, Any]], old: Mapping[str, Any] | None = None, keep: bool = False) -> dict[str, Any]:
    try:
        document, changes = _lock_build.build(hosts, dict(old) if old else None, keep)
    except _lock.LockError as error:
        raise AnsibleFilterError(str(error)) from error
    return {"text": _lock.render(document), "changes": changes}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lock_document": lock_document, "lock": lock}
