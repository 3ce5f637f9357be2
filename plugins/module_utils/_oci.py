# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""From the digest of an image to its bytes: index → manifest of one architecture → configuration and layers.

Each of these documents is named by its own sha256, so whoever has them follows a digest without believing anybody, and without a registry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ChainError(Exception):
    """A digest cannot be followed. The message names the document and what is wrong with it."""


@dataclass(frozen=True)
class Chain:
    """What a digest stands for on one architecture. All are C(sha256:…); C(layers) are those of the registry, which are compressed.

    Docker's own store calls an image by C(config), containerd's by C(manifest) or C(digest).
    """

    digest: str
    manifest: str
    config: str
    layers: tuple[str, ...]


def architecture(machine: str) -> str:
    """Docker's name of an architecture that the kernel calls C(machine)."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def here() -> str:
    """The architecture of this machine, by Docker's name."""
    return architecture(os.uname().machine)


def digest_of(content: bytes) -> str:
    """What a document is called."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def collect(digest: str, architecture: str, fetch: Callable[[str], bytes]) -> dict[str, str]:
    """The documents from a digest to the manifest of an architecture: digest → text. Raises ChainError, and what C(fetch) raises."""
    documents = {digest: fetch(digest).decode("utf-8", "replace")}
    below = _below(_document(digest, documents), architecture)
    if below:
        documents[below] = fetch(below).decode("utf-8", "replace")
    follow(digest, documents, architecture)
    return documents


def follow(digest: str, documents: Mapping[str, str], architecture: str) -> Chain:
    """The chain of a digest, proven by its documents (digest → text). C(architecture) is Docker's name. Raises ChainError."""
    manifest = digest
    below = _below(_document(digest, documents), architecture)
    if below:
        manifest = below
    document = _document(manifest, documents)
    try:
        config, layers = document["config"]["digest"], tuple(layer["digest"] for layer in document["layers"])
    except (KeyError, TypeError) as exc:
        raise ChainError(f"the document {manifest} is no manifest of an image") from exc
    for name in (config, *layers):
        if not isinstance(name, str) or not _DIGEST.fullmatch(name):
            raise ChainError(f"the manifest {manifest} names {name!r}, which is no sha256")
    return Chain(digest, manifest, config, layers)


def _document(digest: str, documents: Mapping[str, str]) -> Any:
    text = documents.get(digest)
    if text is None:
        raise ChainError(f"the document {digest} is missing")
    found = digest_of(text.encode("utf-8"))
    if found != digest:
        raise ChainError(f"the document that is called {digest} is {found}")
    try:
        return json.loads(text)
    except ValueError as exc:
        raise ChainError(f"the document {digest} is no JSON") from exc


def _below(document: Any, architecture: str) -> str | None:
    """The manifest of one architecture in an index; None when the document is no index."""
    entries = document.get("manifests") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    platforms = [(entry.get("platform") or {}, entry.get("digest")) for entry in entries if isinstance(entry, dict)]
    for platform, digest in platforms:
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture) and isinstance(digest, str):
            return digest
    known = ", ".join(sorted({str(platform.get("architecture")) for platform, _digest in platforms} - {"unknown"})) or "none"
    raise ChainError(f"the image is not built for linux/{architecture} (it is for: {known})")
