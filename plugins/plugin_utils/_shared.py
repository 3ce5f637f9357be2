# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What the processes of one run of Ansible, one for each box, know together: a JSON document in a file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def shared(path: Path) -> Iterator[dict[str, Any]]:
    """The document, empty at first, for one process at a time; what is changed in it is kept. Only its user may read the file."""
    with open(path, "a+", encoding="utf-8", opener=_private) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        text = stream.read()
        document: dict[str, Any] = json.loads(text) if text else {}
        try:
            yield document
        finally:
            stream.truncate(0)
            stream.write(json.dumps(document))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
