# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a directory has of a snapshot, and what follows: the marker of a complete one, and the plan that completes it.

A marker is written last, so a directory with a marker whose files have its sizes, times and inodes is complete
without reading a byte of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._manifest import (
    MARKER,
    PARTIAL,
    Manifest,
    RepoFile,
    SnapshotError,
    check_path,
    make_file,
)
from ansible_collections.dgx.spark.plugins.module_utils._pace import Reading, amount
from ansible_collections.dgx.spark.plugins.module_utils._torrent import SMALL, piece_length

SCHEMA = 1
HASHERS = 4  # files that are read at the same time


@dataclass(frozen=True)
class Present:
    """A file that is there and right: its state on the disk when that was seen, and its sha256 (None: never read here).

    A copy that keeps size and time has another inode; None is that of a marker that does not say.
    """

    size: int
    mtime_ns: int
    sha256: str | None
    inode: int | None = None

    @classmethod
    def of(cls, seen: os.stat_result, sha256: str | None) -> Present:
        """The state that was just seen."""
        return cls(seen.st_size, seen.st_mtime_ns, sha256, seen.st_ino)

    def still(self, seen: os.stat_result) -> bool:
        """Is this the same state?"""
        same = (self.size, self.mtime_ns) == (seen.st_size, seen.st_mtime_ns)
        return same and self.inode in (None, seen.st_ino)


@dataclass(frozen=True)
class Marker:
    """What the last complete run left in a directory."""

    repo: str
    revision: str
    commit: str
    files: Mapping[str, RepoFile]
    present: Mapping[str, Present]

    def manifest(self, revision: str) -> Manifest:
        """What was complete then, under the name that is asked now."""
        return Manifest(self.repo, revision, self.commit, tuple(self.files.values()))


def read_marker(dest: str) -> Marker | None:
    """The marker of a directory; None when there is none or it cannot be understood, which is the same to a plan."""
    try:
        with open(os.path.join(dest, MARKER), encoding="utf-8") as stream:
            document = json.load(stream)
        files, present = {}, {}
        for entry in document["files"]:
            file = make_file(entry["path"], entry["size"], entry["sha256"], entry["git_sha1"])
            files[file.path] = file
            present[file.path] = Present(file.size, int(entry["mtime_ns"]), file.sha256, entry.get("inode"))
        return Marker(document["repo"], document["revision"], document["commit"], files, present)
    except (OSError, ValueError, KeyError, TypeError, SnapshotError):
        return None


def marker_text(manifest: Manifest, present: Mapping[str, Present]) -> str:
    """The marker of a directory in which every file of the manifest is present."""
    files = []
    for file in manifest.files:
        here = present[file.path]
        sha256 = file.sha256 or here.sha256
        state = {"mtime_ns": here.mtime_ns, "inode": here.inode}
        files.append({"path": file.path, "size": file.size, "sha256": sha256, "git_sha1": file.git_sha1, **state})
    head = {"schema": SCHEMA, "repo": manifest.repo, "revision": manifest.revision, "commit": manifest.commit}
    return json.dumps({**head, "files": files}, indent=1, ensure_ascii=False) + "\n"


def problem(dest: str, marker: Marker | None) -> str | None:
    """Why a directory is not a complete snapshot, by sizes, times and inodes alone; None when it is one."""
    if marker is None:
        return f"there is no readable {MARKER}: a download was never completed here"
    for path, present in marker.present.items():
        seen = _stat(os.path.join(dest, path))
        if seen is None:
            return f"{path} is missing"
        if seen.st_size != present.size:
            return f"{path} is {seen.st_size} bytes long instead of {present.size}"
        if seen.st_mtime_ns != present.mtime_ns:
            return f"{path} was changed after it had been verified"
        if not present.still(seen):
            return f"{path} was replaced after it had been verified"
    return None


