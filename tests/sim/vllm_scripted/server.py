# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A server that speaks as `vllm serve` does and plays a scenario. Python's standard library only.

In an image it is the command `vllm` (see __main__.py); a test runs it in threads:

    with ScriptedServer({"base": "slow"}) as server:
        urlopen(f"{server.base_url}/v1/models")

Beside vLLM's routes it has `GET /_sim/streams` (the true times of every request, ?times=1 with each token's),
`DELETE /_sim/streams` and `POST /_sim/scenario` (play another scenario from now on).
"""

from __future__ import annotations

import json
import math
import select
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, cast
from urllib.parse import parse_qs, urlsplit

from sim.vllm_scripted import picture, scenario
from sim.vllm_scripted.answers import Answer, Piece, answer
from sim.vllm_scripted.api import (
    ApiError,
    Request,
    chat_logprobs,
    check,
    chunks,
    completion_logprobs,
    delta,
    message,
    rendered,
    usage,
    without_nan,
)
from sim.vllm_scripted.engine import Aborted, ClientGone, Engine, Stream
from sim.vllm_scripted.flags import Flags, parse
from sim.vllm_scripted.scenario import Scenario
from sim.vllm_scripted.startup import computes_garbage

VERSION = "0.19.1.dev6+g6d4a8e6d2"
ARTICLE = [
    *(
        "--model",
        "/models/gemma4",
        "--served-model-name",
        "gemma-4-26b",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--quantization",
        "modelopt",
    ),
    *("--kv-cache-dtype", "fp8", "--max-model-len", "131072", "--gpu-memory-utilization", "0.85", "--moe-backend", "marlin"),
    *("--reasoning-parser", "gemma4", "--enable-auto-tool-choice", "--tool-call-parser", "gemma4"),
]
END_OF_TURN = 106
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
NAN = "Out of range float values are not JSON compliant"
SPLIT_PAUSE_S = 0.0001
# Linux's number; the socket module has no name for it.
SO_TIMESTAMPNS = 35
# So many tokens of the answer during which the engine dies are sent.
DIES_AFTER = 5


class Server(ThreadingHTTPServer):
    """The listening socket and what all requests share."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        flags: Flags,
        played: Scenario,
        version: str,
        api_keys: Sequence[str],
        log: Callable[[str], None],
        die: Callable[[], None],
    ) -> None:
        self.flags, self.version, self.api_keys, self.log, self.die = flags, version, [key for key in api_keys if key], log, die
        if computes_garbage(flags, version) and not played.fault.garbage:
            played = replace(played, fault=replace(played.fault, garbage="empty", nan_logprobs=True))
        self.engine = Engine(played, flags.integer("max-num-seqs", 1024))
        self.started = int(time.time())
        super().__init__(address, Handler)
        # Connections inherit it: the kernel notes when a request arrived, however late the thread that reads it wakes up.
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error of the server's."""


