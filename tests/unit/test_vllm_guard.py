# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What stands before vLLM in its container: as a middleware, and as the program that starts vLLM."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._key_files import guard_source
from ansible_collections.dgx.spark.plugins.module_utils._vllm_guard import RequireKey

KEY = "sk-guarded"


def ask(path: str, authorization: str | None = f"Bearer {KEY}", **scope: Any) -> int | str:
    """What a client gets: HTTP's status, or the kind of the last message of a WebSocket."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    headers = [(b"Host", b"box")] + ([(b"Authorization", authorization.encode())] if authorization is not None else [])
    whole = {"type": "http", "method": "POST", "path": path, "headers": headers, **scope}
    asyncio.run(RequireKey(app)(whole, receive, send))
    return int(sent[0]["status"]) if "status" in sent[0] else str(sent[0]["type"])


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/chat/completions", "/invocations", "/tokenize", "/version", "/", "/healthy", "/metrics/x"]
)
def test_every_path_wants_the_key(path: str) -> None:
    assert ask(path) == 200
    for wrong in (None, "", KEY, "Bearer", f"Bearer {KEY}x", f"Bearer  {KEY}", f"Basic {KEY}"):
        assert ask(path, wrong) == 401


def test_health_and_metrics_are_open_and_browsers_may_ask_what_they_may_send() -> None:
    assert ask("/health", None) == ask("/metrics", None) == ask("/v1/models", None, method="OPTIONS") == 200
    assert ask("/behind/health", None, root_path="/behind") == 200
    assert ask("/behind/invocations", None, root_path="/behind") == 401


def test_the_scheme_is_read_as_http_says() -> None:
    assert ask("/v1/models", f"bearer {KEY}") == 200


def test_a_websocket_without_the_key_is_closed() -> None:
    assert ask("/v1/realtime", None, type="websocket") == "websocket.close"
    assert ask("/v1/realtime", type="websocket") == 200


def test_the_servers_own_messages_pass() -> None:
    assert ask("", None, type="lifespan") == 200


SHOW = "import json, os, sys, dgx_spark_guard; print(json.dumps([sys.argv[1:], os.environ['VLLM_API_KEY']]))"


def start(directory: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Start a program as the container starts vLLM. It can import the guard."""
    (directory / "api_key").write_text(key)
    (directory / "dgx_spark_guard.py").write_text(guard_source())
    command = [sys.executable, str(directory / "dgx_spark_guard.py"), sys.executable, "-c", SHOW, "--model", "/models/model"]
    environment = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=30, check=False)


def test_the_program_becomes_vllm_with_the_key_in_its_environment(tmp_path: Path) -> None:
    done = start(tmp_path, f"{KEY}\n")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["--model", "/models/model"], KEY]


def test_an_empty_file_opens_no_port(tmp_path: Path) -> None:
    done = start(tmp_path, "\n")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "api_key is empty: vLLM would serve without a key" in done.stderr
