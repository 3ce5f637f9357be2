# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Pictures of one colour, made without an imaging library: PNG as OpenAI-compatible servers take it in a chat message."""

from __future__ import annotations

import base64
import struct
import zlib

# Gemma 4's vision tower takes sides that are multiples of 48 pixels (patches of 16, pooled by 3) and resizes what is not.
_SIDE = 192


def data_url(colour: tuple[int, int, int]) -> str:
    """A square of this colour (red, green, blue from 0 to 255) as a data: URL of a few hundred bytes."""
    return "data:image/png;base64," + base64.b64encode(_png(_SIDE, colour)).decode()


def _png(side: int, colour: tuple[int, int, int]) -> bytes:
    # Eight bits a channel, RGB, not interlaced. Each row begins with its filter: none.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    row = b"\0" + bytes(colour) * side
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(row * side, 9)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
