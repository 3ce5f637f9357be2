# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""A client of OpenAI-compatible servers that measures without disturbing: Python's standard library, one connection per request.

The connection is open before the clock starts, and a stream is understood only after its end, so that parsing one event never delays the
time of the next.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._api_key import KeyFileError, read_key
from ansible_collections.dgx.spark.plugins.module_utils._sse import Event, Parser
from ansible_collections.dgx.spark.plugins.module_utils._timed_http import Answer, Block, Incomplete, ProtocolError, exchange, request

_CONNECT = 10.0
# A healthy server that says nothing for so long does not exist: the first request may compile kernels for a minute.
_STALL = 120.0
# Who sent something so recently is slow, but does not hang.
_FLOWS = 2.0


class ClientError(Exception):
    """The server could not be asked, or did not answer as it should. The message says what happened and what to look at."""


class ServerRefused(ClientError):
    """The server answered with an error. C(status) is HTTP's, 200 for an error in the middle of a stream."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class ServerHangs(ClientError):
    """The server took the request and sent nothing, or stopped sending, for too long."""


class ServerSlow(ClientError):
    """The server was still sending when the time was over."""


@dataclass(frozen=True)
class Arrival:
    """One event of a stream. C(at) is when its last byte was here, in seconds of time.perf_counter().

    C(tokens) counts the completion tokens so far, as the server says; None where it does not. C(visible) says whether it brought output:
    text, reasoning or a part of a tool call. C(ends) says whether it carried the reason of the end.
    """

    at: float
    tokens: int | None
    visible: bool
    ends: bool


@dataclass(frozen=True)
class ToolCall:
    """A call as the server understood it; C(arguments) is JSON, as text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """A whole answer. Times are in seconds of time.perf_counter(), token counts are the server's and None where it did not give them."""

    text: str
    reasoning: str | None
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str | None
    completion_tokens: int | None
    cached_tokens: int | None
    sent: float
    ended: float
    arrivals: tuple[Arrival, ...] = ()
    document: Mapping[str, Any] = field(default_factory=dict)


class Client:
    """Talks to one server. C(base_url) may end with /v1 or not, and may have a path before it."""

    def __init__(self, base_url: str, api_key: str = "", validate_certs: bool = True) -> None:
        """Raises ClientError for a URL that is none."""
        url = urllib.parse.urlsplit(base_url if "//" in base_url else f"http://{base_url}")
        try:
            port = url.port
        except ValueError as exc:
            raise ClientError(f"base_url {base_url!r} has no valid port") from exc
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ClientError(f"base_url {base_url!r} is not a URL like http://127.0.0.1:8002")
        self._tls = url.scheme == "https"
        self._address = (url.hostname, port or (443 if self._tls else 80))
        name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
        self._host = f"{name}:{port}" if port else name
        self._root = url.path.rstrip("/").removesuffix("/v1")
        self._validate_certs = validate_certs
        self._headers = {"Accept": "text/event-stream, application/json"}
        self.has_key = bool(api_key)
        if api_key:
            if not api_key.isascii() or not api_key.isprintable():
                raise ClientError("api_key has characters that no HTTP header may have")
            self._headers["Authorization"] = f"Bearer {api_key}"
        # Without what a URL may contain of secrets.
        self.where = f"{url.scheme}://{self._host}{self._root}"

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Client:
        """The client that a module's options of the doc fragment C(server) describe. Raises ClientError."""
        try:
            key = read_key(params["api_key_file"]) if params["api_key_file"] else params["api_key"]
        except KeyFileError as exc:
            raise ClientError(str(exc)) from exc
        return cls(params["base_url"], key, params["validate_certs"])

    def status(self, path: str, body: Mapping[str, Any] | None, key: str, timeout: float) -> int:
        """HTTP's status for C(path) with another key than the client's own, an empty one is none: a POST of C(body), without one a GET.

        Raises ClientError when there is no answer.
        """
        headers = {name: value for name, value in self._headers.items() if name != "Authorization"}
        headers |= ({"Authorization": f"Bearer {key}"} if key else {}) | ({"Content-Type": "application/json"} if body else {})
        data = request("POST" if body else "GET", self._root + path, self._host, headers, json.dumps(body).encode() if body else b"")
        return _exchanged(self._connect(_CONNECT), data, timeout, self.where).status

    def models(self, timeout: float) -> list[str]:
        """The names that are served."""
        document = _json(self._get("/v1/models", timeout))
        entries = document.get("data")
        if not isinstance(entries, list):
            raise ClientError(f"{self.where}/v1/models does not list models: it is no OpenAI-compatible server")
        return [str(entry.get("id")) for entry in entries if isinstance(entry, Mapping)]

    def metrics(self, timeout: float) -> str:
        """The text of /metrics; empty where the server has none."""
        try:
            return self._get("/metrics", timeout).decode("utf-8", "replace")
        except ServerRefused:
            return ""

    def ask(self, body: Mapping[str, Any], timeout: float) -> Reply:
        """Send a chat request and wait for the whole answer: a stream if the body asks for one. Raises ClientError."""
        return self.prepare(body).run(timeout)

    def prepare(self, body: Mapping[str, Any]) -> Exchange:
        """Connect, and hold the request ready. Raises ClientError."""
        headers = self._headers | {"Content-Type": "application/json"}
        data = request("POST", f"{self._root}/v1/chat/completions", self._host, headers, json.dumps(body).encode())
        return Exchange(self._connect(_CONNECT), data, bool(body.get("stream")), self.where)

    def _get(self, path: str, timeout: float) -> bytes:
        connection = self._connect(timeout)
        data = request("GET", self._root + path, self._host, self._headers)
        answer = _exchanged(connection, data, timeout, self.where)
        if answer.status != 200:
            raise _refused(answer.status, answer.body)
        return answer.body

    def _connect(self, timeout: float) -> socket.socket:
        connection: socket.socket | None = None
        try:
            connection = socket.create_connection(self._address, timeout=min(timeout, _CONNECT))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self._tls:
                return connection
            context = ssl.create_default_context()
            if not self._validate_certs:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            return context.wrap_socket(connection, server_hostname=self._address[0])
        except OSError as exc:
            if connection is not None:
                connection.close()
            raise ClientError(f"{self.where} cannot be reached ({exc}): is the container running, and is this its port?") from exc


