# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""BitTorrent's documents: what describes a file (BEP 3, private by BEP 27, with a web seed by BEP 19), and what a tracker answers (BEP 23).

Pure: nothing here reads a file or speaks to anybody.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = int | str | bytes | list["Value"] | Mapping[str, "Value"]

# Bytes. Small pieces travel on sooner; of a file of 5 GB, 20 bytes for each MiB would be a torrent of 100 kB.
_PIECE, _MAX_PIECE, _PIECES = 1 << 20, 1 << 24, 1500
SMALL = 4 * _PIECE  # bytes; what is smaller needs no torrent, it comes whole from the seed


@dataclass(frozen=True)
class Described:
    """A file as a torrent has it: its name and size, and the SHA-1 of its pieces, one after the other."""

    name: str
    size: int  # bytes
    pieces: bytes
    source: str  # a word that only the fleet knows: without it nobody can tell the torrent's hash from the file

    def _info(self) -> dict[str, Value]:
        piece = piece_length(self.size)
        about: dict[str, Value] = {"length": self.size, "name": self.name, "piece length": piece, "pieces": self.pieces}
        return {**about, "private": 1, "source": self.source}

    @property
    def info_hash(self) -> bytes:
        """What the torrent is called among its peers."""
        return hashlib.sha1(bencode(self._info()), usedforsecurity=False).digest()

    def torrent(self, announce: str, web_seed: str) -> bytes:
        """The torrent, for peers that reach its tracker and its web seed by these addresses."""
        return bencode({"announce": announce, "info": self._info(), "url-list": [web_seed]})


def piece_length(size: int) -> int:
    """Bytes of a piece of a file of so many bytes: a power of two."""
    length = _PIECE
    while length < _MAX_PIECE and size > length * _PIECES:
        length *= 2
    return length


def bencode(value: Value) -> bytes:
    """A value in BitTorrent's encoding; the keys of a dictionary are sorted."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str | bytes):
        text = value.encode() if isinstance(value, str) else value
        return b"%d:%s" % (len(text), text)
    if isinstance(value, list):
        return b"l%se" % b"".join(map(bencode, value))
    return b"d%se" % b"".join(bencode(key) + bencode(value[key]) for key in sorted(value))


def announced(peers: Iterable[tuple[str, int]], interval: int) -> bytes:
    """A tracker's answer: the peers (IPv4 address, port), and the seconds after which to ask again."""
    compact = b"".join(ipaddress.IPv4Address(address).packed + struct.pack(">H", port) for address, port in peers)
    return bencode({"interval": interval, "min interval": interval, "peers": compact})
