# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Is an archive of `docker save` the image that a digest names? Read and proven before Docker sees it.

Engines write two forms, and both may lie in one archive: Docker's own (manifest.json) and OCI's (index.json). An engine may load from
either, so whatever is there must lead to the same configuration and the same layers, plain or as the registry compresses them.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._oci import Chain, digest_of

_BLOCK = 1024 * 1024
_MAX_JSON = 32 * 1024 * 1024  # bytes; a configuration has some kilobytes


class ArchiveError(Exception):
    """The archive is not what it should be. The message says what is wrong with which part."""


class Archive:
    """An archive of one image. C(count) hears of bytes that were read."""

    def __init__(self, tar: tarfile.TarFile, count: Callable[[int], None] = lambda read: None) -> None:
        self._tar = tar
        self._count = count
        self._hashes: dict[int, str] = {}  # of what begins at an offset
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in tar:
            name = posixpath.normpath(member.name)
            if name.startswith(("/", "..")) or not (member.isreg() or member.isdir() or member.issym()):
                raise ArchiveError(f"it has a part {member.name}, which no image has")
            self._members[name] = member
        links = {name for name, member in self._members.items() if member.issym()}
        for name in self._members:
            parent = posixpath.dirname(name)
            if parent in links:
                raise ArchiveError(f"its part {name} lies behind a link")

    def check(self, chain: Chain, name: str, have: Sequence[str] = ()) -> None:
        """It is exactly the image of a chain, and would be loaded under this name alone. Raises ArchiveError, tarfile.TarError, OSError.

        C(have) are the lowest layers that the engine has, plain; those may lack.
        """
        entry = self._entry()
        # Some engines write the registry's name before it, where it is Docker Hub's.
        if [_familiar(str(tag)) for tag in entry.get("RepoTags") or []] != [_familiar(name)]:
            raise ArchiveError(f"it would be loaded as {entry.get('RepoTags')} and not as {name}")
        config = self._read(str(entry.get("Config")))
        if digest_of(config) != chain.config:
            raise ArchiveError(f"its configuration is {digest_of(config)}, that of the image is {chain.config}")
        plain = _plain(config)
        layers = entry.get("Layers") or []
        if not len(layers) == len(plain) == len(chain.layers):
            raise ArchiveError(f"it has {len(layers)} layers, the image has {len(chain.layers)}")
        here = len(common(plain, [have]))
        for number, layer in enumerate(layers):
            if number >= here or posixpath.normpath(str(layer)) in self._members:
                self._same_layer(self._hash(str(layer)), number, plain, chain)
        if "index.json" in self._members:
            self._check_index(plain, chain)

    def layers(self) -> list[tuple[str, tarfile.TarInfo]]:
        """Its layers from the lowest on: what each is called, plain, and the member that it is.

        Raises ArchiveError, tarfile.TarError, OSError.
        """
        entry = self._entry()
        names = [str(name) for name in entry.get("Layers") or []]
        plain = _plain(self._read(str(entry.get("Config"))))
        if len(plain) != len(names):
            raise ArchiveError(f"it has {len(names)} layers, its configuration has {len(plain)}")
        return [(digest, self._member(name)) for digest, name in zip(plain, names, strict=True)]

    def _entry(self) -> dict[str, Any]:
        listed = self._json("manifest.json")
        if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
            raise ArchiveError("it is not the archive of one image")
        return listed[0]

    def _check_index(self, plain: Sequence[str], chain: Chain) -> None:
        for entry in self._json("index.json").get("manifests") or []:
            digest = str(entry.get("digest"))
            path = f"blobs/{digest.replace(':', '/', 1)}"
            if path in self._members and self._hash(path) != digest:
                raise ArchiveError(f"its part {path} is {self._hash(path)}")
            if digest in (chain.digest, chain.manifest):
                continue
            # An engine that keeps layers as they lie on its disk writes a manifest of its own for them.
            document = self._json(path)
            layers = document.get("layers") or []
            if (document.get("config") or {}).get("digest") != chain.config or len(layers) != len(plain):
                raise ArchiveError(f"its manifest {digest} is that of another image")
            for number, layer in enumerate(layers):
                self._same_layer(str(layer.get("digest")), number, plain, chain)

    def _same_layer(self, found: str, number: int, plain: Sequence[str], chain: Chain) -> None:
        if found not in (plain[number], chain.layers[number]):
            raise ArchiveError(f"its layer {number + 1} is {found}, that of the image is {plain[number]}")

    def _member(self, name: str) -> tarfile.TarInfo:
        member = self._members.get(posixpath.normpath(name))
        # Layers with the same content are links to the first.
        if member is not None and member.issym():
            member = self._members.get(posixpath.normpath(posixpath.join(posixpath.dirname(member.name), member.linkname)))
        if member is None or not member.isreg():
            raise ArchiveError(f"its part {name} is missing")
        return member

    def _read(self, name: str) -> bytes:
        member = self._member(name)
        stream = self._tar.extractfile(member)
        if member.size > _MAX_JSON or stream is None:
            raise ArchiveError(f"its part {name} has {member.size} bytes")
        return stream.read()

    def _json(self, name: str) -> Any:
        return _parsed(self._read(name), f"its part {name}")

    def _hash(self, name: str) -> str:
        member = self._member(name)
        if member.offset_data not in self._hashes:
            sha256, stream = hashlib.sha256(), self._tar.extractfile(member)
            while stream and (block := stream.read(_BLOCK)):
                sha256.update(block)
                self._count(len(block))
            self._hashes[member.offset_data] = f"sha256:{sha256.hexdigest()}"
        return self._hashes[member.offset_data]


def common(layers: Sequence[str], stacks: Iterable[Sequence[str]]) -> list[str]:
    """The lowest layers that an image shares with one of C(stacks): of all of them the most."""
    return max((list(posixpath.commonprefix([list(layers), list(stack)])) for stack in stacks), key=len, default=[])


def _plain(config: bytes) -> list[str]:
    """The layers of a configuration, as they are when nothing compresses them."""
    return list(_parsed(config, "its configuration").get("rootfs", {}).get("diff_ids") or [])


def _familiar(name: str) -> str:
    return name.removeprefix("docker.io/").removeprefix("library/")


def _parsed(content: bytes, what: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as exc:
        raise ArchiveError(f"{what} is no JSON") from exc


def check(path: str, chain: Chain, name: str, count: Callable[[int], None] = lambda read: None, have: Sequence[str] = ()) -> None:
    """The archive is the image of a chain, to be loaded under C(name). C(have) are the lowest layers, if they may lack.

    Raises ArchiveError, OSError.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            Archive(tar, count).check(chain, name, have)
    except tarfile.TarError as exc:
        raise ArchiveError(f"it cannot be read ({exc})") from exc
