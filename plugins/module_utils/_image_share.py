# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""An image that travels between boxes: one gives its archive to the others, which prove it by its digest as they would a bundle's.

It is given in parts, so that a box takes only the layers that it lacks. The giver's archive has no name on its disk, so nothing of it is
left however the process ends. What a taker has of it is removed with it, or by the next look.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from ansible_collections.dgx.spark.plugins.module_utils._archive import ArchiveError, common
from ansible_collections.dgx.spark.plugins.module_utils._archive_parts import add, split
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine
from ansible_collections.dgx.spark.plugins.module_utils._fetch import alone
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, split_digest
from ansible_collections.dgx.spark.plugins.module_utils._load import Carried, check_room, load
from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace, amount
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding, Swarm
from ansible_collections.dgx.spark.plugins.module_utils._save import documents, save
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import digests
from ansible_collections.dgx.spark.plugins.module_utils._torrent import SMALL, piece_length

DIRECTORY = "/var/lib/dgx-spark/fleet"
LOOK_S = 0.5
SILENCE_S = 60  # without a byte, then aria2 connects again; after twice that the fleet is given up

# The options of the module that its two halves share; C(archive), C(part) and C(progress_file) are for the module half alone.
OPTIONS: dict[str, Any] = {
    "image": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 7200},
    "size_gb": {"type": "float", "default": 0.0},
    "bundle": {"type": "str"},
    "share": {"type": "bool", "default": False},
    "peer_ports": {"type": "str", "default": "6881-6889"},
    "peer_address": {"type": "str"},
}


@dataclass(frozen=True)
class Part:
    """A part of an archive that another box gives: its content's sha256, and its C(size) in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class OfferedLayer(Part):
    """A layer. C(name) is that of its member in the archive, C(plain) its digest before anything compresses it."""

    name: str
    plain: str


@dataclass(frozen=True)
class Offered:
    """An archive that another box gives. C(documents) prove C(digest), as a bundle's do; C(layers) are from the lowest on.

    Only the documents are believed: what the rest makes of the archive is proven by them.
    """

    digest: str
    documents: Mapping[str, str]
    frame: Part
    layers: Sequence[OfferedLayer]

    @classmethod
    def read(cls, document: Mapping[str, Any], digest: str | None) -> Offered:
        """What the giver has told; C(digest) is the one that is asked, whatever the giver says that it has. Raises ImageError."""
        frame, layers = Part(**document["frame"]), [OfferedLayer(**layer) for layer in document["layers"]]
        for part in (frame, *layers):
            # Its file is called so.
            if not re.fullmatch(r"[0-9a-f]{64}", part.sha256):
                raise ImageError(f"a part of the image that another box gives is called {part.sha256!r}, which is no sha256")
        return cls(digest or document["digest"], document["documents"], frame, layers)


@dataclass(frozen=True)
class Fetched(Carried):
    """The archive while it comes: its frame, into which the layers that this box lacks are put."""

    @property
    def path(self) -> str:
        return os.path.join(DIRECTORY, self.sha256)


def _there(parts: Mapping[str, int]) -> int:
    """Bytes that have come of C(parts), sha256 → size: what the disk has, not the length, for aria2 writes at several places at once."""
    there = 0
    for sha256, size in parts.items():
        with contextlib.suppress(FileNotFoundError):
            there += min(size, os.stat(os.path.join(DIRECTORY, sha256)).st_blocks * 512)
    return there


def clear() -> None:
    """Remove what a taker that was killed has left, unless one is at it just now. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, SnapshotError), alone(DIRECTORY):
        shutil.rmtree(DIRECTORY)


