# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Ollama's API as far as giving memory back, and taking it again for a measurement, needs it.

Unloading is asynchronous: C(/api/generate) with C(keep_alive) 0 answers at once, the model goes when no request uses it any more, and on a
GB10 "gone from /api/ps" does not prove that its memory is back (Ollama itself waits for that on discrete GPUs only).

Loading decides once where the weights lie: what does not fit into the memory that is free at that moment goes to the CPU, and only
/api/ps shows it.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

REQUEST_S = 10.0
# The rest of what a model took may stay with the process (buffers, the runner's own heap). Only the GPU's part counts: it is the box's
# own memory on a GB10, while the CPU's part is a mapped file, which never lowered what is available.
BACK_SHARE = 0.9
# Ollama's sizes are estimates, and other programs move memory too: when nothing more has come back for so long, nothing will.
SETTLED_S = 15.0
NOISE = 64 * 1024**2  # bytes by which a box's memory moves by itself
ASK_AGAIN_S = 5.0
# A model takes more than its file: buffers, and the KV cache of a short context.
ROOM = 1.25


class OllamaError(Exception):
    """Ollama answered with an error, or not in time; the message names cause and remedy."""


class OllamaRefuses(OllamaError):
    """Ollama answered with an error."""


@dataclass(frozen=True)
class Model:
    """A loaded model; sizes in bytes. Ollama lets go of it at C(expires), a time.time(); None when it does not say."""

    name: str
    size: int
    size_vram: int
    expires: float | None = None

    @property
    def split(self) -> dict[str, Any] | None:
        """The shares of CPU and GPU when a part of it lies in the CPU's memory, as C(ollama ps) rounds them. None when all is on the GPU,
        or nobody knows."""
        if not 0 <= self.size_vram < self.size:
            return None
        cpu = round(100 * (self.size - self.size_vram) / self.size)
        return {"name": self.name, "cpu_percent": cpu, "gpu_percent": 100 - cpu}


@dataclass(frozen=True)
class Stored:
    """A model on Ollama's disk; size in bytes, quantization in Ollama's words (Q4_K_M), None when it does not say."""

    name: str
    size: int
    quantization: str | None = None


Named = TypeVar("Named", Model, Stored)


@dataclass(frozen=True)
class Freed:
    """What came back: bytes, and a warning when it is much less than expected."""

    size: int
    warning: str | None = None


class Ollama:
    """One Ollama, by its URL. Proxies are not used: it is the box's own."""

    def __init__(self, url: str, timeout: float = REQUEST_S) -> None:
        self.url = url
        self._timeout = timeout
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise OllamaError(f"{url} is no URL of an Ollama, such as http://127.0.0.1:11434")

    @property
    def port(self) -> int:
        return self._parts.port or (443 if self._parts.scheme == "https" else 80)

    def version(self) -> str | None:
        """Its version; None when nobody listens. Raises OllamaError."""
        try:
            return str(self._call("GET", "/api/version").get("version"))
        except ConnectionRefusedError:
            return None

    def loaded(self) -> list[Model] | None:
        """What is loaded; None when nobody listens. Raises OllamaError."""
        try:
            answer = self._call("GET", "/api/ps")
        except ConnectionRefusedError:
            return None
        try:
            return [
                Model(str(m["name"]), int(m.get("size") or 0), int(m.get("size_vram") or 0), _moment(m.get("expires_at")))
                for m in answer["models"] or []
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OllamaError(f"{self.url} does not speak Ollama's API (/api/ps: {error!r}): correct the URL") from error

    def stored(self) -> list[Stored] | None:
        """What is on its disk; None when nobody listens. Raises OllamaError."""
        try:
            answer = self._call("GET", "/api/tags")
        except ConnectionRefusedError:
            return None
        try:
            return [
                Stored(str(m["name"]), int(m.get("size") or 0), (m.get("details") or {}).get("quantization_level") or None)
                for m in answer["models"] or []
            ]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OllamaError(f"{self.url} does not speak Ollama's API (/api/tags: {error!r}): correct the URL") from error

    def load(self, name: str, timeout: float) -> None:
        """Load a model, and return when it is loaded, after at most C(timeout) seconds. Raises OllamaError."""
        try:
            self._call("POST", "/api/generate", {"model": name}, timeout)
        except ConnectionRefusedError as error:
            raise OllamaError(f"Ollama at {self.url} does not listen any more: look at 'journalctl -u ollama'") from error

    def unload(self, name: str) -> None:
        """Ask a model to go. Raises OllamaError; a connection that is refused means that all are gone."""
        try:
            try:
                self._call("POST", "/api/generate", {"model": name, "keep_alive": 0})
            except OllamaRefuses as first:
                # A model for embeddings only does not generate.
                try:
                    self._call("POST", "/api/embed", {"model": name, "input": "", "keep_alive": 0})
                except OllamaRefuses:
                    raise first from None
        except ConnectionRefusedError:
            return

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, timeout: float | None = None) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=timeout or self._timeout)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, json.dumps(body) if body else None)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise OllamaError(
                f"Ollama at {self.url} does not answer {path} ({error}): look at 'journalctl -u ollama', then 'systemctl restart ollama'"
            ) from error
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if response.status != 200:
            reason = answer.get("error", text) if isinstance(answer, dict) else text
            raise OllamaRefuses(f"Ollama answers {response.status} to {path}: {str(reason)[:200]}")
        if not isinstance(answer, dict):
            raise OllamaError(f"{self.url} does not speak Ollama's API ({path}: {text[:80]!r}): correct the URL")
        return answer


