# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A stand-in for Ollama: its API, models that take memory, and an unload that is asynchronous and waits for requests in flight.

On a simulated box it takes memory from /proc/meminfo (module `memory`). `GET /_sim/state` shows the state, `POST /_sim/state`
changes settings and what is loaded, e.g. `{"loaded": [{"name": "gemma4:26b", "size": 17e9, "size_vram": 5.8e9}], "stuck": true}`;
the file given by --settings has the same form. In tests `Ollama()` runs it in a thread. Python's standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

VERSION = "0.12.10"
PORT = 11434
KEEP_ALIVE_S = 300.0
# Parts of sentences. Each is counted through at its own pace, so that they repeat after 420 sentences: a long answer is no loop.
WHO = ("The old keeper", "A young sailor", "The village", "Her brother", "The captain")
DID = ("looked at", "waited for", "wrote about", "remembered", "walked towards", "could not forget", "sang of")
WHAT = ("the light on the rocks", "the first ship of the year", "a storm from the north", "the long stairs", "the sea", "every night there")


def prose() -> Iterator[str]:
    """The words of an English text without end, each with the space behind it."""
    for number in itertools.count():
        sentence = f"{WHO[number % 5]} {DID[number % 7]} {WHAT[number // 2 % 6]}."
        yield from (f"{word} " for word in sentence.split())


@dataclass
class Settings:
    """How it behaves."""

    stored: dict[str, float] = field(default_factory=lambda: {"gemma4:26b": 17e9})  # models on disk: name → bytes
    load_delay: float = 0.3  # seconds until a model is loaded
    unload_delay: float = 0.5  # seconds from "nobody uses it" until it is gone from /api/ps
    memory_delay: float = 1.0  # further seconds until its memory is back
    stuck: bool = False  # models never unload
    tok_s: float = 40.0  # tokens per second
    ttft: float = 0.1  # seconds to the first token
    gpu_share: float = 1.0  # share of a newly loaded model that lies in GPU memory
    error: str = ""  # every request for a model is answered 500 with this text
    num_parallel: int = 1  # requests that are answered at once; the others wait in line
    tools: bool = False  # the model calls tools; else a request with tools is refused
    dies_after: int = -1  # after so many requests of /v1/chat/completions, the runner dies in the middle of the answer


@dataclass
class Loaded:
    """A model in memory."""

    name: str
    size: int
    size_vram: int
    expires: float  # time.time()
    users: int = 0
    leaving: bool = False


class Models:
    """The models in memory: loading, using, unloading. `claim(name, bytes)` and `release(name)` tell who keeps the box's memory."""

    def __init__(self, settings: Settings, claim: Callable[[str, int], None], release: Callable[[str], None]) -> None:
        self.settings = settings
        self._claim = claim
        self._release = release
        self._loaded: dict[str, Loaded] = {}
        self._loading: set[str] = set()
        self._lock = threading.Condition()
        self._closed = False
        threading.Thread(target=self._expire, daemon=True).start()

    def known(self, name: str) -> str | None:
        """The full name of a stored model; Ollama does not care for case, and `latest` may be left out."""
        wanted = name.lower() if ":" in name else f"{name.lower()}:latest"
        return next((model for model in self.settings.stored if model.lower() == wanted), None)

    def listing(self) -> list[Loaded]:
        """What is in memory now."""
        with self._lock:
            return list(self._loaded.values())

    def put(self, name: str, size: int, size_vram: int, keep_alive: float = KEEP_ALIVE_S) -> None:
        """This model is in memory at once, whatever was before."""
        with self._lock:
            self._loaded[name] = Loaded(name, size, size_vram, time.time() + keep_alive)
            self._claim(name, size)

    def use(self, name: str, keep_alive: float) -> None:
        """A request begins to use the model; it is loaded when it is not."""
        with self._lock:
            # A model on its way out is gone first, as in Ollama's scheduler.
            self._lock.wait_for(lambda: name not in self._loading and (name not in self._loaded or not self._loaded[name].leaving))
            if name not in self._loaded:
                size = int(self.settings.stored[name])
                self._loading.add(name)
                self._lock.wait_for(lambda: False, timeout=self.settings.load_delay)
                self._loading.discard(name)
                self._lock.notify_all()
                self._loaded[name] = Loaded(name, size, int(size * self.settings.gpu_share), 0)
                self._claim(name, size)
            model = self._loaded[name]
            model.users += 1
            model.expires = time.time() + keep_alive

    def done(self, name: str) -> None:
        """A request ends."""
        with self._lock:
            if name in self._loaded:
                self._loaded[name].users -= 1
            self._lock.notify_all()

    def unload(self, name: str) -> None:
        """Ask the model to go; returns at once."""
        with self._lock:
            model = self._loaded.get(name)
            if model is None:
                return
            model.expires = time.time()
            self._lock.notify_all()

    def _expire(self) -> None:
        """Let models go whose time is over, when nobody uses them."""
        with self._lock:
            while not self._closed:
                now = time.time()
                due = [m for m in self._loaded.values() if m.expires <= now and not m.users and not m.leaving and not self.settings.stuck]
                for model in due:
                    model.leaving = True
                    threading.Thread(target=self._leave, args=(model,), daemon=True).start()
                waiting = [m.expires - now for m in self._loaded.values() if m.expires > now]
                self._lock.wait(min([*waiting, 60.0]))

    def _leave(self, model: Loaded) -> None:
        time.sleep(self.settings.unload_delay)
        with self._lock:
            if self._loaded.get(model.name) is model:
                del self._loaded[model.name]
            self._lock.notify_all()
        time.sleep(self.settings.memory_delay)
        with self._lock:
            if model.name not in self._loaded:
                self._release(model.name)

    def clear(self) -> None:
        """Nothing is in memory, at once."""
        with self._lock:
            for name in list(self._loaded):
                del self._loaded[name]
                self._release(name)
            self._lock.notify_all()

    def changed(self) -> None:
        """The settings have changed."""
        with self._lock:
            self._lock.notify_all()

    def close(self) -> None:
        """Give everything back."""
        self.clear()
        with self._lock:
            self._closed = True
            self._lock.notify_all()


