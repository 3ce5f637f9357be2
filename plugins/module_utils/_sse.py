# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Server-sent events, exactly as the HTML standard parses them, from bytes that may be cut anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class Event:
    """One event: its data (lines joined by a line feed) and its type."""

    data: str
    kind: str = "message"


class Parser:
    """Feed it bytes; it returns the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._first = True
        self._data: list[str] = []
        self._kind = ""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. Comments and what the stream ends in the middle of give none."""
        if self._after_cr and data[:1] == b"\n":
            # The second half of a line end whose first half was enough.
            data = data[1:]
        if not data:
            return []
        self._after_cr = data[-1:] == b"\r"
        *lines, self._rest = _LINE_END.split(self._rest + data)
        events = []
        for line in lines:
            if self._first:
                self._first = False
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line:
                self._field(line)
            elif self._data or self._kind:
                if self._data:
                    events.append(Event("\n".join(self._data), self._kind or "message"))
                self._data, self._kind = [], ""
        return events

    def _field(self, line: bytes) -> None:
        name, _colon, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