class Exchange:
    """A request that waits on an open connection."""

    def __init__(self, connection: socket.socket, data: bytes, stream: bool, where: str) -> None:
        self._connection, self._data, self._stream, self._where = connection, data, stream, where

    def run(self, timeout: float) -> Reply:
        """Send it and read to the end, for C(timeout) seconds at most and never waiting two minutes for a byte. Raises ClientError."""
        answer = _exchanged(self._connection, self._data, timeout, self._where, understand_pieces=self._stream)
        if answer.status != 200:
            raise _refused(answer.status, answer.body)
        if self._stream and answer.headers.get_content_type() != "application/json":
            return _from_stream(answer.sent, answer.blocks)
        ended = answer.blocks[-1].at if answer.blocks else time.perf_counter()
        return _from_document(_json(answer.body), answer.sent, ended)


def _exchanged(connection: socket.socket, data: bytes, timeout: float, where: str, understand_pieces: bool = False) -> Answer:
    """Send and receive, and close. With C(understand_pieces) a stream that broke off is handed back, for its last events say more than the
    broken connection. Raises ClientError."""
    try:
        with connection:
            return exchange(connection, data, timeout, _STALL)
    except ProtocolError as exc:
        raise ClientError(f"{where} does not speak HTTP: {exc}") from exc
    except Incomplete as exc:
        came = exc.answer is not None and exc.answer.blocks
        if isinstance(exc.cause, TimeoutError):
            if exc.answer is not None and came and time.perf_counter() - exc.answer.blocks[-1].at < _FLOWS:
                raise ServerSlow(f"{where} was still answering when the time was over: raise timeout, or see why it is so slow") from exc
            stage = "did not end its answer" if came else "sent nothing"
            raise ServerHangs(
                f"{where} {stage} within {exc.waited:.0f} s: its engine may hang although /health answers; see the container's log and"
                " vllm:num_requests_running in /metrics"
            ) from exc
        if understand_pieces and exc.answer is not None and came and exc.answer.status == 200:
            return exc.answer
        how = "broke off in the middle of its answer" if came else "closed the connection without an answer"
        raise ClientError(f"{where} {how} ({exc}): see the container's log and exit code") from exc


