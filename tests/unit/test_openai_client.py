# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The client against sockets that answer byte by byte what a test wants, and its clock."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _openai_client, _timed_http
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client, ClientError, ServerHangs, ServerRefused, ToolCall
from ansible_collections.dgx.spark.plugins.module_utils._timed_http import Block, ProtocolError, request

BODY = {"model": "m", "messages": [], "stream": True}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Answers:
    """A server that answers each connection with the next of its scripts: bytes to send, and numbers to sleep."""

    def __init__(self) -> None:
        self.scripts: list[list[bytes | float]] = []
        self.requests: list[bytes] = []
        self.wrap: Callable[[socket.socket], socket.socket] = lambda connection: connection
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        try:
            with self.wrap(connection) as wrapped:
                wrapped.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                data = b""
                while b"\r\n\r\n" not in data:
                    data += wrapped.recv(65536) or b"\r\n\r\n"
                self.requests.append(data)
                for step in self.scripts.pop(0):
                    if isinstance(step, bytes):
                        wrapped.sendall(step)
                    else:
                        time.sleep(step)
        except OSError:
            return


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    # A close alone does not wake who waits in accept, and the port would go on to take connections.
    answers.listener.shutdown(socket.SHUT_RDWR)
    answers.listener.close()


def event(**document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(content: str | None = None, tokens: int | None = None, finish: str | None = None, **more: Any) -> bytes:
    usage = {} if tokens is None else {"usage": {"completion_tokens": tokens}}
    return event(choices=[{"index": 0, "delta": {"content": content, **more}, "finish_reason": finish}], **usage)


def chunked(*events: bytes, size: int = 0) -> list[bytes | float]:
    """Each event as a chunk, or all of them in chunks of one size."""
    pieces = list(events)
    if size:
        whole = b"".join(events)
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    framed = b"".join(f"{len(piece):x};ext=1\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"]


STREAM = [
    delta(role="assistant", content=""),
    delta("Par", 1),
    delta("is", 2),
    delta("", 3, "stop"),
    event(choices=[], usage={"completion_tokens": 3}),
]
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "script",
    [
        chunked(*STREAM, DONE),
        chunked(*STREAM, DONE, size=7),
        chunked(b"".join(STREAM) + DONE),
        [HEAD + b"\r\n", *STREAM, DONE],
        [HEAD + b"\r\n" + b"".join(STREAM)],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD[:9], HEAD[9:] + b"Connection: close\r\n\r\n", *STREAM, DONE],
        [HEAD.replace(b"1.1", b"1.0") + b"Content-Length: " + str(len(b"".join(STREAM))).encode() + b"\r\n\r\n", *STREAM, 9.0],
        [HEAD + b"\r\n", *STREAM, DONE, 9.0],
    ],
    ids=["chunk-each", "chunks-of-7", "one-chunk", "until-close", "no-done", "split-head", "length", "stays-open-after-done"],
)
def test_a_stream_is_understood_however_it_is_framed(server: Answers, script: list[bytes | float]) -> None:
    server.scripts.append(script)
    reply = Client(server.url).ask(BODY, 5)
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("Paris", "stop", 3)
    assert [arrival.tokens for arrival in reply.arrivals if arrival.visible] == [1, 2]
    assert [arrival.ends for arrival in reply.arrivals] == [False, False, False, True, False]


