# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What stands before a vLLM that wants a key. It runs inside vLLM's container, so it needs nothing but Python.

As a program it hands vLLM the key in its environment, where C(docker inspect) does not show it, and becomes the image's own command.
As vLLM's C(--middleware) it wants the key on every path: vLLM itself wants it below a few prefixes such as /v1 only, and /invocations
beside them generates like /v1/chat/completions (vLLM issue 58144; seen up to 0.32).
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

VARIABLE = "VLLM_API_KEY"
# The directory of this file and the key's in the container.
MOUNT = "/run/dgx-spark"
KEY_NAME, GUARD_NAME = "api_key", "dgx_spark_guard.py"
MIDDLEWARE = "dgx_spark_guard.RequireKey"
# What watches a server needs these, and has no key.
OPEN_PATHS = ("/health", "/metrics")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


class RequireKey:
    """ASGI middleware: 401 without the key, but for OPEN_PATHS. Streams pass through it untouched."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ[VARIABLE]}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._open(scope) or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error":"Unauthorized"}'})

    def _open(self, scope: dict[str, Any]) -> bool:
        # A browser asks with OPTIONS, and without the key, whether it may send it.
        return scope.get("method") == "OPTIONS" or scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS

    def _has_key(self, scope: dict[str, Any]) -> bool:
        given = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        scheme, _space, key = given.partition(b" ")
        return hmac.compare_digest(scheme.title() + b" " + key, self._expected)


def main(command: Sequence[str]) -> None:
    """Become C(command), with the key and with this file to be found as a module. Without a key it must not serve: exits with 1."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, KEY_NAME), encoding="utf-8") as file:
        key = file.read().strip()
    if not key:
        raise SystemExit(f"{os.path.join(here, KEY_NAME)} is empty: vLLM would serve without a key")
    os.environ[VARIABLE] = key
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in (os.environ.get("PYTHONPATH"), here) if path)
    os.execvp(command[0], list(command))


if __name__ == "__main__":
    main(sys.argv[1:])