def arrival(connection: socket.socket) -> float:
    """Wait for the next bytes, leave them there, and say when they arrived, in seconds of time.monotonic()."""
    _data, ancillary, _flags, _address = connection.recvmsg(1, 64, socket.MSG_PEEK)
    now, wall = time.monotonic(), time.time_ns()
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanos = struct.unpack_from("@qq", value)
            return now - (wall - seconds * 1_000_000_000 - nanos) / 1e9
    return now


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "uvicorn"
    disable_nagle_algorithm = True

    @property
    def owner(self) -> Server:
        return cast(Server, self.server)

    # ---------------------------------------------------------------- plumbing
    def version_string(self) -> str:
        return "uvicorn"

    def handle_one_request(self) -> None:
        self.arrived = arrival(self.connection)
        super().handle_one_request()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are logged by _access, as uvicorn does."""

    def _access(self, status: int) -> None:
        reason = self.responses.get(cast(Any, status), ("", ""))[0]
        path = urlsplit(self.path)
        if not path.path.startswith("/_sim/"):
            self.owner.log(f'{self.client_address[0]}:{self.client_address[1]} - "{self.command} {self.path} HTTP/1.1" {status} {reason}')

    def _gone(self) -> bool:
        """Did the client close the connection?"""
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _send(self, status: int, document: Any = None, *, text: str | None = None, kind: str = "application/json") -> None:
        payload = (text if text is not None else json.dumps(document, ensure_ascii=False) if document is not None else "").encode()
        self._access(status)
        self.send_response(status)
        if payload or kind != "application/json":
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _body(self) -> Any:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            return json.loads(raw)
        except ValueError as error:
            text = f"[{{'type': 'json_invalid', 'loc': ('body', 0), 'msg': 'JSON decode error', 'ctx': {{'error': '{error}'}}}}]"
            raise ApiError(400, text, "Bad Request") from error

    def _authorised(self, path: str) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return not self.owner.api_keys or not path.startswith("/v1") or given in self.owner.api_keys

    # ---------------------------------------------------------------- routes
    def do_GET(self) -> None:
        path = urlsplit(self.path)
        engine = self.owner.engine
        if not self._authorised(path.path):
            return self._send(401, {"error": "Unauthorized"})
        match path.path:
            case "/health" | "/ping":
                return self._send(engine.scenario.fault.health_status)
            case "/version":
                return self._send(200, {"version": self.owner.version})
            case "/load":
                return self._send(200, {"server_load": engine.concurrency})
            case "/v1/models":
                return self._send(200, {"object": "list", "data": [self._model(name) for name in self.owner.flags.served_names]})
            case "/metrics":
                speculative = "speculative-config" in self.owner.flags.given
                text = engine.metrics(self.owner.flags.served_names[0], speculative=speculative)
                return self._send(200, text=text, kind="text/plain; version=0.0.4; charset=utf-8")
            case "/_sim/streams":
                return self._send(200, engine.streams(times="times" in parse_qs(path.query)))
            case "/v1/chat/completions" | "/v1/completions":
                return self._send(405, {"detail": "Method Not Allowed"})
        return self._send(404, {"detail": "Not Found"})

    def do_DELETE(self) -> None:
        if urlsplit(self.path).path != "/_sim/streams":
            return self._send(404, {"detail": "Not Found"})
        self.owner.engine.forget()
        return self._send(200, {})

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        try:
            if not self._authorised(path):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return self._send(401, {"error": "Unauthorized"})
            body = self._body()
            if path == "/_sim/scenario":
                self.owner.engine.scenario = scenario.make(body)
                return self._send(200, {})
            if path in ("/v1/chat/completions", "/v1/completions"):
                return self._generate(check(body, self.owner.flags, chat=path == "/v1/chat/completions"))
            if path in ("/v1/chat/completions/render", "/v1/completions/render"):
                request = check(body, self.owner.flags, chat=path == "/v1/chat/completions/render")
                return self._send(200, rendered(request) if request.chat else [rendered(request)])
            return self._send(404, {"detail": "Not Found"})
        except ApiError as error:
            return self._send(error.status, error.body())
        except scenario.ScenarioError as error:
            return self._send(400, {"error": str(error)})

    def _model(self, name: str) -> dict[str, Any]:
        flags = self.owner.flags
        permission = {"id": f"modelperm-{uuid.uuid4().hex[:16]}", "object": "model_permission", "created": self.owner.started}
        allowed = {"allow_create_engine": False, "allow_sampling": True, "allow_logprobs": True, "allow_search_indices": False}
        allowed |= {"allow_view": True, "allow_fine_tuning": False}
        return {
            **{"id": name, "object": "model", "created": self.owner.started, "owned_by": "vllm", "root": flags.model, "parent": None},
            **{
                "max_model_len": flags.max_model_len,
                "permission": [{**permission, **allowed, "organization": "*", "group": None, "is_blocking": False}],
            },
        }

    # ---------------------------------------------------------------- generation
    def _generate(self, request: Request) -> None:
        engine = self.owner.engine
        fault = engine.scenario.fault
        if fault.http_status:
            raise ApiError(fault.http_status, DEAD, "InternalServerError")
        if fault.vision == "none" and picture.urls(request.body):
            raise ApiError(400, f"{request.model} is not a multimodal model")
        prefix = "chatcmpl" if request.chat else "cmpl"
        stream = Stream(f"{prefix}-{uuid.uuid4().hex[:16]}", self.arrived, request.prompt_tokens, request.streaming)
        try:
            number = engine.begin(stream)
        except Aborted:
            raise ApiError(503, "The engine is shutting down.", "ServiceUnavailableError") from None
        finish = "error"
        try:
            hung = fault.hung or 0 <= fault.hang_after < number
            finish = self._play(request, stream, hung=hung, dying=0 <= fault.die_after < number)
        except (ClientGone, ConnectionError):
            finish = "abort"
            self.close_connection = True
        except Aborted:
            finish = "abort"
            if not request.streaming:
                raise ApiError(500, DEAD, "InternalServerError") from None
        finally:
            engine.close(stream, finish)

    def _play(self, request: Request, stream: Stream, *, hung: bool, dying: bool) -> str:
        engine = self.owner.engine
        script, fault = engine.scenario.stream, engine.scenario.fault
        due = math.inf if hung else stream.received + script.ttft_ms / 1e3
        if fault.garbage_from > 1:
            # Requests that are sent at once shall count as parallel although one of them comes first.
            engine.wait_until(stream.received + script.ttft_ms / 2e3, self._gone)
        broken = fault.garbage if engine.concurrency >= fault.garbage_from else ""
        reply = answer(
            request.body,
            self.owner.flags,
            limit=request.limit,
            broken=broken,
            tools_in_text=fault.tools_in_text,
            blind=fault.vision == "blind",
            thoughts=script.reasoning_first,
        )
        if request.streaming:
            return Writer(self, request, stream, reply).play(due, dying=dying)
        for position in range(0, len(reply.pieces), script.tokens_per_chunk):
            now = engine.wait_until(due, self._gone)
            count = min(script.tokens_per_chunk, len(reply.pieces) - position)
            engine.count(stream, count)
            stream.sent(count, now, now, visible=True)
            due += engine.step_s()
            if dying:
                self.owner.die()
                raise ConnectionAbortedError
        self._whole(request, stream, reply)
        return reply.finish

    def _whole(self, request: Request, stream: Stream, reply: Answer) -> None:
        broken = self.owner.engine.scenario.fault.nan_logprobs
        if request.logprobs is not None and broken:
            raise ApiError(500, NAN, "Internal Server Error")
        choice: dict[str, Any] = {"index": 0}
        pieces = reply.pieces
        if request.chat:
            choice |= {"message": message(pieces), "logprobs": None}
            if request.logprobs is not None:
                choice["logprobs"] = chat_logprobs(pieces, request.logprobs, 0, broken=False)
        else:
            choice |= {"text": "".join(piece.text for piece in pieces if piece.kind == "content"), "logprobs": None}
            if request.logprobs is not None:
                choice["logprobs"] = completion_logprobs(pieces)
        choice |= {"finish_reason": reply.finish, "stop_reason": END_OF_TURN if reply.finish != "length" else None}
        document = {
            **{"id": stream.id, "object": "chat.completion" if request.chat else "text_completion", "created": int(time.time())},
            **{"model": request.model, "choices": [choice], "service_tier": None, "system_fingerprint": None},
            **{"usage": {**usage(request.prompt_tokens, len(pieces)), "prompt_tokens_details": None}, "prompt_logprobs": None},
        }
        if self.owner.engine.scenario.stream.usage == "none":
            document["usage"] = None
        self.owner.engine.end(stream, reply.finish)
        self._send(200, document)


class Held(NamedTuple):
    """A step that has not left yet: its event's bytes (none if it makes no event), its tokens, when it was due."""

    data: bytes
    tokens: int
    due: float
    visible: bool


