# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Replace a file in one step, so that a reader (or a power cut) sees the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import tempfile


def replace_file(path: str, text: str, mode: int) -> None:
    """Write C(text) to C(path). An existing file keeps its mode and owner, a new one gets C(mode). A link's target is replaced.

    The directory must exist. Raises OSError, and then the old file is still there.
    """
    path = os.path.realpath(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            old = os.stat(path)
        except FileNotFoundError:
            os.chmod(temporary, mode)
        else:
            os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, old.st_mode & 0o7777)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
