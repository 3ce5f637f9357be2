# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""An archive of `docker save` in parts, so that a box fetches only the layers that it lacks: its frame, and each layer.

The frame is an archive of all that is no layer. Together again they need not be the same file: the image's digest proves what is in it.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from typing import IO

from ansible_collections.dgx.spark.plugins.module_utils._archive import Archive, ArchiveError


@dataclass(frozen=True)
class Layer:
    """A layer in an archive. C(plain) is the digest of its content before anything compresses it, C(name) that of its member, which has
    C(size) bytes in the file from C(start) on.
    """

    plain: str
    name: str
    start: int
    size: int


def split(path: str, frame: IO[bytes]) -> list[Layer]:
    """Write the frame of an archive, and say where its layers are, from the lowest on. Raises ArchiveError, OSError."""
    try:
        with tarfile.open(path, "r:") as tar:
            layers = Archive(tar).layers()
            inside = {member.name for _plain, member in layers}
            with tarfile.open(fileobj=frame, mode="w:") as rest:
                for member in tar:
                    if member.name not in inside:
                        rest.addfile(member, tar.extractfile(member) if member.isreg() else None)
    except tarfile.TarError as exc:
        raise ArchiveError(f"it cannot be read ({exc})") from exc
    frame.flush()
    return [Layer(plain, member.name, member.offset_data, member.size) for plain, member in layers]


def add(archive: str, name: str, path: str) -> None:
    """Put a layer into an archive that lacks it: C(path) has its content. Raises ArchiveError, OSError."""
    member = tarfile.TarInfo(name)
    try:
        with tarfile.open(archive, "a:") as tar, open(path, "rb") as stream:
            member.size = os.fstat(stream.fileno()).st_size
            tar.addfile(member, stream)
    except tarfile.TarError as exc:
        raise ArchiveError(f"it cannot be put together ({exc})") from exc