class Writer:
    """Writes one answer as server-sent events, each at its time."""

    def __init__(self, handler: Handler, request: Request, stream: Stream, reply: Answer) -> None:
        self.handler, self.request, self.stream, self.reply = handler, request, stream, reply
        self.engine = handler.owner.engine
        self.script = self.engine.scenario.stream
        self.broken = self.engine.scenario.fault.nan_logprobs
        self.kind = "chat.completion.chunk" if request.chat else "text_completion"
        self.head = {"id": stream.id, "object": self.kind, "created": int(time.time()), "model": request.model}
        self.held: list[Held] = []

    # ---------------------------------------------------------------- bytes
    def _raw(self, data: bytes, size: int = 0) -> list[tuple[int, float]]:
        """Send bytes as HTTP chunks: one, or several in TCP segments of their own. Returns where each ends and when it left."""
        connection = self.handler.connection
        size = size or max(1, len(data))
        left = []
        for start in range(0, len(data), size):
            part = data[start : start + size]
            chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
            left.append((start + len(part), time.monotonic()))
            connection.sendall(chunk)
            if start + size < len(data):
                time.sleep(SPLIT_PAUSE_S)
        return left

    def _bytes(self, document: Mapping[str, Any]) -> bytes:
        data = json.dumps(without_nan(document), ensure_ascii=False, separators=(",", ":"))
        return f"data: {data}\n\n".encode()

    def _event(self, document: Mapping[str, Any]) -> None:
        self._raw(self._bytes(document), self.script.tcp_split)

    def _document(self, choices: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        document: dict[str, Any] = {**self.head, "choices": choices}
        if self.request.continuous_usage and self.script.usage == "asked":
            document["usage"] = usage(self.request.prompt_tokens, tokens)
        return document

    def _chunk(self, choices: list[dict[str, Any]], tokens: int) -> None:
        self._event(self._document(choices, tokens))

    def _flush(self) -> None:
        """Send what is held, and note for each step when the last byte of its event left."""
        held, self.held = self.held, []
        left = self._raw(b"".join(step.data for step in held), self.script.tcp_split)
        end = 0
        for step in held:
            end += len(step.data)
            at = next(at for upto, at in left if upto >= end) if step.data else step.due
            self.stream.sent(step.tokens, at, left[-1][1] if left else step.due, visible=step.visible)

    def _start(self) -> None:
        handler = self.handler
        handler._access(200)
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()

    def _end(self, tokens: int, finish: str) -> None:
        # Before the client can know: who reads the end of a stream finds it in the metrics and the true times.
        self.engine.end(self.stream, finish)
        if self.request.include_usage and self.script.usage != "none":
            self._event({**self.head, "choices": [], "usage": usage(self.request.prompt_tokens, tokens)})
        self._raw(b"data: [DONE]\n\n")
        self.handler.connection.sendall(b"0\r\n\r\n")

    def _role(self, now: float) -> None:
        """Hold the chunk with the role; in a packet with others it waits for them."""
        if self.request.chat:
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            self.held.append(Held(self._bytes(self._document([choice], 0)), 0, now, False))

    # ---------------------------------------------------------------- the answer
    def _choice(self, group: Sequence[Piece], position: int, finish: str | None) -> dict[str, Any]:
        logprobs = None
        if self.request.logprobs is not None and self.request.chat:
            logprobs = chat_logprobs(group, self.request.logprobs, position, broken=self.broken)
        choice: dict[str, Any] = {"index": 0}
        if self.request.chat:
            choice["delta"] = delta(group)
        else:
            choice["text"] = "".join(piece.text for piece in group if piece.kind == "content")
        choice |= {"logprobs": logprobs, "finish_reason": finish}
        if finish:
            choice["stop_reason"] = END_OF_TURN if finish != "length" else None
        return choice

    def play(self, due: float, *, dying: bool) -> str:
        """Send everything; returns why the answer ended. Raises ClientGone, ConnectionError, and Aborted after telling the client."""
        script, gone = self.script, self.handler._gone
        # As with vLLM the headers come at once, the role with the first token.
        self._start()
        tokens = made = 0
        try:
            if script.role_chunk == "at_once":
                self._role(self.stream.received)
                self._flush()
            for group, visible in chunks(self.reply.pieces, script.tokens_per_chunk, script):
                if script.keep_alive_every and made % script.keep_alive_every == 0:
                    self.engine.wait_until(due - (self.engine.step_s() / 2 if made else script.ttft_ms / 2e3), gone)
                    self._raw(b": keep-alive\n\n")
                now = self.engine.wait_until(due, gone)
                if made == 0 and script.role_chunk == "first_token":
                    self._role(now)
                    if script.tcp_merge == 1:
                        self._flush()
                made += 1
                if dying and tokens >= DIES_AFTER:
                    self.handler.owner.die()
                    raise ConnectionAbortedError
                if 0 <= script.cut_after <= tokens:
                    self._flush()
                    self.handler.connection.shutdown(socket.SHUT_RDWR)
                    raise ConnectionAbortedError
                if 0 <= script.error_after <= tokens:
                    self._flush()
                    return self._error(DEAD)
                tokens += len(group)
                data = b""
                if visible or self.request.logprobs is not None:
                    finish = self.reply.finish if tokens == len(self.reply.pieces) else None
                    data = self._bytes(self._document([self._choice(group, tokens - len(group), finish)], tokens))
                self.engine.count(self.stream, len(group))
                self.held.append(Held(data, len(group), now, visible))
                if sum(1 for step in self.held if step.tokens) >= script.tcp_merge or tokens == len(self.reply.pieces):
                    self._flush()
                due += self.engine.step_s()
        except Aborted:
            self._flush()
            self._chunk([{"index": 0, "delta": {"content": ""}, "logprobs": None, "finish_reason": "abort", "stop_reason": None}], tokens)
            self._end(tokens, "abort")
            raise
        self._end(tokens, self.reply.finish)
        return self.reply.finish

    def _error(self, text: str) -> str:
        self._event({"error": {"message": text, "type": "InternalServerError", "param": None, "code": 500}})
        self._raw(b"data: [DONE]\n\n")
        self.handler.connection.sendall(b"0\r\n\r\n")
        return "error"


class ScriptedServer:
    """A scripted vLLM in threads of this process, on a free port of the loopback interface.

    `scenario_` is a scenario's JSON object or the name of one, `flags` the command line (the article's by default). Raises
    ScenarioError, UsageError and FlagError.
    """

    def __init__(
        self,
        played: Mapping[str, Any] | str = "good",
        flags: Sequence[str] | None = None,
        *,
        version: str = VERSION,
        api_key: str = "",
    ) -> None:
        parsed = parse(ARTICLE if flags is None else flags, version)
        script = scenario.load(played) if isinstance(played, str) else scenario.make(played)
        keys: list[str] = [*parsed.given.get("api-key", []), api_key]
        self.requests: list[str] = []
        self.server = Server(("127.0.0.1", 0), parsed, script, version, keys, self.requests.append, self._die)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def _die(self) -> None:
        """The engine died: nobody listens any more."""
        self.server.socket.close()

    @property
    def base_url(self) -> str:
        """http://127.0.0.1:PORT, without /v1."""
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def engine(self) -> Engine:
        """What runs, and the true times."""
        return self.server.engine

    def streams(self) -> list[Stream]:
        """The requests that are over, in the order of their end."""
        return list(self.engine.done)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.engine.stop(0)
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(timeout=5)
