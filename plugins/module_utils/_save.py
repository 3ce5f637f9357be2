# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""An image of this box as others can have it: the archive of `docker save`, and the documents of its registry that prove it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, find, loaded_name, repository
from ansible_collections.dgx.spark.plugins.module_utils._oci import collect, here
from ansible_collections.dgx.spark.plugins.module_utils._pace import Pace
from ansible_collections.dgx.spark.plugins.module_utils._registry import Registry
from ansible_collections.dgx.spark.plugins.module_utils._room import too_little


def documents(engine: Engine, name: str, digest: str) -> dict[str, str]:
    """Digest → text of what the registry says of an image. Raises ChainError, RegistryError, EngineError."""
    return collect(digest, here(), Registry(engine.registry_access(repository(name))).document)


def save(engine: Engine, name: str, digest: str, stream: IO[bytes], directory: str, tell: Callable[[str], None], timeout: float) -> None:
    """Write an image's archive into a file of a directory. The image gets one more name. Raises ImageError, EngineError, OSError."""
    local, _name = find(engine, f"{name}@{digest}")
    size, began = engine.size(local.id), time.monotonic()
    # Docker writes it to its own disk first.
    if lack := too_little({directory: size, engine.root(): size}):
        raise ImageError(f"the archive of {name} needs {lack}: make room there")
    tag = loaded_name(name, digest)
    engine.tag(local.id, tag)
    tell(f"saving {name}: Docker prepares it")
    pace, told, done = Pace(size), began, 0
    for piece in engine.save(tag):
        stream.write(piece)
        done += len(piece)
        if time.monotonic() - began > timeout:
            raise ImageError(f"the archive of {name} was not saved within {timeout:g} s: {pace.at(done)}")
        if time.monotonic() - told >= 0.5:
            told = time.monotonic()
            tell(f"saving {name}: {pace.at(done)}")
    stream.flush()