def _refused(status: int, data: bytes) -> ServerRefused:
    text = data.decode("utf-8", "replace").strip()
    try:
        words = _words(json.loads(text)) or text
    except ValueError:
        words = text
    hint = {401: "; give the right api_key", 403: "; give the right api_key", 404: "; is this the model's served name?"}.get(status, "")
    return ServerRefused(status, f"HTTP {status}: {words[:500]}{hint}")


def _words(document: Any) -> str:
    """An error's message, wherever a server puts it."""
    if not isinstance(document, Mapping):
        return ""
    error = document.get("error", document)
    if isinstance(error, Mapping):
        return str(error.get("message") or error.get("detail") or "")
    return str(error)


def _json(data: bytes | str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as exc:
        raise ClientError(f"the server's answer is not JSON: {str(data[:200])}") from exc
    if not isinstance(document, dict):
        raise ClientError(f"the server's answer is not a JSON object: {str(data[:200])}")
    return document


def _from_document(document: dict[str, Any], sent: float, ended: float) -> Reply:
    choice = _choice(document)
    message = choice.get("message") or {}
    calls = [call.get("function") or {} for call in message.get("tool_calls") or []]
    completion, cached = _usage(document)
    return Reply(
        text=message.get("content") or "",
        reasoning=message.get("reasoning") or message.get("reasoning_content"),
        tool_calls=tuple(ToolCall(str(call.get("name")), _text(call.get("arguments"))) for call in calls),
        finish_reason=choice.get("finish_reason"),
        completion_tokens=completion,
        cached_tokens=cached,
        sent=sent,
        ended=ended,
        document=document,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _choice(document: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = document.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}


def _usage(document: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(completion tokens, prompt tokens that came from the cache), None where they are not told."""
    usage = document.get("usage")
    if not isinstance(usage, Mapping):
        return None, None
    completion = usage.get("completion_tokens")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return (completion if isinstance(completion, int) else None), (cached if isinstance(cached, int) else None)


def _from_stream(sent: float, blocks: Sequence[Block]) -> Reply:
    """Understand a stream. Raises ServerRefused for an error event, ClientError for a stream that is cut short."""
    parser, collected = Parser(), _Collected()
    for at, data in blocks:
        for event in parser.feed(data):
            if event.data == "[DONE]":
                collected.done = True
            elif not collected.done:
                collected.take(at, event)
    if not collected.done and collected.finish_reason is None:
        raise ClientError(
            f"the stream ended after {collected.tokens or len(collected.arrivals)} tokens without a reason and without [DONE]: the"
            f" server or"
            " something between broke it off; see the container's log"
        )
    return Reply(
        text="".join(collected.texts),
        reasoning="".join(collected.thoughts) or None,
        tool_calls=tuple(ToolCall(name, "".join(parts)) for name, parts in collected.calls.values()),
        finish_reason=collected.finish_reason,
        completion_tokens=collected.tokens,
        cached_tokens=collected.cached,
        sent=sent,
        ended=collected.arrivals[-1].at if collected.arrivals else sent,
        arrivals=tuple(collected.arrivals),
    )


class _Collected:
    """What a stream's events have brought so far."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: dict[int, tuple[str, list[str]]] = {}
        self.finish_reason: str | None = None
        self.tokens: int | None = None
        self.cached: int | None = None
        self.done = False

    def take(self, at: float, event: Event) -> None:
        document = _json(event.data)
        if event.kind == "error" or document.get("error"):
            words = _words(document) or event.data
            raise ServerRefused(200, f"the stream reported an error after {self.tokens or len(self.arrivals)} tokens: {words[:500]}")
        choice = _choice(document)
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        thought = delta.get("reasoning") or delta.get("reasoning_content") or ""
        calls = delta.get("tool_calls") or []
        for position, call in enumerate(calls):
            function = call.get("function") or {}
            index = int(call.get("index", position))
            name, parts = self.calls.get(index, ("", []))
            if function.get("arguments"):
                parts.append(_text(function["arguments"]))
            self.calls[index] = (name or str(function.get("name") or ""), parts)
        self.texts.append(text)
        self.thoughts.append(thought)
        completion, cached = _usage(document)
        self.tokens = completion if completion is not None else self.tokens
        self.cached = cached if cached is not None else self.cached
        ends = choice.get("finish_reason") is not None
        if ends:
            self.finish_reason = str(choice["finish_reason"])
        self.arrivals.append(Arrival(at, completion, bool(text or thought or calls), ends))
