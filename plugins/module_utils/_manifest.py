# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What belongs to a snapshot of a repository: its files with their sizes and hashes, as the Hub says or as a box remembers.

Both halves of hf_snapshot use it: the controller makes a manifest, a box compares itself with it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

MARKER = ".dgx-spark-snapshot.json"
PARTIAL = ".dgx-spark-partial"
MAX_HANDED_OVER = 16 * 1024 * 1024  # bytes; a larger file never travels through the controller

# Options of the module that its two halves share. `manifest`, `addresses`, `part` and `progress_file` are for the module half alone.
OPTIONS: dict[str, Any] = {
    "repo": {"type": "str", "required": True},
    "revision": {"type": "str", "default": "main"},
    "dest": {"type": "path", "required": True},
    "endpoint": {"type": "str", "default": "https://huggingface.co"},
    "token": {"type": "str", "no_log": True},
    "files": {"type": "list", "elements": "str"},
    "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
    "timeout": {"type": "int", "default": 14400},
    "stall_timeout": {"type": "int", "default": 60},
    "connections": {"type": "int", "default": 8},
    "share": {"type": "bool", "default": False},
    "peer_ports": {"type": "str", "default": "6881-6889"},
    "peer_address": {"type": "str"},
    "lock": {"type": "dict"},
    "bundle": {"type": "str"},
}


class SnapshotError(Exception):
    """A snapshot cannot be had. The message names cause and remedy."""


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository. The Hub gives the sha256 of a large file and git's sha1 of any other; who has read it knows both."""

    path: str
    size: int  # bytes
    sha256: str | None
    git_sha1: str | None  # of the blob; None for a file in large-file storage

    @property
    def digest(self) -> str:
        """What names the content: the hash that the Hub gave."""
        return self.git_sha1 or self.sha256 or ""  # make_file sees to it that there is one


@dataclass(frozen=True)
class Manifest:
    """A repository at one commit. `revision` is what was asked: a branch, a tag or the commit itself."""

    repo: str
    revision: str
    commit: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def manifest_from(document: Mapping[str, Any]) -> Manifest:
    """The manifest that to_json made. Raises SnapshotError when it is none."""
    try:
        files = tuple(make_file(**{key: entry.get(key) for key in ("path", "size", "sha256", "git_sha1")}) for entry in document["files"])
        texts = [document[key] for key in ("repo", "revision", "commit")]
    except (KeyError, TypeError, AttributeError) as exc:
        raise SnapshotError(f"this is no manifest of a snapshot ({exc!r}): call dgx.spark.hf_snapshot as a task, which makes one") from exc
    if not all(isinstance(text, str) and text for text in texts):
        raise SnapshotError("this is no manifest of a snapshot: repo, revision and commit must be text")
    repo, revision, commit = texts
    return Manifest(repo, revision, commit, files)


def make_file(path: Any, size: Any, sha256: Any, git_sha1: Any) -> RepoFile:
    """A file whose path stays inside its directory and whose hashes are hashes. Raises SnapshotError."""
    check_path(path)
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise SnapshotError(f"the size of {path} is {size!r}: the endpoint does not speak the Hub's protocol")
    for value, length in ((sha256, 64), (git_sha1, 40)):
        if value is not None and not (isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{length}}}", value)):
            raise SnapshotError(f"{value!r} is no hash of {path}: the endpoint does not speak the Hub's protocol")
    if sha256 is None and git_sha1 is None:
        raise SnapshotError(f"there is no hash of {path}: the endpoint does not speak the Hub's protocol, so nothing could be verified")
    return RepoFile(path, size, sha256, git_sha1)


def check_path(path: Any) -> None:
    """A relative path, of visible characters, that cannot leave its directory or be taken for our own files. Raises SnapshotError."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if any(part in ("", ".", "..") for part in parts) or not path.isprintable() or "\\" in path:
        raise SnapshotError(f"the repository names a file {path!r}, which could be written outside its directory: it is not fetched")
    if parts[0] in (MARKER, PARTIAL):
        raise SnapshotError(f"the repository has a file {path}, a name that this collection keeps for itself: it cannot be fetched")


def require(files: Iterable[RepoFile], patterns: Sequence[str], what: str) -> None:
    """Every pattern (as of a shell; `*` matches `/` too) must match a file. C(what) names the snapshot. Raises SnapshotError."""
    paths = [file.path for file in files]
    missing = [pattern for pattern in patterns if not fnmatch.filter(paths, pattern)]
    if missing:
        raise SnapshotError(f"the repository has no {' and no '.join(missing)} at {what}: correct the name, or take another revision")