def _stat(path: str) -> os.stat_result | None:
    """The state of a regular file, or None."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen if stat.S_ISREG(seen.st_mode) else None


@dataclass(frozen=True)
class Digests:
    """Both hashes of a file's content, and when they were asked for those of its pieces (SHA-1, one after the other)."""

    sha256: str
    git_sha1: str
    pieces: bytes = b""

    @classmethod
    def of(cls, content: bytes) -> Digests:
        """Those of a content in memory."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return cls(hashlib.sha256(content).hexdigest(), blob.hexdigest())

    def match(self, file: RepoFile) -> bool:
        return file.digest in (self.sha256, self.git_sha1) and file.sha256 in (None, self.sha256)


def silent(text: str) -> None:
    """Where nobody wants to hear how far it is."""


def digests(
    path: str, git: bool = True, count: Callable[[int], None] = lambda read: None, piece: int = 0, start: int = 0, size: int | None = None
) -> Digests:
    """Read a file once, or C(size) bytes of it from C(start) on; without C(git) its sha1 is left empty, as a large file has none.

    C(count) hears of bytes. With C(piece), a multiple of a MiB, the pieces of that length are hashed as well. Raises OSError.
    """
    sha256, pieces, left = hashlib.sha256(), [], 0
    with open(path, "rb", buffering=0) as stream:
        stream.seek(start)
        rest = os.fstat(stream.fileno()).st_size - start if size is None else size
        sha1 = hashlib.sha1(b"blob %d\0" % rest, usedforsecurity=False) if git else None
        buffer = bytearray(1024 * 1024)
        while got := _fill(stream, memoryview(buffer)[:rest]):
            rest -= got
            sha256.update(memoryview(buffer)[:got])
            if sha1:
                sha1.update(memoryview(buffer)[:got])
            if piece:
                if not left:
                    pieces.append(hashlib.sha1(usedforsecurity=False))
                    left = piece
                pieces[-1].update(memoryview(buffer)[:got])
                left -= got
            count(got)
    return Digests(sha256.hexdigest(), sha1.hexdigest() if sha1 else "", b"".join(one.digest() for one in pieces))


def _fill(stream: io.RawIOBase, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends: the bytes that were read."""
    there = 0
    while there < len(buffer) and (got := stream.readinto(buffer[there:])):
        there += got
    return there


@dataclass(frozen=True)
class Plan:
    """What makes a directory the snapshot that a manifest describes."""

    keep: Mapping[str, Present] = field(default_factory=dict)
    fetch: tuple[RepoFile, ...] = ()
    remove: tuple[str, ...] = ()  # files of an older snapshot
    reasons: tuple[str, ...] = ()  # empty: there is nothing to do
    have: int = 0  # bytes of `fetch` that an earlier run left

    @property
    def changed(self) -> bool:
        return bool(self.reasons)

    @property
    def size(self) -> int:
        """Bytes of what must be fetched, those of an earlier run included."""
        return sum({file.digest: file.size for file in self.fetch}.values())

    @property
    def room(self) -> int:
        """Bytes that the disk must have for it; a content with two names is fetched once and lies there twice."""
        return sum(file.size for file in self.fetch) - self.have


def make_plan(
    dest: str,
    manifest: Manifest,
    marker: Marker | None,
    full: bool = False,
    verified: Mapping[str, Present] | None = None,
    tell: Callable[[str], None] = silent,
) -> Plan:
    """Compare a directory with a manifest.

    A file is kept when the marker, or C(verified) (what an earlier plan read), vouches for it and its state is that; otherwise,
    and with C(full) in any case, it is read, and C(tell) hears how far that is. Raises OSError when something there cannot be read.
    """
    keep: dict[str, Present] = {}
    suspects: dict[str, tuple[RepoFile, Present]] = {}
    reasons: dict[str, str] = {}
    trusted = _vouched(manifest, marker, verified or {}, full)
    for file in manifest.files:
        seen = _stat(os.path.join(dest, file.path))
        if seen is None:
            reasons[file.path] = f"{file.path} is missing"
        elif seen.st_size != file.size:
            reasons[file.path] = f"{file.path} is {seen.st_size} bytes long instead of {file.size}"
        elif (known := trusted.get(file.path)) and known.still(seen):
            keep[file.path] = known
        else:
            suspects[file.path] = (file, Present.of(seen, None))
    found = read_all({path: os.path.join(dest, path) for path in suspects}, manifest.files, tell)
    for path, (file, here) in suspects.items():
        if found[path].match(file):
            keep[path] = replace(here, sha256=found[path].sha256)
        else:
            reasons[path] = f"{path} is not the file of {manifest.revision}: its sha256 is {found[path].sha256}"
    fetch = tuple(file for file in manifest.files if file.path in reasons)
    old = marker.files if marker else {}
    remove = tuple(sorted(set(old) - {file.path for file in manifest.files}))
    remove = tuple(path for path in remove if os.path.lexists(os.path.join(dest, path)))
    # One line a file, then what the marker itself would say otherwise.
    why = [reasons[file.path] for file in fetch] + [f"{path} is of an older revision" for path in remove]
    why += _marker_reasons(manifest, marker, keep) if not fetch else []
    have = sum(partial_bytes(dest, file) for file in {file.digest: file for file in fetch}.values())
    return Plan(keep, fetch, remove, tuple(why), have)


def _vouched(manifest: Manifest, marker: Marker | None, verified: Mapping[str, Present], full: bool) -> dict[str, Present]:
    trusted = {}
    for file in manifest.files:
        old = marker.files.get(file.path) if marker and not full else None
        if marker and old and old.digest == file.digest:
            trusted[file.path] = marker.present[file.path]
        if file.path in verified:
            trusted[file.path] = verified[file.path]
    return trusted


