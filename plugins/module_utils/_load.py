# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""An image that is carried to the box as an archive: taken up where an earlier run ended, proven by its digest, then loaded."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _archive, _loaded
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine, LocalImage
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, loaded_name
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError, follow, here
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace, amount
from ansible_collections.dgx.spark.plugins.module_utils._room import too_little

DIRECTORY = "/var/lib/dgx-spark/bundle"


@dataclass(frozen=True)
class Carried:
    """An archive of an image with the documents that prove it: C(documents) are digest → text, C(size) is in bytes.

    C(bundle) are the sha256 of all archives of its bundle.
    """

    digest: str
    documents: Mapping[str, str]
    sha256: str
    size: int
    bundle: Sequence[str]

    @property
    def path(self) -> str:
        """Where it lies on the box until it is loaded; named by its content, so a part of another archive is never continued."""
        return os.path.join(DIRECTORY, f"{self.sha256}.tar")

    @property
    def have(self) -> int:
        """Bytes of it that are here."""
        try:
            size = os.path.getsize(self.path)
        except OSError:
            return 0
        return size if size <= self.size else 0


def prepare(engine: Engine, carried: Carried) -> None:
    """The archive may come: its directory is there, and there is room for it and for what is made of it. Raises ImageError, OSError."""
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    for entry in list(os.scandir(DIRECTORY)):
        # What never ended, of a bundle that is another one by now.
        if entry.name.endswith(".tar") and entry.name.removesuffix(".tar") not in carried.bundle:
            os.unlink(entry.path)
    check_room(engine, carried)


def check_room(engine: Engine, carried: Carried, beside: int = 0) -> None:
    """Raises ImageError when there is no room for the rest of an archive, for C(beside) and for what is made of it, OSError."""
    # While Docker loads an archive it unpacks it beside its layers.
    if lack := too_little({os.path.dirname(carried.path): carried.size - carried.have + beside, engine.root(): 2 * carried.size}):
        raise ImageError(
            f"the image needs {lack} while it is loaded: make room there ('docker system df', playbooks/clean.yml). Nothing was copied"
        )


def load(engine: Engine, name: str, carried: Carried, tell: Callable[[str], None], have: Sequence[str] = ()) -> LocalImage:
    """Prove the archive, load it, note what it is, and return the image. A wrong archive is removed.

    It may lack C(have), the lowest layers, which the engine has.

    Raises ImageError, EngineError, OSError.
    """
    tag, pace, done, told = loaded_name(name, carried.digest), Pace(carried.size), 0, time.monotonic()

    def count(read: int) -> None:
        nonlocal done, told
        done += read
        if time.monotonic() - told >= 0.5:
            told = time.monotonic()
            tell(f"verifying the archive of {name}: {pace.at(done)}")

    try:
        chain = follow(carried.digest, carried.documents, here())
        _archive.check(carried.path, chain, tag, count, have)
    except ChainError as exc:
        raise ImageError(f"the image {name} is not {carried.digest}: {exc}. It was not loaded") from exc
    except _archive.ArchiveError as exc:
        os.unlink(carried.path)
        raise ImageError(f"the archive of {name} is not the image {carried.digest}: {exc}. It was removed and not loaded") from exc
    tell(f"loading {name}")
    with open(carried.path, "rb") as archive:
        for event in engine.load(archive):
            if event.get("error"):
                raise ImageError(f"Docker does not load the archive of {name}: {str(event['error']).strip()}")
            tell(_words(name, event))
    image = engine.image(tag)
    if image is None:
        raise ImageError(f"Docker loaded the archive of {name} and has no image {tag}: see journalctl -u docker")
    _loaded.remember(carried.digest, image.id)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(carried.path)
    return image


def _words(name: str, event: Mapping[str, Any]) -> str:
    detail = event.get("progressDetail") or {}
    if event.get("status") == "Loading layer" and detail.get("total"):
        return f"loading {name}: {amount(detail.get('current') or 0)} of a layer of {amount(detail['total'])}"
    return f"loading {name}"
