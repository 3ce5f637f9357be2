# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Hold a recipe to a lock: names become bytes, and what contradicts the lock is an error that names both."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._locked import fingerprint, locked_files
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import Document, LockError

REMEDY = "If the change is meant, renew the lock with playbooks/lock.yml; -e lock_file= runs without it"


def hold(recipe: Mapping[str, Any], lock: Document, path: str) -> dict[str, Any]:
    """The recipe with the lock's image digest, commit and sha256 of each patch, and C(lock) for the roles. C(path) is for the error.

    The weights of a commit have a directory of their own. Raises LockError.
    """
    entry = lock["recipes"].get(recipe["name"])
    if entry is None:
        known = ", ".join(sorted(lock["recipes"])) or "none"
        raise LockError(f"{path} has no recipe {recipe['name']} (it has: {known}). {REMEDY}")
    problems = list(_contradictions(recipe, entry))
    if problems:
        raise LockError(f"{path} was not written for this: {'; '.join(problems)}. {REMEDY}")
    model, locked = recipe["model"], entry["model"]
    return {
        **recipe,
        "image": {**recipe["image"], "digest": entry["image"]["digest"]},
        "model": {
            **model,
            "revision": locked["commit"],
            "path": posixpath.join(posixpath.dirname(model["path"]), locked["commit"]),
        },
        "patches": [{**patch, "sha256": entry["patches"][patch["file"]]} for patch in recipe["patches"]],
        "lock": {
            "file": path,
            "model": {
                "commit": locked["commit"],
                "files": locked["files"],
                "fingerprint": fingerprint(locked_files(locked["files"])),
            },
            "toolkit": dict(lock["toolkit"]),
        },
    }


def _contradictions(recipe: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterable[str]:
    image, model, locked = recipe["image"], recipe["model"], entry["model"]
    for what, asked, has in (
        ("image", image["name"], [entry["image"]["name"]]),
        ("repository", model["repo"], [locked["repo"]]),
        ("revision", model["revision"], [locked["revision"], locked["commit"]]),
    ):
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


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