def _marker_reasons(manifest: Manifest, marker: Marker | None, keep: Mapping[str, Present]) -> list[str]:
    if marker is None:
        return ["the files are right, but no marker says so yet"]
    why = [
        f"the {name} is {after}, it was {before}"
        for name, before, after in (
            ("repository", marker.repo, manifest.repo),
            ("revision", marker.revision, manifest.revision),
            ("commit", marker.commit, manifest.commit),
        )
        if before != after
    ]
    before = {path: replace(here, sha256=None) for path, here in marker.present.items()}
    stale = sorted(path for path, here in keep.items() if before.get(path) != replace(here, sha256=None))
    return why + [f"{path} is right, but the marker says so of another state of it" for path in stale]


def read_all(
    paths: Mapping[str, str], files: Iterable[RepoFile], tell: Callable[[str], None] = silent, in_pieces: bool = False
) -> dict[str, Digests]:
    """Hash files at the same time, each as its manifest needs it; C(tell) hears how far that is. Raises OSError."""
    known = {file.path: file for file in files}
    reading = Reading(len(paths), sum(os.path.getsize(path) for path in paths.values()), tell)

    def read(name: str) -> Digests:
        found = read_one(paths[name], known[name], in_pieces, reading.read)
        reading.ended()
        return found

    with ThreadPoolExecutor(HASHERS) as pool:
        return dict(zip(paths, pool.map(read, paths), strict=True))


def read_one(path: str, file: RepoFile, in_pieces: bool = False, count: Callable[[int], None] = lambda read: None) -> Digests:
    """Hash a file as its manifest needs it; C(in_pieces), if it is large enough for a torrent, its pieces too. Raises OSError."""
    piece = piece_length(file.size) if in_pieces and file.size >= SMALL else 0
    return digests(path, file.git_sha1 is not None, count, piece)


def partial_path(dest: str, file: RepoFile) -> str:
    """Where a file lies until it is verified: it is named by its content, so a part of another revision's file is never continued."""
    return os.path.join(dest, PARTIAL, file.digest)


def partial_bytes(dest: str, file: RepoFile) -> int:
    """Bytes of a file that an earlier run left. aria2 writes at several places at once, so it is what the disk has, not the length."""
    path = partial_path(dest, file)
    seen = _stat(path)
    if seen is None:
        return 0
    if _stat(path + ".aria2") is None:
        # Without aria2's record nobody knows which parts are written, unless all are.
        return file.size if seen.st_size == file.size else 0
    return min(file.size, seen.st_blocks * 512)


def reclaimable_bytes(dest: str, plan: Plan) -> int:
    """Bytes of parts that no file of the plan can continue; a run removes them first."""
    wanted = {file.digest for file in plan.fetch}
    total = 0
    try:
        entries = list(os.scandir(os.path.join(dest, PARTIAL)))
    except OSError:
        return 0
    for entry in entries:
        if entry.name.split(".")[0] not in wanted and entry.is_file(follow_symlinks=False):
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def free_bytes(path: str) -> int:
    """Bytes that are free where a path is, or will be."""
    return shutil.disk_usage(existing(path)).free


def existing(path: str) -> str:
    """The nearest part of an absolute path that exists."""
    while not os.path.exists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def check_room(dest: str, plan: Plan, free: Callable[[str], int] = free_bytes) -> None:
    """Is there room for what must still be fetched? Raises SnapshotError, before a byte was."""
    need = plan.room
    room = free(dest) + reclaimable_bytes(dest, plan)
    if plan.fetch and need > room:
        raise SnapshotError(
            f"{amount(need)} must still be fetched to {dest}, but only {amount(room)} are free on {existing(dest)}: make room there, or"
            " choose another directory. Nothing was fetched"
        )


def inside(dest: str, path: str) -> str:
    """The absolute path of a repository's file. Raises SnapshotError when a link in the directory leads out of it."""
    check_path(path)
    root = os.path.realpath(dest)
    target = os.path.join(root, path)
    parent = os.path.realpath(os.path.dirname(target))
    if os.path.commonpath([root, parent]) != root:
        raise SnapshotError(f"{os.path.dirname(path)} in {dest} is a link to {parent}, outside of it: remove the link and run again")
    return target


def describe(repo: str, revision: str, commit: str, files: Iterable[RepoFile]) -> dict[str, Any]:
    """One side of a diff."""
    listing = {file.path: f"{file.size} bytes, {file.digest[:12]}" for file in files}
    return {"repo": repo, "revision": revision, "commit": commit, "files": dict(sorted(listing.items()))}
