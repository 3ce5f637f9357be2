# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Hold a recipe to a lock: names become bytes, and what contradicts the lock is an error that names both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._locked import fingerprint, locked_files
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import CHECKPOINTS, Document, LockError

REMEDY = (
    "If the change is meant, renew the lock with playbooks/lock.yml, and the bundle that it lies in with playbooks/bundle.yml;"
    " -e lock_file= runs without a lock beside the inventory"
)


def hold(recipe: Mapping[str, Any], lock: Document, path: str, toolkit: str = "") -> dict[str, Any]:
    """The recipe with the lock's image digest, commits and sha256 of each patch, and C(lock) for the roles. C(path) is for the error.

    C(toolkit) is the version of NVIDIA's container toolkit, if somebody asks for one. The weights of a commit have a directory of their
    own. Raises LockError.
    """
    entry = lock["recipes"].get(recipe["name"])
    if entry is None:
        known = ", ".join(sorted(lock["recipes"])) or "none"
        raise LockError(f"{path} has no recipe {recipe['name']} (it has: {known}). {REMEDY}")
    problems = [*_contradictions(recipe, entry), *_other_toolkit(toolkit, lock["toolkit"])]
    if problems:
        raise LockError(f"{path} was not written for this: {'; '.join(problems)}. {REMEDY}")
    there = [key for key in CHECKPOINTS if recipe[key]]
    return {
        **recipe,
        "image": {**recipe["image"], "digest": entry["image"]["digest"]},
        **{key: _at(recipe[key], entry[key]["commit"]) for key in there},
        "patches": [{**patch, "sha256": entry["patches"][patch["file"]]} for patch in recipe["patches"]],
        "lock": {
            "file": path,
            **{key: _bytes(entry[key]) for key in there},
            "toolkit": dict(lock["toolkit"]),
        },
    }


def _at(checkpoint: Mapping[str, Any], commit: str) -> dict[str, Any]:
    """A recipe's checkpoint at a commit, in a directory of its own. A revision may have slashes (`refs/pr/1`)."""
    return {**checkpoint, "revision": commit, "path": checkpoint["path"].removesuffix(checkpoint["revision"]) + commit}


def _bytes(locked: Mapping[str, Any]) -> dict[str, Any]:
    return {"commit": locked["commit"], "files": locked["files"], "fingerprint": fingerprint(locked_files(locked["files"]))}


def _contradictions(recipe: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterable[str]:
    image = recipe["image"]
    asked_and_had = [("image", image["name"], [entry["image"]["name"]])]
    for key, of in zip(CHECKPOINTS, ("", " of the draft model"), strict=True):
        checkpoint, locked = recipe[key] or {}, entry.get(key) or {}
        asked_and_had += [
            (f"repository{of}", checkpoint.get("repo", "none"), [locked.get("repo", "none")]),
            (f"revision{of}", checkpoint.get("revision", "none"), [locked.get("revision", "none"), locked.get("commit", "none")]),
        ]
    for what, asked, has in asked_and_had:
        if asked not in has:
            yield f"the {what} that is asked is {asked}, the lock has {has[0]}"
    if image["digest"] is not None and image["digest"] != entry["image"]["digest"]:
        asked = image["digest"] or "none (vllm_image_digest is empty)"
        yield f"the digest that is asked is {asked}, the lock has {entry['image']['digest']}"
    files = sorted(patch["file"] for patch in recipe["patches"])
    if files != sorted(entry["patches"]):
        yield f"the patches that are asked are {_listed(files)}, the lock has {_listed(sorted(entry['patches']))}"
    for patch in recipe["patches"]:
        has = entry["patches"].get(patch["file"])
        if has and patch["sha256"] and patch["sha256"].lower() != has:
            yield f"the sha256 of {patch['file']} that is asked is {patch['sha256']}, the lock has {has}"


def _other_toolkit(asked: str, packages: Mapping[str, str]) -> Iterable[str]:
    # 1.19.0-1 is a package of the version 1.19.0.
    locked = {version.rpartition("-")[0] or version for version in packages.values()}
    if asked and locked - {asked}:
        yield f"the container_toolkit_version that is asked is {asked}, the lock has {_listed(sorted(locked))}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
