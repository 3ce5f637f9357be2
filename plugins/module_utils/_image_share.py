# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""An image that travels between boxes: one gives its archive to the others, which prove it by its digest as they would a bundle's.

The giver's archive has no name on its disk, so nothing of it is left however the process ends. What a taker has of it is removed with it,
or by the next look.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine
from ansible_collections.dgx.spark.plugins.module_utils._fetch import alone
from ansible_collections.dgx.spark.plugins.module_utils._image import split_digest
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
class Offered(Carried):
    """An archive that another box gives."""

    @property
    def path(self) -> str:
        return os.path.join(DIRECTORY, self.sha256)

    def there(self) -> int:
        """Bytes that have come. aria2 writes at several places at once, so it is what the disk has, not the length."""
        try:
            return min(self.size, os.stat(self.path).st_blocks * 512)
        except OSError:
            return 0


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

    Raises ImageError, ChainError, RegistryError, EngineError, OSError.
    """
    end = time.monotonic() + timeout
    proof = documents(engine, name, digest)
    parent = os.path.dirname(DIRECTORY)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    with tempfile.TemporaryFile(dir=parent) as stream:
        save(engine, name, digest, stream, parent, tell, timeout)
        path, size = f"/proc/self/fd/{stream.fileno()}", os.fstat(stream.fileno()).st_size
        tell(f"reading the archive of {name}, {amount(size)}")
        found = digests(path, git=False, piece=piece_length(size) if size >= SMALL else 0)
        seed.offer(RepoFile(name, size, found.sha256, None), path, found.pieces)
        seed.ended = True
        told.update(url=seed.url, about=asdict(Offered(digest, proof, found.sha256, size, ())))
        while goes_on() and time.monotonic() < end:
            tell(f"{name} is here; {amount(seed.sent)} given to other boxes")
            time.sleep(LOOK_S)


def take(
    engine: Engine,
    reference: str,
    offered: Offered,
    seeding: Seeding,
    timeout: float,
    tell: Callable[[str], None],
    count: Callable[[int], None],
) -> None:
    """Fetch an archive from the fleet, prove it and load it; C(count) hears of the bytes that came. Nothing of it stays here.

    Raises PeersLost, SnapshotError, ImageError, EngineError, Aria2Missing, OSError.
    """
    name, digest = split_digest(reference)
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    with alone(DIRECTORY):
        try:
            for entry in list(os.scandir(DIRECTORY)):
                os.unlink(entry.path)
            check_room(engine, offered)
            try:
                _fetch(name, offered, seeding, timeout, tell)
            finally:
                count(offered.there())
            image = load(engine, name, offered, tell)
            if digest is None:
                # What is asked by a tag is looked for by it.
                engine.tag(image.id, name)
        finally:
            shutil.rmtree(DIRECTORY)


def _fetch(name: str, offered: Offered, seeding: Seeding, timeout: float, tell: Callable[[str], None]) -> None:
    file, pace, began = RepoFile(f"the archive of {name}", offered.size, offered.sha256, None), Pace(offered.size), time.monotonic()
    with Swarm(seeding, DIRECTORY, SILENCE_S) as swarm:
        while file.digest not in swarm.complete:
            swarm.step({file.digest: file})
            tell(f"taking {name} from the fleet: {pace.at(offered.there())}")
            if pace.silence() > 2 * SILENCE_S:
                raise PeersLost(f"no byte of {file.path} came from the fleet for {2 * SILENCE_S} s")
            if time.monotonic() - began > timeout:
                raise PeersLost(f"{file.path} did not come from the fleet within {timeout:g} s: {pace.at(offered.there())}")
            time.sleep(LOOK_S)