def _seconds(value: Any) -> float:
    """keep_alive as Ollama takes it: seconds, or a text such as "5m"; negative means for ever. Raises ValueError."""
    if value is None:
        return KEEP_ALIVE_S
    if isinstance(value, str):
        units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
        unit = next((u for u in units if value.endswith(u) and value[: -len(u)].lstrip("-").replace(".", "", 1).isdigit()), "")
        if not unit and value not in ("0", "-1"):
            raise ValueError(f'time: missing unit in duration "{value}"')
        value = float(value[: -len(unit)]) * units[unit] if unit else float(value)
    seconds = float(value)
    return seconds if seconds >= 0 else 1e9


def _stamp(moment: float | None = None) -> str:
    return datetime.fromtimestamp(time.time() if moment is None else moment, UTC).isoformat().replace("+00:00", "Z")


class OllamaServer(ThreadingHTTPServer):
    """The server, its settings and its models."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], settings: Settings, models: Models) -> None:
        super().__init__(address, _Handler)
        self.settings = settings
        self.models = models
        self.requests: list[dict[str, Any]] = []
        self._answering = 0
        self._line = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait in line until the request may be answered."""
        with self._line:
            self._line.wait_for(lambda: self._answering < self.settings.num_parallel)
            self._answering += 1
        try:
            yield
        finally:
            with self._line:
                self._answering -= 1
                self._line.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to report."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: OllamaServer
    protocol_version = "HTTP/1.1"
    timeout = 300

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    # ------------------------------------------------------------------ answers
    def _json(self, document: Any, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin_stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    # ------------------------------------------------------------------ requests
    def do_GET(self) -> None:
        """Any GET or HEAD."""
        path = self.path.split("?")[0]
        if path == "/":
            body = b"Ollama is running"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        elif path == "/api/version":
            self._json({"version": VERSION})
        elif path == "/api/tags":
            stored = self.server.settings.stored.items()
            self._json({"models": [self._model(name, int(size)) | {"modified_at": _stamp(0)} for name, size in stored]})
        elif path == "/api/ps":
            self._json({"models": [self._running(model) for model in self.server.models.listing()]})
        elif path == "/v1/models":
            entries = [{"id": name, "object": "model", "created": 0, "owned_by": "library"} for name in self.server.settings.stored]
            self._json({"object": "list", "data": entries})
        elif path == "/_sim/state":
            self._state()
        elif path == "/_sim/requests":
            self._json(self.server.requests)
        else:
            self._json({"error": "404 page not found"}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Any POST."""
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(text or b"{}")
        except ValueError as error:
            self._json({"error": f"invalid request: {error}"}, 400)
            return
        path = self.path.split("?")[0]
        if path == "/_sim/state":
            self._change(body)
            return
        self.server.requests.append({"path": path, "body": body, "authorization": self.headers.get("Authorization")})
        if path in ("/api/generate", "/api/chat", "/v1/chat/completions"):
            self._generate(path, body)
        else:
            self._json({"error": "404 page not found"}, 404)

    def _model(self, name: str, size: int) -> dict[str, Any]:
        details = {"parent_model": "", "format": "gguf", "family": "gemma4", "families": ["gemma4"]}
        quantized = {"parameter_size": "25.2B", "quantization_level": "Q4_K_M"}
        digest = hashlib.sha256(name.encode()).hexdigest()
        return {"name": name, "model": name, "size": size, "digest": digest, "details": details | quantized}

    def _running(self, model: Loaded) -> dict[str, Any]:
        more = {"expires_at": _stamp(min(model.expires, 4e9)), "size_vram": model.size_vram, "context_length": 4096}
        return self._model(model.name, model.size) | more

    def _generate(self, path: str, body: dict[str, Any]) -> None:
        server = self.server
        openai = path.startswith("/v1/")
        name = server.models.known(str(body.get("model", "")))
        if name is None:
            message = f"model '{body.get('model', '')}' not found"
            self._json({"error": {"message": message, "type": "not_found_error"}} if openai else {"error": message}, 404)
            return
        if server.settings.error:
            self._json({"error": server.settings.error}, 500)
            return
        try:
            keep_alive = _seconds(body.get("keep_alive"))
        except ValueError as error:
            self._json({"error": str(error)}, 400)
            return
        if not openai and not (body.get("prompt") or body.get("messages")):
            self._load_or_unload(path, name, keep_alive)
            return
        server.models.use(name, keep_alive)
        try:
            with server.turn():
                if openai:
                    self._openai(name, body)
                else:
                    self._native(path, name, body)
        finally:
            server.models.done(name)

    def _load_or_unload(self, path: str, name: str, keep_alive: float) -> None:
        empty: dict[str, Any] = {"message": {"role": "assistant", "content": ""}} if path == "/api/chat" else {"response": ""}
        if keep_alive == 0:
            self.server.models.unload(name)
            reason = "unload"
        else:
            self.server.models.use(name, keep_alive)
            self.server.models.done(name)
            reason = "load"
        self._json({"model": name, "created_at": _stamp(), **empty, "done": True, "done_reason": reason})

    def _tokens(self, count: int) -> list[str]:
        return list(itertools.islice(prose(), count))

    def _pace(self, started: float, index: int) -> None:
        due = started + self.server.settings.ttft + index / self.server.settings.tok_s
        time.sleep(max(0.0, due - time.monotonic()))

    def _native(self, path: str, name: str, body: dict[str, Any]) -> None:
        started = time.monotonic()
        words = self._tokens(int((body.get("options") or {}).get("num_predict") or 40))
        streams = body.get("stream", True)

        def part(text: str) -> dict[str, Any]:
            content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if path == "/api/chat" else {"response": text}
            return {"model": name, "created_at": _stamp(), **content}

        if streams:
            self._begin_stream("application/x-ndjson")
        for index, word in enumerate(words):
            self._pace(started, index)
            if streams:
                self._chunk(json.dumps(part(word) | {"done": False}) + "\n")
        took = time.monotonic() - started
        ttft = self.server.settings.ttft
        counts = {
            "total_duration": int(took * 1e9),
            "load_duration": 0,
            "prompt_eval_count": 20,
            "prompt_eval_duration": int(ttft * 1e9),
            "eval_count": len(words),
            "eval_duration": int((took - ttft) * 1e9),
        }
        last = part("" if streams else "".join(words)) | {"done": True, "done_reason": "length", **counts}
        if streams:
            self._chunk(json.dumps(last) + "\n")
            self._end_stream()
        else:
            self._json(last)

    def _openai(self, name: str, body: dict[str, Any]) -> None:
        if body.get("tools"):
            self._call_tool(name, body["tools"][0]["function"])
            return
        started = time.monotonic()
        words = self._tokens(int(body.get("max_tokens") or body.get("max_completion_tokens") or 40))
        if not body.get("stream"):
            self._pace(started, len(words) - 1)
            self._whole(name, {"content": "".join(words)}, "length", len(words))
            return
        asked = sum(1 for request in self.server.requests if request["path"] == "/v1/chat/completions")
        dies = 0 <= self.server.settings.dies_after < asked
        self._begin_stream("text/event-stream")
        chunk = {**self._common(name), "object": "chat.completion.chunk"}
        for index, word in enumerate(words[: len(words) // 2] if dies else words):
            self._pace(started, index)
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            self._chunk(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n")
        if dies:
            error = {"message": "llama runner process has terminated: exit status 2", "type": "api_error"}
            self._chunk(f"data: {json.dumps({'error': error})}\n\n")
            self._end_stream()
            return
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "length"}
        self._chunk(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n")
        if (body.get("stream_options") or {}).get("include_usage"):
            self._chunk(f"data: {json.dumps({**chunk, 'choices': [], 'usage': self._usage(len(words))})}\n\n")
        self._chunk("data: [DONE]\n\n")
        self._end_stream()

    def _call_tool(self, name: str, function: dict[str, Any]) -> None:
        """Call it for Paris, whatever was asked."""
        if not self.server.settings.tools:
            message = f"registry.ollama.ai/library/{name} does not support tools"
            self._json({"error": {"message": message, "type": "api_error"}}, 400)
            return
        arguments = json.dumps(dict.fromkeys(function["parameters"]["properties"], "Paris"))
        call = {"id": "call_1", "index": 0, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
        self._whole(name, {"content": "", "tool_calls": [call]}, "tool_calls", 20)

    def _common(self, name: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "created": int(time.time()), "model": name, "system_fingerprint": "fp_ollama"}

    def _usage(self, tokens: int) -> dict[str, int]:
        return {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}

    def _whole(self, name: str, message: dict[str, Any], reason: str, tokens: int) -> None:
        choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
        document = {**self._common(name), "object": "chat.completion", "choices": [choice], "usage": self._usage(tokens)}
        self._json(document)

    # ------------------------------------------------------------------ control
    def _state(self) -> None:
        self._json({**asdict(self.server.settings), "loaded": [asdict(model) for model in self.server.models.listing()]})

    def _change(self, body: dict[str, Any]) -> None:
        try:
            apply(self.server.settings, self.server.models, body)
        except (KeyError, TypeError, ValueError) as error:
            self._json({"error": f"{error}"}, 400)
            return
        self._state()


def apply(settings: Settings, models: Models, change: dict[str, Any]) -> None:
    """Change settings, and what is loaded when `loaded` is given. Raises KeyError for an unknown name."""
    known = {f.name for f in fields(Settings)}
    if unknown := set(change) - known - {"loaded"}:
        raise KeyError(f"unknown settings {sorted(unknown)}; known: {sorted(known | {'loaded'})}")
    for name in known & set(change):
        setattr(settings, name, change[name])
    if "loaded" in change:
        models.clear()
        for entry in change["loaded"]:
            size = int(entry.get("size", settings.stored.get(entry["name"], 17e9)))
            settings.stored.setdefault(entry["name"], size)
            models.put(entry["name"], size, int(entry.get("size_vram", size)))
    models.changed()


class Ollama:
    """An Ollama on loopback in a thread: `with Ollama(unload_delay=0.1) as ollama: … ollama.url, ollama.claims`."""

    def __init__(self, *, bind: str = "127.0.0.1", port: int = 0, **settings: Any) -> None:
        self.claims: dict[str, int] = {}  # model → bytes of memory that are taken
        self.settings = Settings()
        self.models = Models(self.settings, self.claims.__setitem__, self._released)
        apply(self.settings, self.models, settings)
        self.server = OllamaServer((bind, port), self.settings, self.models)
        self.url = "http://{}:{}".format(*self.server.server_address[:2])
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def _released(self, name: str) -> None:
        self.claims.pop(name, None)

    def __enter__(self) -> Ollama:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.models.close()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The POST requests so far: path and body."""
        return self.server.requests


def main() -> int:
    """Serve on a box until terminated; the memory is given back then."""
    memory = importlib.import_module("memory")  # the box's; a test has none

    parser = argparse.ArgumentParser(description="A stand-in for Ollama")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--settings", type=Path)
    options = parser.parse_args()

    settings = Settings()
    models = Models(
        settings,
        claim=lambda name, size: memory.claim(f"ollama-{name}", size // 1024),
        release=lambda name: memory.release(f"ollama-{name}"),
    )
    if options.settings and options.settings.exists():
        apply(settings, models, json.loads(options.settings.read_text()))
    server = OllamaServer((options.bind, options.port), settings, models)

    def stop(_signal: int, _frame: Any) -> None:
        models.close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
