# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Images that came in an archive: Docker knows no digest of them, so the digest that an archive was proven to have is kept here.

Root only, as Docker's own record of digests is.
"""

from __future__ import annotations

import contextlib
import json
import os

from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file

DIRECTORY = "/var/lib/dgx-spark/loaded"


def remember(digest: str, image_id: str) -> None:
    """The engine calls by this id what the digest names. Raises OSError."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_record(digest))
    replace_file(_record(digest), json.dumps({"id": image_id}) + "\n", mode=0o600)


def is_proven(digest: str, image_id: str) -> bool:
    """Was the image with this id proven to be what the digest names?"""
    try:
        with open(_record(digest), encoding="utf-8") as file:
            return bool(json.load(file)["id"] == image_id)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def proven_digest(image_id: str) -> str | None:
    """A digest that the image with this id was proven to have; None when there is none."""
    try:
        known = [f"sha256:{name.removesuffix('.json')}" for name in sorted(os.listdir(DIRECTORY)) if name.endswith(".json")]
    except OSError:
        return None
    return next((digest for digest in known if is_proven(digest, image_id)), None)


def _record(digest: str) -> str:
    return os.path.join(DIRECTORY, f"{digest.partition(':')[2]}.json")
