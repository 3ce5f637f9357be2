# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""One HTTP/1.1 exchange on an open socket, with the time at which each piece of the body arrived.

While bytes come in, they are only kept with their times; everything is understood afterwards. On Linux the kernel notes when a packet
arrived (SO_TIMESTAMPNS), so a client that wakes up late on a busy box still gets the right times. TLS hides that; then it is the time of
the read.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import NamedTuple

_BLOCK = 1 << 16
_HEAD = 1 << 20
# Linux's number; the socket module has no name for it.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
# The kernel's times are of the wall clock. If that was set meanwhile by more than this, the times of the reads are better.
_CLOCK_STEP_NS = 100_000
_DONE = re.compile(rb"[\r\n]data: ?\[DONE\]")


class ProtocolError(Exception):
    """What came is not HTTP."""


class Block(NamedTuple):
    """A piece of the body and when it arrived, in seconds of time.perf_counter()."""

    at: float
    data: bytes


class _Read(NamedTuple):
    """What one read gave: when, the kernel's time in nanoseconds of the wall clock (0 without one), and the bytes."""

    at: float
    stamp: int
    data: bytes


@dataclass(frozen=True)
class Answer:
    """C(sent) is when the request was sent. C(complete) says whether the body came to its end (or the stream to its C([DONE]))."""

    status: int
    headers: Message
    blocks: tuple[Block, ...]
    sent: float
    complete: bool

    @property
    def body(self) -> bytes:
        return b"".join(block.data for block in self.blocks)


class Incomplete(Exception):
    """The exchange broke or took too long. C(answer) is what came of it, None before the end of the headers."""

    def __init__(self, cause: Exception, answer: Answer | None, waited: float) -> None:
        super().__init__(str(cause) or type(cause).__name__)
        self.cause, self.answer, self.waited = cause, answer, waited


def request(method: str, path: str, host: str, headers: Mapping[str, str], payload: bytes = b"") -> bytes:
    """A request as bytes. Line breaks in a value would be another header, so they are refused with ValueError."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(payload)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header contains a line break")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload


def exchange(connection: socket.socket, data: bytes, timeout: float, stall: float) -> Answer:
    """Send a request and read the answer, for C(timeout) seconds at most and C(stall) seconds for each byte. Raises Incomplete,"
    " ProtocolError."""
    reader = _Reader(connection, data)
    sent = time.perf_counter()
    try:
        reader.run(sent + timeout, stall)
    except OSError as exc:
        waited = time.perf_counter() - sent
        raise Incomplete(exc, reader.answer(sent), waited) from exc
    answer = reader.answer(sent)
    if answer is None or not answer.complete:
        raise Incomplete(ConnectionError("the connection was closed early"), answer, time.perf_counter() - sent)
    return answer


