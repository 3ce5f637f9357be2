# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Other snapshots beside a directory: what they have already need not be fetched, it is linked.

Each revision has its own directory, and two revisions share most of their bytes: a commit that corrects a README leaves 16 GB of weights
as they were. A hard link costs nothing and outlives the directory it came from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ansible_collections.dgx.spark.plugins.module_utils._manifest import PARTIAL, RepoFile
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import (
    Marker,
    Plan,
    existing,
    partial_bytes,
    partial_path,
    read_marker,
)


def neighbours(dest: str) -> dict[str, Marker]:
    """Directory → marker of every snapshot beside C(dest). Empty when their parent cannot be read."""
    own = os.path.realpath(dest)
    try:
        paths = sorted(entry.path for entry in os.scandir(os.path.dirname(own)) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return {}
    markers = {path: read_marker(path) for path in paths if path != own}
    return {path: marker for path, marker in markers.items() if marker is not None}


def find(dest: str, files: Iterable[RepoFile]) -> dict[str, str]:
    """Digest → a neighbour's file with that content, as it was when it was verified, on the disk of C(dest)."""
    try:
        device = os.stat(existing(os.path.abspath(dest))).st_dev
    except OSError:
        return {}
    known: dict[str, str] = {}
    for directory, marker in neighbours(dest).items():
        for path, file in marker.files.items():
            here = os.path.join(directory, path)
            try:
                seen = os.lstat(here)
            except OSError:
                continue
            # An empty file is made, not linked; and one that somebody else may change stays his.
            ours = stat.S_ISREG(seen.st_mode) and seen.st_uid == os.geteuid() and seen.st_dev == device
            if ours and seen.st_size and marker.present[path].still(seen):
                known.setdefault(file.digest, here)
    return {file.digest: known[file.digest] for file in files if file.digest in known}


def count_in(dest: str, plan: Plan, found: Mapping[str, str]) -> Plan:
    """The plan with what will be linked: it needs no room, and its reasons say where it comes from."""
    linked = {file.path: file for file in plan.fetch if file.digest in found}
    have = sum(file.size - partial_bytes(dest, file) for file in {file.digest: file for file in linked.values()}.values())
    told = {f"{path} is missing": f"{path} is missing; {found[file.digest]} is the same and is linked" for path, file in linked.items()}
    return replace(plan, have=plan.have + have, reasons=tuple(told.get(reason, reason) for reason in plan.reasons))


def link(dest: str, plan: Plan, found: Mapping[str, str]) -> None:
    """Give the download what neighbours have, as parts that are complete: it reads and verifies them like what it fetched itself.

    What cannot be linked is fetched.
    """
    wanted = [file for file in plan.fetch if file.digest in found]
    if not wanted:
        return
    os.makedirs(os.path.join(dest, PARTIAL), mode=0o700, exist_ok=True)
    for file in wanted:
        part = partial_path(dest, file)
        if partial_bytes(dest, file) == file.size and not os.path.exists(part + ".aria2"):
            continue
        # aria2 would go on in place, and in place is the neighbour's file: no record of it may be left beside a link.
        for stale in (part + ".aria2", part):
            if os.path.lexists(stale):
                os.unlink(stale)
        try:
            os.link(found[file.digest], part)
        except OSError:
            continue