def test_reasoning_tool_calls_and_cached_tokens(server: Answers) -> None:
    def call(**function: str) -> bytes:
        return delta(None, tool_calls=[{"index": 0, "function": function}])

    events = [delta(None, reasoning="17 times "), delta(None, reasoning_content="23"), call(name="get_weather"), call(arguments='{"city"')]
    events += [call(arguments=': "Paris"}'), delta(None, finish="tool_calls")]
    events += [event(choices=[], usage={"completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 16}})]
    server.scripts.append(chunked(*events, DONE))
    reply = Client(server.url).ask(BODY, 5)
    assert reply.reasoning == "17 times 23"
    assert reply.tool_calls == (ToolCall("get_weather", '{"city": "Paris"}'),)
    assert (reply.completion_tokens, reply.cached_tokens, reply.text) == (9, 16, "")
    assert sum(arrival.visible for arrival in reply.arrivals) == 5


def test_an_answer_without_streaming(server: Answers) -> None:
    message = {"content": None, "reasoning": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    text = json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {"completion_tokens": 4}}).encode()
    server.scripts.append([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(text) + text])
    reply = Client(server.url).ask({"model": "m"}, 5)
    assert (reply.text, reply.reasoning, reply.completion_tokens) == ("", "hm", 4)
    assert reply.tool_calls == (ToolCall("f", '{"a": 1}'),)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (
            [HEAD + b"\r\n", delta("a", 1), event(error={"message": "engine died"}), DONE],
            ServerRefused,
            "an error after 1 tokens: engine died",
        ),
        ([HEAD + b"\r\n", delta("a", 1), b"event: error\ndata: {}\n\n"], ServerRefused, "the stream reported an error"),
        ([HEAD + b"\r\n", delta("a", 1)], ClientError, "the stream ended after 1 tokens without a reason and without"),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\ndata:"], ClientError, "the stream ended after 0 tokens"),
        ([HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], ClientError, "does not speak HTTP: a chunk begins with"),
        ([HEAD + b"\r\ndata: {\n\n"], ClientError, "is not JSON"),
        ([b""], ClientError, "closed the connection without an answer"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], ClientError, "does not speak HTTP"),
        (
            [b"HTTP/1.1 404 Not Found\r\n\r\n" + b'{"error": {"message": "no m"}}'],
            ServerRefused,
            "HTTP 404: no m; is this the model's served name?",
        ),
        (
            [b"HTTP/1.1 401 X\r\nContent-Length: 25\r\n\r\n" + b'{"error": "Unauthorized"}'],
            ServerRefused,
            "HTTP 401: Unauthorized; give the right",
        ),
        ([b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>bad</html>"], ServerRefused, "HTTP 502: <html>bad</html>"),
        ([b"HTTP/1.1 422 X\r\n\r\n" + b'{"detail": "no field"}'], ServerRefused, "HTTP 422: no field"),
    ],
)
def test_what_goes_wrong_is_said(server: Answers, script: list[bytes | float], kind: type[Exception], words: str) -> None:
    server.scripts.append(script)
    with pytest.raises(kind) as caught:
        Client(server.url).ask(BODY, 5)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ([3.0], ServerHangs, "sent nothing within 0 s: its engine may hang"),
        ([HEAD + b"\r\n", 3.0], ServerHangs, "sent nothing within 0 s: its engine may hang"),
        ([HEAD + b"\r\n", *([delta("a", 1), 0.1] * 30)], ClientError, "was still answering when the time was over"),
    ],
)
def test_a_server_that_hangs_does_not_make_us_hang(server: Answers, script: list[bytes | float], kind: type[Exception], words: str) -> None:
    server.scripts.append(script)
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        Client(server.url).ask(BODY, 0.3)
    assert time.monotonic() - started < 2.5


def test_silence_ends_long_before_the_time_for_everything(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai_client, "_STALL", 0.2)
    monkeypatch.setattr(_openai_client, "_FLOWS", 0.1)
    server.scripts.append([HEAD + b"\r\n", delta("a", 1), 3.0])
    with pytest.raises(ServerHangs, match="did not end its answer"):
        Client(server.url).ask(BODY, 100)


def test_nobody_there_and_no_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ClientError, match=f"http://127.0.0.1:{port} cannot be reached .*is the container running"):
        Client(f"http://127.0.0.1:{port}/v1").ask(BODY, 5)
    for wrong in ("ftp://x", "http://", "http://h:x"):
        with pytest.raises(ClientError):
            Client(wrong)


