# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The API keys on a box: a directory for each key that a container was made with, so that one that comes back finds its own.

    /var/lib/dgx-spark/api-keys/NAME.ID/api_key              0600, the key
    /var/lib/dgx-spark/api-keys/NAME.ID/dgx_spark_guard.py   what stands before vLLM, see _vllm_guard.py

A container has one of them mounted, read-only. Neither its arguments nor its environment hold the key, and its label holds a salted hash.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _vllm_guard
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file


def guard_source() -> str:
    """The text of the program that stands before vLLM."""
    return inspect.getsource(_vllm_guard)


def guard_id() -> str:
    return hashlib.sha256(guard_source().encode()).hexdigest()[:12]


@dataclass(frozen=True)
class KeyFiles:
    """The keys of the containers called C(name) and of those that belong to it, under C(directory)."""

    directory: str
    name: str

    def path(self, access: Mapping[str, Any]) -> str:
        """The directory of a resolved spec's C(api_key)."""
        identity = hashlib.sha256(f"{access['hash']} {access['guard']}".encode()).hexdigest()[:16]
        return os.path.join(self.directory, f"{self.name}.{identity}")

    def write(self, access: Mapping[str, Any], key: str) -> None:
        """Raises OSError."""
        path = self.path(access)
        for directory in (self.directory, path):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chmod(directory, 0o700)
        for name, text in ((_vllm_guard.KEY_NAME, f"{key}\n"), (_vllm_guard.GUARD_NAME, guard_source())):
            replace_file(os.path.join(path, name), text, mode=0o600)

    def sweep(self, used: Iterable[Mapping[str, Any]]) -> None:
        """Remove all but those of these resolved specs' C(api_key)."""
        keep = {os.path.basename(self.path(access)) for access in used}
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        for name in names:
            if name not in keep and re.fullmatch(rf"{re.escape(self.name)}\.[0-9a-f]{{16}}", name):
                shutil.rmtree(os.path.join(self.directory, name))
