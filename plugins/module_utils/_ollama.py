# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Ollama's API as far as giving memory back needs it.

Unloading is asynchronous: C(/api/generate) with C(keep_alive) 0 answers at once, the model goes when no request uses it any more, and on a
GB10 "gone from /api/ps" does not prove that its memory is back (Ollama itself waits for that on discrete GPUs only).
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

REQUEST_S = 10.0
# The rest of what a model took may stay with the process (buffers, the runner's own heap). Only the GPU's part counts: it is the box's
# own memory on a GB10, while the CPU's part is a mapped file, which never lowered what is available.
BACK_SHARE = 0.9


class OllamaError(Exception):
    """Ollama answered with an error, or not in time; the message names cause and remedy."""


@dataclass(frozen=True)
class Model:
    """A loaded model; sizes in bytes."""

    name: str
    size: int
    size_vram: int

    @property
    def split(self) -> dict[str, Any] | None:
        """The shares of CPU and GPU when it lies in both, as C(ollama ps) rounds them. None when it does not, or nobody knows."""
        if not 0 < self.size_vram < self.size:
            return None
        cpu = round(100 * (self.size - self.size_vram) / self.size)
        return {"name": self.name, "cpu_percent": cpu, "gpu_percent": 100 - cpu}


class Ollama:
    """One Ollama, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._parts = urllib.parse.urlsplit(url)
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise OllamaError(f"{url} is no URL of an Ollama, such as http://127.0.0.1:11434")

    def loaded(self) -> list[Model] | None:
        """What is loaded; None when nobody listens. Raises OllamaError."""
        try:
            answer = self._call("GET", "/api/ps")
        except ConnectionRefusedError:
            return None
        return [Model(m["name"], int(m.get("size") or 0), int(m.get("size_vram") or 0)) for m in answer.get("models") or []]

    def unload(self, name: str) -> None:
        """Ask a model to go. Raises OllamaError."""
        try:
            self._call("POST", "/api/generate", {"model": name, "keep_alive": 0})
        except OllamaError:
            # A model for embeddings only does not generate.
            self._call("POST", "/api/embed", {"model": name, "input": "", "keep_alive": 0})

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=REQUEST_S)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, json.dumps(body) if body else None)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise OllamaError(f"Ollama at {self.url} does not answer {path} ({error}): systemctl restart ollama") from error
        finally:
            connection.close()
        try:
            answer: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise OllamaError(f"{self.url} does not speak Ollama's API ({path}: {text[:80]!r})") from error
        if response.status != 200:
            raise OllamaError(f"Ollama answers {response.status} to {path}: {answer.get('error', text)[:200]}")
        return answer


def chosen(loaded: Sequence[Model], names: Sequence[str] | None) -> list[Model]:
    """The loaded models that are meant: all, or those named. A name without a tag means its tag latest, and case does not matter."""
    if names is None:
        return list(loaded)
    wanted = {(name if ":" in name else f"{name}:latest").lower() for name in names}
    return [model for model in loaded if model.name.lower() in wanted]


def wait_unloaded(
    ollama: Ollama,
    models: Sequence[Model],
    available: Callable[[], int],
    before: int,
    timeout: float,
    poll: float = 0.5,
) -> int:
    """Wait until the models are gone and their memory is back; the freed bytes. Raises OllamaError with what is known when the time is up.

    C(available) reads MemAvailable in bytes, C(before) is what it was when they were asked to go.
    """
    deadline = time.monotonic() + timeout
    names = {model.name for model in models}
    expected = int(BACK_SHARE * sum(model.size_vram for model in models))
    while True:
        left = [model.name for model in ollama.loaded() or [] if model.name in names]
        freed = available() - before
        if not left and freed >= expected:
            return freed
        if time.monotonic() >= deadline:
            break
        time.sleep(poll)
    if left:
        raise OllamaError(
            f"{', '.join(left)} did not unload within {timeout:g} s: a client may be using it, or it is stuck."
            " End the clients, or 'systemctl restart ollama', and run again"
        )
    raise OllamaError(
        f"{', '.join(sorted(names))} unloaded, but only {freed / 2**30:.1f} of {expected / 2**30:.1f} GiB came back within {timeout:g} s:"
        " 'systemctl restart ollama' gives the rest back"
    )