class _Reader:
    def __init__(self, connection: socket.socket, data: bytes) -> None:
        self.connection, self.data = connection, data
        self.stamped = not isinstance(connection, ssl.SSLSocket) and _ask_for_stamps(connection)
        self.offset = _offset()
        self.raw: list[_Read] = []
        self.head = b""
        self.status = 0
        self.headers: Message | None = None
        self.length: int | None = None
        self.chunked = False

    def run(self, deadline: float, stall: float) -> None:
        clock, raw = time.perf_counter, self.raw
        self.connection.settimeout(min(stall, deadline - clock()))
        self.connection.sendall(self.data)
        got = 0
        last = b"\n"
        while True:
            data, stamp = self.receive()
            now = clock()
            if not data:
                if self.headers is None:
                    raise ConnectionError("the connection was closed without an answer")
                return
            if self.headers is None:
                self.head += data
                data = self.understand_head()
                if self.headers is None:
                    continue
            if data:
                raw.append(_Read(now, stamp, data))
                got += len(data)
            if self.length is not None and got >= self.length:
                return
            if b"[DONE]" in data and _DONE.search(last + data):
                # Some servers keep the connection open after it.
                return
            if self.chunked and data.endswith(b"0\r\n\r\n") and _unchunk([Block(0.0, read.data) for read in raw])[1]:
                return
            if now > deadline:
                raise TimeoutError
            last = data[-1:] or last

    def receive(self) -> tuple[bytes, int]:
        if not self.stamped:
            return self.connection.recv(_BLOCK), 0
        data, ancillary, _flags, _address = self.connection.recvmsg(_BLOCK, 64)
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
                seconds, nanos = _TIMESPEC.unpack_from(value)
                return data, seconds * 1_000_000_000 + nanos
        return data, 0

    def understand_head(self) -> bytes:
        """Parse status and headers once they are complete; what of the body came with them."""
        head, end, body = self.head.partition(b"\r\n\r\n")
        if not end:
            if len(head) > _HEAD:
                raise ProtocolError("the headers do not end")
            return b""
        first, _end, rest = head.partition(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.[01] (\d{3})(?: .*)?", first)
        if not match:
            raise ProtocolError(f"the answer begins with {first[:60]!r}")
        status = int(match[1])
        if status < 200:
            # 100 Continue and the like: the answer follows.
            self.head = body
            return self.understand_head() if body else b""
        try:
            headers = http.client.parse_headers(io.BytesIO(rest + b"\r\n\r\n"))
        except http.client.HTTPException as exc:
            raise ProtocolError(f"the headers cannot be read: {exc}") from exc
        self.status, self.headers = status, headers
        self.chunked = "chunked" in (headers.get("Transfer-Encoding") or "").lower()
        length = headers.get("Content-Length") or ""
        self.length = int(length) if length.isdigit() and not self.chunked else None
        return body

    def answer(self, sent: float) -> Answer | None:
        """What came so far; None before the end of the headers."""
        if self.headers is None:
            return None
        blocks = [Block(at, read.data) for at, read in zip(self.times(), self.raw, strict=True)]
        complete = self.length is None or sum(len(block.data) for block in blocks) >= self.length
        if self.chunked:
            blocks, complete = _unchunk(blocks)
        done = _DONE.search(b"\n" + b"".join(block.data for block in blocks[-4:])) is not None
        return Answer(self.status, self.headers, tuple(blocks), sent, complete or done)

    def times(self) -> list[float]:
        """When each piece arrived: by the kernel's notes if they can be trusted, else when it was read."""
        reads = [read.at for read in self.raw]
        if not all(read.stamp for read in self.raw) or abs(_offset() - self.offset) > _CLOCK_STEP_NS:
            return reads
        times = [(read.stamp - self.offset) / 1e9 for read in self.raw]
        plausible = all(at - 30 < time_ < at + 0.001 for time_, at in zip(times, reads, strict=True))
        return times if plausible and times == sorted(times) else reads


def _ask_for_stamps(connection: socket.socket) -> bool:
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return hasattr(connection, "recvmsg")


def _offset() -> int:
    """The wall clock minus time.perf_counter(), in nanoseconds: of three tries the one that was disturbed least."""
    tries: list[tuple[int, int]] = []
    while len(tries) < 3:
        before = time.perf_counter_ns()
        wall = time.time_ns()
        after = time.perf_counter_ns()
        tries.append((after - before, wall - (before + after) // 2))
    return min(tries)[1]


def _unchunk(blocks: Sequence[Block]) -> tuple[list[Block], bool]:
    """Take the frames of a chunked body away: the pieces with their times, and whether the last chunk came. Raises ProtocolError."""
    pieces: list[Block] = []
    rest = b""
    left = 0  # of the chunk's data
    trailing = False  # the line break after a chunk's data comes next
    for at, data in blocks:
        rest += data
        out = b""
        while rest:
            if left:
                part = rest[:left]
                out += part
                left -= len(part)
                rest = rest[len(part) :]
                trailing = left == 0
                continue
            if trailing:
                if len(rest) < 2:
                    break
                rest, trailing = rest[2:], False
                continue
            line, end, after = rest.partition(b"\r\n")
            if not end:
                break
            try:
                left = int(line.split(b";")[0], 16)
            except ValueError as exc:
                raise ProtocolError(f"a chunk begins with {line[:40]!r}") from exc
            rest = after
            if left == 0:
                if out:
                    pieces.append(Block(at, out))
                return pieces, True
        if out:
            pieces.append(Block(at, out))
    return pieces, False
