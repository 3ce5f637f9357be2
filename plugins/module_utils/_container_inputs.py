# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Read from the box what a container's spec names: the image, the snapshots of the models, the patches; and check that they fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine
from ansible_collections.dgx.spark.plugins.module_utils._container_spec import (
    ContainerSpec,
    NotStaged,
    Patch,
    Snapshot,
    check_patch_version,
    patch_sha256,
    read_snapshot,
    resolve,
)
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageInfo, ImageMissing, check_version, inspect


@dataclass(frozen=True)
class Inputs:
    """The resolved spec, its image, and what is not on the box yet: one sentence each, empty unless C(forgive) was asked."""

    resolved: dict[str, Any]
    image: ImageInfo | None
    missing: tuple[str, ...]


def read_inputs(engine: Engine, spec: ContainerSpec, api_key: str, like: Mapping[str, Any] | None, forgive: bool) -> Inputs:
    """Resolve a spec against this box. C(like) is the resolved spec that it will be compared with.

    With C(forgive) (check mode, where nothing has been staged yet) things that are not there are listed instead of raised, and nothing
    is written. An image that contains the wrong vLLM, or one that a patch is not for, is refused in any case.
    Raises SpecError, ImageError, EngineError.
    """
    missing: list[str] = []
    image = None
    try:
        image = inspect(engine, spec.image, spec.digest, keep=not forgive)
    except ImageMissing as exc:
        if not forgive:
            raise
        missing.append(str(exc))
    if image is not None:
        check_version(image, spec.vllm_versions)
        for patch in spec.patches:
            check_patch_version(patch, image)
    forgiven = missing if forgive else None
    snapshot = _snapshot(spec.model_path, forgiven)
    draft = _snapshot(spec.draft_path, forgiven) if spec.draft_path else None
    hashes = [_hash(patch, spec.model_path, forgiven) for patch in spec.patches]
    resolved = resolve(spec, image, snapshot, hashes, api_key, like["salt"] if like else None, draft)
    return Inputs(resolved, image, tuple(missing))


def _snapshot(path: str, missing: list[str] | None) -> Snapshot | None:
    try:
        return read_snapshot(path)
    except NotStaged as exc:
        if missing is None:
            raise
        missing.append(str(exc))
        return None


def _hash(patch: Patch, model_path: str, missing: list[str] | None) -> str | None:
    try:
        return patch_sha256(patch, model_path)
    except NotStaged as exc:
        if missing is None:
            raise
        missing.append(str(exc))
        return None
