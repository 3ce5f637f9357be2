# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is a snapshot the one that a lock demands? By its commit, and by the size and hash of every file.

A commit alone does not do: a mirror may serve anything under its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._manifest import Manifest, RepoFile, SnapshotError, make_file

SHOWN = 3  # files that an error names; the rest is counted


def fingerprint(files: Iterable[RepoFile]) -> str:
    """One sha256 over the path, size and hash of every file: two snapshots with the same one have the same bytes."""
    lines = sorted(f"{file.path}\0{file.size}\0{file.digest}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def locked_files(files: Mapping[str, Mapping[str, Any]]) -> list[RepoFile]:
    """The files of a lock: path → size and either sha256 or git_sha1. Raises SnapshotError when one of them is none."""
    return [make_file(path, entry.get("size"), entry.get("sha256"), entry.get("git_sha1")) for path, entry in files.items()]


def require_locked(manifest: Manifest, lock: Mapping[str, Any], source: str) -> None:
    """The manifest must be the lock's, file by file. C(source) is who says so: an endpoint, or a directory. Raises SnapshotError."""
    if manifest.commit != lock.get("commit"):
        raise SnapshotError(
            f"{source} has {manifest.repo} at commit {manifest.commit}, the lock demands {lock.get('commit')}: ask for that commit, or"
            " renew the lock (playbooks/lock.yml)"
        )
    there = {file.path: file for file in manifest.files}
    wanted = {file.path: file for file in locked_files(lock.get("files") or {})}
    differences = [_difference(path, there.get(path), wanted.get(path)) for path in sorted(there.keys() | wanted.keys())]
    found = [text for text in differences if text]
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise SnapshotError(
            f"{source} has other bytes under commit {manifest.commit} of {manifest.repo} than the lock: {'; '.join(found[:SHOWN])}{more}. A"
            " commit never changes, so one of the two is wrong: take another endpoint (model_endpoint), or make the lock anew from one that"
            " you trust"
        )


def _difference(path: str, there: RepoFile | None, wanted: RepoFile | None) -> str:
    if there is None:
        return f"{path} is in the lock only"
    if wanted is None:
        return f"{path} is not in the lock"
    if (there.size, there.digest) == (wanted.size, wanted.digest):
        return ""
    return f"{path} is {_content(there)} there, {_content(wanted)} in the lock"


def _content(file: RepoFile) -> str:
    kind = "git_sha1" if file.git_sha1 else "sha256"
    return f"{kind} {file.digest} ({file.size} bytes)"