def give(
    engine: Engine,
    name: str,
    digest: str,
    seed: Seed,
    timeout: float,
    told: dict[str, Any],
    goes_on: Callable[[], bool],
    tell: Callable[[str], None],
) -> None:
    """Offer an image as long as C(goes_on), for at most C(timeout) seconds; C(told) is for the controller: where, and what it is.

    Raises ImageError, ArchiveError, ChainError, RegistryError, EngineError, OSError.
    """
    end = time.monotonic() + timeout
    proof = documents(engine, name, digest)
    parent = os.path.dirname(DIRECTORY)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    with tempfile.TemporaryFile(dir=parent) as archive, tempfile.TemporaryFile(dir=parent) as frame:
        save(engine, name, digest, archive, parent, tell, timeout)
        size = os.fstat(archive.fileno()).st_size
        tell(f"reading the archive of {name}, {amount(size)}")
        layers = split(_path(archive), frame)
        framed = _offer(seed, name, _path(frame), 0, os.fstat(frame.fileno()).st_size)
        parts = {layer.name: _offer(seed, f"{name} {layer.name}", _path(archive), layer.start, layer.size) for layer in layers}
        seed.ended = True
        offered = [OfferedLayer(parts[layer.name].sha256, layer.size, layer.name, layer.plain) for layer in layers]
        told.update(url=seed.url, about=asdict(Offered(digest, proof, framed, offered)))
        while goes_on() and time.monotonic() < end:
            tell(f"{name} is here; {amount(seed.sent)} given to other boxes")
            time.sleep(LOOK_S)


def _path(stream: IO[bytes]) -> str:
    """A file that has no name."""
    return f"/proc/self/fd/{stream.fileno()}"


def _offer(seed: Seed, name: str, path: str, start: int, size: int) -> Part:
    """Give a part of a file. Raises OSError."""
    found = digests(path, git=False, piece=piece_length(size) if size >= SMALL else 0, start=start, size=size)
    seed.offer(RepoFile(name, size, found.sha256, None), path, found.pieces, start)
    return Part(found.sha256, size)


def take(
    engine: Engine,
    reference: str,
    offered: Offered,
    seeding: Seeding,
    timeout: float,
    tell: Callable[[str], None],
    count: Callable[[int], None],
) -> None:
    """Fetch from the fleet what this box lacks of an archive, prove it and load it; C(count) hears of the bytes that came.

    Nothing of it stays here. Raises PeersLost, SnapshotError, ImageError, EngineError, Aria2Missing, OSError.
    """
    name, digest = split_digest(reference)
    have = common([layer.plain for layer in offered.layers], engine.layers())
    # Several layers may be one member: those that are empty are.
    lacking = {layer.name: layer for layer in offered.layers[len(have) :]}
    parts = {part.sha256: part.size for part in (offered.frame, *lacking.values())}
    fetched = Fetched(offered.digest, offered.documents, offered.frame.sha256, sum(parts.values()), ())
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    with alone(DIRECTORY):
        try:
            for entry in list(os.scandir(DIRECTORY)):
                os.unlink(entry.path)
            check_room(engine, fetched, beside=max((layer.size for layer in lacking.values()), default=0))
            shared = f" ({len(have)} of {len(offered.layers)} layers are here)" if have else ""
            try:
                _fetch(name, parts, seeding, timeout, lambda pace: tell(f"taking {name} from the fleet{shared}: {pace}"))
            finally:
                count(_there(parts))
            _put_together(name, fetched, lacking)
            image = load(engine, name, fetched, tell, have)
            if digest is None:
                # What is asked by a tag is looked for by it.
                engine.tag(image.id, name)
        finally:
            shutil.rmtree(DIRECTORY)


def _fetch(name: str, parts: Mapping[str, int], seeding: Seeding, timeout: float, tell: Callable[[str], None]) -> None:
    files = {sha256: RepoFile(f"a part of {name}", size, sha256, None) for sha256, size in parts.items()}
    pace, began = Pace(sum(parts.values())), time.monotonic()
    with Swarm(seeding, DIRECTORY, SILENCE_S) as swarm:
        while swarm.complete < files.keys():
            swarm.step(files)
            tell(pace.at(_there(parts)))
            if pace.silence() > 2 * SILENCE_S:
                raise PeersLost(f"no byte of {name} came from the fleet for {2 * SILENCE_S} s")
            if time.monotonic() - began > timeout:
                raise PeersLost(f"{name} did not come from the fleet within {timeout:g} s: {pace.at(_there(parts))}")
            time.sleep(LOOK_S)


def _put_together(name: str, fetched: Fetched, layers: Mapping[str, OfferedLayer]) -> None:
    """Put the layers into the frame. Raises ImageError, OSError."""
    last = {layer.sha256: member for member, layer in layers.items()}
    try:
        for member, layer in layers.items():
            path = os.path.join(DIRECTORY, layer.sha256)
            add(fetched.path, member, path)
            if last[layer.sha256] == member:
                os.unlink(path)
    except ArchiveError as exc:
        raise ImageError(f"the archive of {name} is not the image {fetched.digest}: {exc}. It was removed and not loaded") from exc
