# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A constant load of streams on an OpenAI-compatible endpoint, each counted to its `[DONE]`.

So many slots ask one stream after the other. A stream is whole when it was answered with 200, brought no error, ended for a reason of its
own and sent `[DONE]`; everything else is a failure with its time, its box and its cause.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

# Nobody who is served waits so long for a byte.
STALL_S = 120.0
CONNECT_S = 10.0
# A slot whose stream failed asks again after this time, as a client would.
PAUSE_S = 0.2
WHOLE, REFUSED, BROKEN = "whole", "refused", "broken"
BOX_HEADER = "x-served-by"
_ENDS = {"stop", "length", "tool_calls"}


@dataclass
class Stream:
    """One stream. Times are seconds since the load began; `box` is what the gateway says who answered, empty without its header."""

    number: int
    started: float
    ended: float = 0.0
    status: int = 0
    box: str = ""
    tokens: int = 0
    kind: str = BROKEN
    why: str = ""


@dataclass
class Second:
    """What came in one second: tokens by box, and how many streams ran at its end."""

    tokens: Counter[str] = field(default_factory=Counter)
    running: int = 0


class BrokenStream(Exception):
    """The stream did not come to its end; the message says how far it came."""


class Load:
    """Keeps `streams` streams on the endpoint, each with so many tokens at random between the two of `tokens`."""

    def __init__(
        self,
        base_url: str,
        model: str = "",
        *,
        streams: int = 12,
        tokens: tuple[int, int] = (200, 800),
        api_key: str = "",
        verify: bool = True,
        seed: int = 0,
    ) -> None:
        url = urllib.parse.urlsplit(base_url)
        self._tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            self._tls = ssl.create_default_context()
            if not verify:
                self._tls.check_hostname = False
                self._tls.verify_mode = ssl.CERT_NONE
        self._host, self._port = url.hostname or "", url.port or (443 if self._tls else 80)
        self._model, self._slots, self._tokens = model, streams, tokens
        self._headers = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
        self._random = random.Random(seed)
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.running = 0
        self.done: list[Stream] = []
        self.seconds: dict[int, Second] = {}

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    def stop(self) -> None:
        """Begin no more streams; those that run go on to their end."""
        self._stop.set()

    def stop_soon(self) -> None:
        """The same from another thread; nothing when the load has ended."""
        if (loop := self._loop) is not None:
            loop.call_soon_threadsafe(self.stop)

    async def run(self, seconds: float | None = None, each_second: Callable[[int, Second], None] = lambda at, second: None) -> None:
        """Load until `stop` is called, or for so many seconds; comes back when the last stream has ended."""
        self._began, self._loop = time.monotonic(), asyncio.get_running_loop()
        slots = [asyncio.create_task(self._slot()) for _number in range(self._slots)]
        clock = asyncio.create_task(self._clock(each_second))
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            self.stop()
        await asyncio.gather(*slots)
        clock.cancel()
        self._loop = None

    def tokens_of(self, box: str) -> int:
        """How many tokens a box has brought by now."""
        return sum(second.tokens[box] for second in list(self.seconds.values()))

    def result(self) -> dict[str, Any]:
        """{streams, whole, refused, broken, tokens, boxes: {box: {kind: count}}, failures: [stream],
        seconds: [{running, tokens: {box: n}}]}"""
        kinds = Counter(stream.kind for stream in self.done)
        boxes: dict[str, Counter[str]] = {}
        for stream in self.done:
            boxes.setdefault(stream.box, Counter())[stream.kind] += 1
        last = max(self.seconds, default=-1)
        seconds = [self.seconds.get(at, Second()) for at in range(last + 1)]
        return {
            "streams": len(self.done),
            **{kind: kinds[kind] for kind in (WHOLE, REFUSED, BROKEN)},
            "tokens": sum(stream.tokens for stream in self.done),
            "boxes": {box: dict(counts) for box, counts in sorted(boxes.items())},
            "failures": [asdict(stream) for stream in self.done if stream.kind != WHOLE],
            "seconds": [{"running": second.running, "tokens": dict(second.tokens)} for second in seconds],
        }

    def _second(self) -> Second:
        return self.seconds.setdefault(int(self.now), Second())

    async def _clock(self, each_second: Callable[[int, Second], None]) -> None:
        for at in range(1 << 30):
            await asyncio.sleep(at + 1 - self.now)
            second = self.seconds.setdefault(at, Second())
            second.running = self.running
            each_second(at, second)

    async def _slot(self) -> None:
        while not self._stop.is_set():
            stream = Stream(len(self.done) + self.running, self.now)
            self.running += 1
            try:
                await self._ask(stream, self._random.randint(*self._tokens))
            except (OSError, EOFError, TimeoutError, ValueError, BrokenStream) as error:
                stream.why = stream.why or f"{type(error).__name__}: {error}"
            self.running -= 1
            stream.ended = self.now
            self.done.append(stream)
            if stream.kind != WHOLE:
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, stream: Stream, tokens: int) -> None:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        try:
            body = json.dumps(
                {
                    "model": self._model,
                    "messages": [{"role": "user", "content": f"{stream.number}: Write a long story about a lighthouse."}],
                    "max_tokens": tokens,
                    "ignore_eos": True,
                    "stream": True,
                }
            ).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n{self._headers}"
            writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
            await self._read(stream, reader)
        finally:
            writer.close()

    async def _read(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        stream.status = int((await self._line(reader)).split()[1])
        headers: dict[str, str] = {}
        while line := (await self._line(reader)).decode("latin-1").strip():
            name, _colon, value = line.partition(":")
            headers[name.lower()] = value.strip()
        stream.box = headers.get(BOX_HEADER, "")
        if stream.status != 200:
            stream.kind = REFUSED
            stream.why = (await reader.read(500)).decode("utf-8", "replace")
            return
        await self._events(stream, reader)

    async def _events(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        rest, finish = b"", ""
        while True:
            size = int((await self._line(reader)).split(b";")[0], 16)
            if not size:
                raise BrokenStream(f"it ended after {stream.tokens} tokens without [DONE]")
            async with asyncio.timeout(STALL_S):
                rest += (await reader.readexactly(size + 2))[:-2]
            *events, rest = rest.split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    if finish not in _ENDS:
                        raise BrokenStream(f"it was ended after {stream.tokens} tokens: {finish or 'no reason'}")
                    stream.kind = WHOLE
                    return
                if event.startswith(b"data:"):
                    finish = self._token(stream, json.loads(data)) or finish

    def _token(self, stream: Stream, document: dict[str, Any]) -> str:
        """Count an event; returns why the answer ended, if it did."""
        if document.get("error"):
            raise BrokenStream(f"an error after {stream.tokens} tokens: {document['error']}")
        choice = (document.get("choices") or [{}])[0]
        if choice.get("delta", {}).get("content"):
            stream.tokens += 1
            self._second().tokens[stream.box] += 1
        return str(choice.get("finish_reason") or "")

    async def _line(self, reader: asyncio.StreamReader) -> bytes:
        async with asyncio.timeout(STALL_S):
            line = await reader.readline()
        if not line:
            raise EOFError("the connection was closed")
        return line