def _moment(text: Any) -> float | None:
    """Go's time stamp, whose fraction may have nine digits."""
    if not isinstance(text, str):
        return None
    head, dot, tail = text.partition(".")
    zone = tail.lstrip("0123456789")
    fraction = tail[: len(tail) - len(zone)][:6].ljust(6, "0")
    try:
        return datetime.fromisoformat(f"{head}.{fraction}{zone}" if dot else text).timestamp()
    except ValueError:
        return None


def chosen(models: Sequence[Named], names: Sequence[str] | None) -> list[Named]:
    """The models that are meant: all, or those named. A name without a tag means its tag latest, and case does not matter."""
    if names is None:
        return list(models)
    wanted = {_full(name) for name in names}
    return [model for model in models if model.name.lower() in wanted]


def _full(name: str) -> str:
    # The tag is behind the last slash: a registry before it may have a port.
    return (name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest").lower()


def on_disk(ollama: Ollama, names: Sequence[str]) -> list[Stored]:
    """What Ollama has on its disk under these names, in their order. Raises OllamaError for one that it has not, or when nobody listens."""
    stored = ollama.stored()
    if stored is None:
        raise OllamaError(f"no Ollama listens at {ollama.url}: 'systemctl start ollama', or correct the URL")
    found = {model.name.lower(): model for model in stored}
    for name in names:
        if _full(name) not in found:
            raise OllamaError(f"Ollama has no model {name}: bring it with 'ollama pull {name}' on the box")
    return [found[_full(name)] for name in names]


def load(
    ollama: Ollama,
    models: Sequence[Stored],
    timeout: float,
    wait: Callable[[float, float, str], None],
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = lambda text: None,
) -> None:
    """Load these models one after the other within C(timeout) seconds, each when the memory for all of it is available.

    C(wait) waits for so many GiB, for so many seconds at most, and raises with the given remedy. Raises OllamaError for a model that is not
    loaded afterwards.
    """
    deadline = clock() + timeout
    for model in models:
        tell(f"loading {model.name} ({model.size / 1e9:.1f} GB)")
        remedy = f"stop what holds it, or Ollama splits {model.name} between CPU and GPU"
        wait(ROOM * model.size / 2**30, max(0.0, deadline - clock()), remedy)
        ollama.load(model.name, max(REQUEST_S, deadline - clock()))
        if not chosen(ollama.loaded() or [], [model.name]):
            raise OllamaError(
                f"Ollama loaded {model.name} and let go of it at once: set OLLAMA_KEEP_ALIVE to more than 0, and see 'journalctl -u ollama'"
            )


def unload(
    ollama: Ollama,
    names: Sequence[str] | None,
    available: Callable[[], int],
    timeout: float,
    clients: Callable[[], Sequence[str]] = tuple,
    poll: float = 0.5,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = lambda text: None,
) -> Freed:
    """Ask models to go, and wait for at most C(timeout) seconds until they are gone and their memory is back.

    What a client loads meanwhile is asked again. C(available) reads MemAvailable in bytes; C(clients) tells who is connected to Ollama,
    as evidence. Raises OllamaError with what is known when the time is up.
    """
    before, deadline = available(), clock() + timeout
    taken: dict[str, int] = {}
    asked: dict[str, float] = {}
    again = 0
    while left := chosen(ollama.loaded() or [], names):
        tell(f"waiting until Ollama lets go of {', '.join(model.name for model in left)}")
        for model in left:
            taken[model.name] = max(model.size_vram, taken.get(model.name, 0))
            # One that was asked is due at once. If it is not, a client has used or loaded it since.
            comes_back = model.expires is None or model.expires > time.time() + 1
            if model.name not in asked or (comes_back and clock() - asked[model.name] >= ASK_AGAIN_S):
                again += model.name in asked
                ollama.unload(model.name)
                asked[model.name] = clock()
        if clock() >= deadline:
            raise OllamaError(_stuck(left, timeout, again, clients()))
        sleep(poll)
    return _wait_memory(sorted(taken), sum(taken.values()), available, before, deadline, timeout, poll, sleep, clock)


def _stuck(left: Sequence[Model], timeout: float, again: int, clients: Sequence[str]) -> str:
    models = ", ".join(f"{model.name} ({model.size / 2**30:.1f} GiB)" for model in left)
    if clients:
        shown = ", ".join(sorted(clients)[:3])
        why = f"{len(clients)} connections of clients are open ({shown}), and Ollama waits for requests in flight"
    else:
        why = "no client is connected, so it is stuck"
    if again:
        why += f"; it was asked {again} more times, because it was used or loaded again"
    return f"{models} did not unload within {timeout:g} s: {why}. End the clients, or 'systemctl restart ollama', and run again"


def _wait_memory(
    names: Sequence[str],
    size: int,
    available: Callable[[], int],
    before: int,
    deadline: float,
    timeout: float,
    poll: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Freed:
    expected = int(BACK_SHARE * size)
    best, moved = available() - before, clock()
    while best < expected:
        progress = f"{', '.join(names)} unloaded, but only {max(best, 0) / 2**30:.1f} of {size / 2**30:.1f} GiB came back"
        if clock() - moved >= SETTLED_S:
            return Freed(max(best, 0), f"{progress}, and nothing more in the last {SETTLED_S:g} s: something else took it, or it was less")
        if clock() >= deadline:
            raise OllamaError(f"{progress} within {timeout:g} s: 'systemctl restart ollama' gives the rest back, or allow more time")
        sleep(poll)
        freed = available() - before
        if freed > best + NOISE:
            moved = clock()
        best = max(best, freed)
    return Freed(max(best, 0))
