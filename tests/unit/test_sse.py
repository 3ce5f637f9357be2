# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._sse import Event, Parser
from hypothesis import given
from hypothesis import strategies as st

STREAM = (
    ': keep-alive\n\ndata: {"a": 1}\n\ndata:{"b": "zwölf"}\r\n\r\nevent: error\rdata: first\rdata: second\r\rid: 7\nretry: 10\n\n'
    "data\n\ndata: : x\n\ndata: [DONE]\n\n"
)
EVENTS = [
    Event('{"a": 1}'),
    Event('{"b": "zwölf"}'),
    Event("first\nsecond", "error"),
    Event(""),
    Event(": x"),
    Event("[DONE]"),
]


def parse(pieces: list[bytes]) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_comments_line_ends_fields_and_several_lines_of_data() -> None:
    assert parse([STREAM.encode()]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=30))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    data = STREAM.encode()
    places = [0, *sorted(cuts), len(data)]
    assert parse([data[a:b] for a, b in zip(places, places[1:], strict=False)]) == EVENTS


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    parser = Parser()
    assert parser.feed(b"data: x\r\n\r") == [Event("x")]
    assert parser.feed(b"\ndata: y\r\n\r\n") == [Event("y")]


@pytest.mark.parametrize("data", [b"data: x\n", b"data: x", b"event: error\n\n", b": data: x\n\n", b"\n\n\n", b""])
def test_what_is_no_event_gives_none(data: bytes) -> None:
    assert parse([data]) == []


def test_a_byte_order_mark_and_broken_bytes() -> None:
    assert parse([b"\xef\xbb\xbfdata: a\n\n", b"data: \xff\n\n"]) == [Event("a"), Event("\ufffd")]


@given(st.binary(max_size=500))
def test_nothing_makes_it_fail(data: bytes) -> None:
    parse([data[:100], data[100:]])
