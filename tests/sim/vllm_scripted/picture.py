# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks at the pictures of a request: plain PNGs as data: URLs, which it decodes itself."""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

_COLOURS = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "orange": (255, 165, 0),
    "purple": (128, 0, 128),
}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class PictureError(ValueError):
    """What was sent is no picture that can be decoded."""


def urls(body: Mapping[str, Any]) -> list[str]:
    """The addresses of a request's pictures, in their order."""
    messages = body.get("messages") or []
    contents = [message.get("content") for message in messages if isinstance(message, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    return [str((part.get("image_url") or {}).get("url")) for part in parts if part.get("type") == "image_url"]


def colour(url: str) -> str:
    """The name of the colour that is nearest to the mean of a picture's pixels. Raises PictureError."""
    kind, comma, data = url.partition(";base64,")
    if not comma or kind != "data:image/png":
        raise PictureError(f"only data:image/png;base64 can be loaded here, not {url[:40]}")
    try:
        pixels = _pixels(base64.b64decode(data, validate=True))
    except (binascii.Error, struct.error, zlib.error) as error:
        raise PictureError("cannot identify image file") from error
    mean = [sum(pixels[channel::3]) / (len(pixels) // 3) for channel in range(3)]
    return min(_COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(mean, _COLOURS[name], strict=True)))


def _pixels(png: bytes) -> bytes:
    """Red, green and blue of every pixel, a byte each."""
    chunks = dict(_chunks(png))
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if form != [8, 2, 0, 0, 0] or not width or not height:
        raise PictureError("only RGB with eight bits a channel is understood")
    rows = zlib.decompress(chunks.get(b"IDAT", b""))
    stride = 1 + 3 * width
    if len(rows) != stride * height or any(rows[::stride]):
        raise PictureError("image file is truncated, or its rows are filtered")
    return b"".join(rows[start + 1 : start + stride] for start in range(0, len(rows), stride))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not png.startswith(_SIGNATURE):
        raise PictureError("cannot identify image file")
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data, check = png[at + 8 : at + 8 + length], png[at + 8 + length : at + 12 + length]
        if struct.pack(">I", zlib.crc32(kind + data)) != check:
            raise PictureError("broken PNG file: wrong checksum")
        yield kind, data
        at += 12 + length