@pytest.mark.parametrize(
    ("base", "path"),
    [("", "/v1/models"), ("/", "/v1/models"), ("/v1", "/v1/models"), ("/v1/", "/v1/models"), ("/gpu/7/v1", "/gpu/7/v1/models")],
)
def test_the_base_url_may_end_as_it_likes(server: Answers, base: str, path: str) -> None:
    server.scripts.append([b'HTTP/1.1 200 OK\r\n\r\n{"data": [{"id": "a"}]}'])
    assert Client(server.url + base, api_key="geheim").models(5) == ["a"]
    assert server.requests[0].startswith(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:".encode())
    assert b"\r\nAuthorization: Bearer geheim\r\n" in server.requests[0]


def test_the_key_shows_nowhere_and_smuggles_nothing(server: Answers) -> None:
    server.scripts.append([b"HTTP/1.1 500 X\r\n\r\nbroken"])
    client = Client(server.url.replace("//", "//user:geheim@"), api_key="geheim")
    with pytest.raises(ServerRefused) as caught:
        client.ask(BODY, 5)
    assert "geheim" not in str(caught.value) + client.where
    with pytest.raises(ClientError, match="api_key has characters") as refused:
        Client(server.url, api_key="geheim\r\nX: y")
    assert "geheim" not in str(refused.value)
    with pytest.raises(ValueError, match="line break"):
        request("GET", "/\r\nX: y", "h", {})


# --- the clock


def test_the_connection_is_open_before_the_clock_starts(server: Answers) -> None:
    server.scripts.append([0.1, HEAD + b"\r\n", delta("a", 1, "stop"), DONE])
    exchange = Client(server.url).prepare(BODY)
    time.sleep(0.8)
    reply = exchange.run(5)
    assert 0.09 < reply.arrivals[0].at - reply.sent < 0.7


def test_the_kernels_times_do_not_depend_on_when_the_client_wakes_up(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is kept from running reads everything at once, late; the packets came on time."""
    original = _timed_http._Reader.receive

    def sleepy(reader: Any) -> tuple[bytes, int]:
        data = original(reader)
        time.sleep(0.4)
        return data

    monkeypatch.setattr(_timed_http._Reader, "receive", sleepy)
    server.scripts.append([HEAD + b"\r\n", 0.1, delta("a", 1), 0.1, delta("b", 2, "stop"), DONE])
    reply = Client(server.url).ask(BODY, 5)
    assert 0.09 < reply.arrivals[0].at - reply.sent < 0.38


def test_a_wall_clock_that_is_set_meanwhile_does_no_harm(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = iter([_timed_http._offset(), _timed_http._offset() - 3600 * 10**9])
    monkeypatch.setattr(_timed_http, "_offset", lambda: next(offsets))
    server.scripts.append([HEAD + b"\r\n", 0.1, delta("a", 1, "stop"), DONE])
    reply = Client(server.url).ask(BODY, 5)
    assert 0.09 < reply.arrivals[0].at - reply.sent < 5


def test_https(server: Answers, tmp_path: Path) -> None:
    pair = tmp_path / "pair.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(pair), "-out", str(tmp_path / "c.pem")], check=True, capture_output=True)
    pair.write_text(pair.read_text() + (tmp_path / "c.pem").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    server.wrap = lambda connection: context.wrap_socket(connection, server_side=True)
    url = server.url.replace("http:", "https:")
    server.scripts.append(chunked(*STREAM, DONE))
    assert Client(url, validate_certs=False).ask(BODY, 5).text == "Paris"
    with pytest.raises(ClientError, match="(?i)certificate"):
        Client(url).ask(BODY, 5)


def test_frames_that_are_cut_anywhere_give_the_same_body() -> None:
    whole = b"3;x=1\r\nabc\r\na\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    for step in range(1, len(whole)):
        pieces, complete = _timed_http._unchunk([Block(float(at), whole[at : at + step]) for at in range(0, len(whole), step)])
        assert (b"".join(piece.data for piece in pieces), complete) == (b"abc0123456789", True)
    assert _timed_http._unchunk([Block(0.0, b"5\r\nab")])[1] is False
    with pytest.raises(ProtocolError):
        _timed_http._unchunk([Block(0.0, b"nonsense\r\n")])
