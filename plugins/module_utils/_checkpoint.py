# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Parts of files that survive a power cut.

aria2 writes down which pieces it has, but does not wait until the disk has them: after a power cut its record may speak of pieces that
were lost, and the file would turn out wrong in the end. So the record is copied once the disk has all that it speaks of, and the copy
counts when the machine has started anew.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable

RECORD, COPY = ".aria2", ".checkpoint"  # suffixes to the name of a part
BOOT = "boot"  # the file that says in which start of the machine the parts were written
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def keep(parts: str, names: Iterable[str]) -> None:
    """Bring what has come to the disk, and remember how far that is. Raises OSError when the disk cannot.

    On a full disk it does nothing: aria2 finds that as well, and says at which file.
    """
    for name in names:
        try:
            _keep(os.path.join(parts, name))
        except OSError as exc:
            # Nor is it a failure when aria2 has just begun with a part, or begins anew.
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT):
                raise


def _keep(path: str) -> None:
    fresh, copy = f"{path}{COPY}.new", path + COPY
    try:
        # First the record, then the disk: what is copied speaks of no piece that came later.
        shutil.copyfile(path + RECORD, fresh)
    except FileNotFoundError:
        # Complete, or not begun.
        if os.path.exists(copy):
            to_disk(path)
            os.unlink(copy)
        return
    to_disk(path)
    to_disk(fresh)
    os.replace(fresh, copy)


def restore(parts: str) -> None:
    """Go back to what was on the disk for sure when the machine has started anew since then. Raises OSError."""
    now, boot = _read(_BOOT_ID), os.path.join(parts, BOOT)
    if _read(boot) not in ("", now):
        for entry in list(os.scandir(parts)):
            if entry.name.endswith(COPY):
                os.replace(entry.path, entry.path.removesuffix(COPY) + RECORD)
    with open(boot, "w", encoding="utf-8") as stream:
        stream.write(now)


def part_of(name: str) -> str:
    """The part to which a file in the directory of parts belongs."""
    return name.removesuffix(RECORD).removesuffix(COPY)


def to_disk(path: str) -> None:
    """Wait until the disk has the file. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""
