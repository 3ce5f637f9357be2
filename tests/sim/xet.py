# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Xet, as a client sees it that downloads: how a file is cut into xorbs, their bytes, and the answer that puts the file together again.

A xorb is a run of chunks, each behind a header of eight bytes: version, length as stored (3 bytes), compression, length (3 bytes), little
endian. The real storage cuts where the content says, packs chunks of several files into one xorb, stores what it knows once and compresses;
the hashes are Merkle trees over BLAKE3. Here a file has xorbs of its own, chunks of one length and no compression, so every byte of it
crosses the wire once, and a hash is only a name: clients take both as they come. Source: huggingface.co/docs/xet. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = 8
STORED = 64 * 1024  # a chunk with its header; the real ones are 64 KiB on average and 128 KiB at most
CHUNK = STORED - HEADER
XORB_CHUNKS = 1024  # the real limit of a xorb is 64 MiB
XORB = XORB_CHUNKS * CHUNK


def file_hash(sha256: str) -> str:
    """The name of a file's content in Xet, 64 hexadecimal digits."""
    return hashlib.sha256(f"xet file {sha256}".encode()).hexdigest()


@dataclass(frozen=True)
class Xorb:
    """A xorb that holds C(length) bytes of a file, from C(start) on."""

    hash: str
    source: Path
    start: int
    length: int

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return -(-self.length // CHUNK)

    @property
    def size(self) -> int:
        """Bytes with all headers. What a real one has behind its last chunk is never fetched."""
        return self.length + HEADER * self.chunks

    def open(self) -> XorbStream:
        """Its bytes."""
        return XorbStream(self)


class XorbStream(io.BufferedIOBase):
    """The bytes of a xorb, made of its file's while they are read. A read ends with its chunk at the latest."""

    def __init__(self, xorb: Xorb) -> None:
        super().__init__()
        self._xorb = xorb
        self._file = xorb.source.open("rb")
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning."""
        self._at = offset
        return offset

    def read(self, size: int | None = -1) -> bytes:
        """At most so many bytes, of one chunk; none at the end."""
        number, skipped = divmod(self._at, STORED)
        start = number * CHUNK
        length = min(CHUNK, self._xorb.length - start)
        if length <= 0:
            return b""
        wanted = HEADER + length - skipped if size is None or size < 0 else min(size, HEADER + length - skipped)
        header = (b"\0" + length.to_bytes(3, "little") + b"\0" + length.to_bytes(3, "little"))[skipped : skipped + wanted]
        self._file.seek(self._xorb.start + start + max(0, skipped - HEADER))
        data = header + self._file.read(wanted - len(header))
        self._at += len(data)
        return data

    def close(self) -> None:
        """Close the file, too."""
        self._file.close()
        super().close()


def xorbs(sha256: str, source: Path, size: int) -> list[Xorb]:
    """The xorbs of a file, in its order."""
    starts = range(0, size, XORB)
    names = [hashlib.sha256(f"xet xorb {sha256} {start}".encode()).hexdigest() for start in starts]
    return [Xorb(name, source, start, min(XORB, size - start)) for name, start in zip(names, starts, strict=True)]


def reconstruction(parts: list[Xorb], first: int, last: int, address: Callable[[Xorb], str]) -> dict[str, Any]:
    """How bytes C(first) to C(last) of a file are put together: the answer to GET /v2/reconstructions/HASH.

    Terms are whole chunks, so the client cuts off what is before C(first) and behind C(last).
    """
    terms: list[dict[str, Any]] = []
    fetch: dict[str, list[dict[str, Any]]] = {}
    offset = 0
    for xorb in parts:
        if xorb.start > last or xorb.start + xorb.length <= first:
            continue
        begin = max(0, first - xorb.start) // CHUNK
        end = min(xorb.chunks, (last - xorb.start) // CHUNK + 1)
        offset = offset if terms else max(0, first - xorb.start) - begin * CHUNK
        length = min(end * CHUNK, xorb.length) - begin * CHUNK
        chunks = {"start": begin, "end": end}
        terms.append({"hash": xorb.hash, "unpacked_length": length, "range": chunks})
        stored = {"start": begin * STORED, "end": min(end * STORED, xorb.size) - 1}
        fetch[xorb.hash] = [{"url": address(xorb), "ranges": [{"chunks": chunks, "bytes": stored}]}]
    return {"offset_into_first_range": offset, "terms": terms, "xorbs": fetch}
