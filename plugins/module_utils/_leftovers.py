# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What takes room on a box and serves nothing: snapshots and images that no container uses and nobody asks for.

A stopped container uses what it was made of: the way back needs it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import StoredImage, Use
from ansible_collections.dgx.spark.plugins.module_utils._fetch import alone, remove_file, remove_parts
from ansible_collections.dgx.spark.plugins.module_utils._image import repository
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, PARTIAL, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._pace import amount
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import read_marker

DEPTH = 5  # directories below the root: RECIPE/REVISION, and a revision may have slashes


@dataclass(frozen=True)
class Found:
    """A directory of hf_snapshot: what lies in it, the bytes that its files have on the disk, and whether a run is at it just now."""

    path: str
    what: str
    size: int
    busy: bool = False


@dataclass(frozen=True)
class Item:
    """A snapshot (by its path) or an image (by its id): its bytes, what it is, and why it stays or may go."""

    kind: str
    name: str
    size: int
    what: str
    why: str

    def line(self) -> str:
        """As a person reads it."""
        return f"{amount(self.size)}: {self.kind} {self.name} ({self.what}): {self.why}"


@dataclass(frozen=True)
class Plan:
    """What may go and what stays."""

    remove: tuple[Item, ...]
    keep: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes of what may go; images may share layers, so it is an upper bound."""
        return sum(item.size for item in self.remove)


def make_plan(
    snapshots: Sequence[Found],
    images: Sequence[StoredImage],
    uses: Sequence[Use],
    model_dirs: Collection[str] = (),
    asked: Collection[str] = (),
    repositories: Collection[str] = (),
    looked_into: Collection[str] = (),
) -> Plan:
    """Sort them. C(model_dirs) stay, and so do the images C(asked) for, by id.

    Of the images, those of C(repositories), and those that this collection has C(looked_into), by id, are judged; nobody else's are listed.
    """
    remove: list[Item] = []
    keep: list[Item] = []
    for found in snapshots:
        needs = _needs_snapshot(found, uses, model_dirs)
        (keep if needs else remove).append(Item("snapshot", found.path, found.size, found.what, needs or "nothing uses it"))
    ours = {_plain(name) for name in repositories}
    for image in images:
        if image.id in looked_into or ours & {_plain(repository(name)) for name in image.names}:
            needs, what = _needs_image(image, uses, asked), ", ".join(image.names) or "without a name"
            (keep if needs else remove).append(Item("image", image.id, image.size, what, needs or "no container uses it"))
    return Plan(tuple(remove), tuple(keep))


def _needs_snapshot(found: Found, uses: Sequence[Use], model_dirs: Collection[str]) -> str | None:
    if found.busy:
        return "a run is fetching into it"
    # A container may have a directory above it, or one file of it.
    users = [use.container for use in uses if any(_same_way(found.path, mount) for mount in use.mounts)]
    if users:
        return _used_by(users)
    if any(_same_way(found.path, path) for path in model_dirs):
        return "it is asked for"
    return None


def _needs_image(image: StoredImage, uses: Sequence[Use], asked: Collection[str]) -> str | None:
    users = [use.container for use in uses if use.image_id == image.id]
    if users:
        return _used_by(users)
    return "it is asked for" if image.id in asked else None


def _used_by(containers: Sequence[str]) -> str:
    """All of them, so that a reader sees whether one that serves is among them."""
    names = sorted(containers)
    return f"container {names[0]} uses it" if len(names) == 1 else f"containers {', '.join(names)} use it"


def _same_way(one: str, other: str) -> bool:
    """Is one of two paths the other, or above it? Links are followed."""
    one, other = os.path.realpath(one), os.path.realpath(other)
    return os.path.commonpath([one, other]) in (one, other)


def _plain(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")


# ---------------------------------------------------------------------------- directories
def find_snapshots(root: str) -> list[Found]:
    """The directories below C(root) that hf_snapshot made. Links are not followed. Raises OSError when one cannot be read."""
    return [_look(path) for path in sorted(_made_by_us(root, DEPTH))]


def _made_by_us(path: str, depth: int) -> Iterator[str]:
    if os.path.lexists(os.path.join(path, MARKER)) or os.path.isdir(os.path.join(path, PARTIAL)):
        yield path
    elif depth:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    yield from _made_by_us(entry.path, depth - 1)


def _look(path: str) -> Found:
    marker = read_marker(path)
    ours = [os.path.join(path, name) for name in marker.files] if marker else []
    parts = os.path.join(path, PARTIAL)
    if os.path.isdir(parts):
        ours += [entry.path for entry in os.scandir(parts)]
    size = 0
    for name in ours:
        with contextlib.suppress(FileNotFoundError):
            size += os.lstat(name).st_blocks * 512
    what = f"{marker.repo} at {marker.revision}, commit {marker.commit[:12]}" if marker else "a download that did not end"
    try:
        with alone(path):
            return Found(path, what, size)
    except SnapshotError:
        return Found(path, what, size, busy=True)


def remove_snapshot(path: str, root: str) -> None:
    """Remove what hf_snapshot brought to a directory, and the directories below C(root) that this leaves empty; other files stay.

    The marker goes last, so that a removal that was interrupted is found again. Raises SnapshotError when a run fetches into it, OSError.
    """
    with alone(path):
        marker = read_marker(path)
        for name in marker.files if marker else ():
            remove_file(path, name)
        remove_parts(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(path, MARKER))
    while os.path.realpath(path) != os.path.realpath(root):
        try:
            os.rmdir(path)
        except OSError:
            return  # not empty
        path = os.path.dirname(path)
