# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documents of a registry, over its real protocol: mirrors, tokens, a login that goes to nobody else."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import RegistryAccess
from ansible_collections.dgx.spark.plugins.module_utils._oci import digest_of
from ansible_collections.dgx.spark.plugins.module_utils._registry import Registry, RegistryError

CONTENT = b'{"schemaVersion": 2}'
DIGEST = digest_of(CONTENT)
LOGIN = ("user", "pass:word")


class Server:
    """A registry that gives one document. C(challenge) asks for a token, or for the login itself."""

    def __init__(self, content: bytes = CONTENT, challenge: str = "", status: int = 200) -> None:
        self.content, self.challenge, self.status = content, challenge, status
        self.seen: list[tuple[str, str | None]] = []
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        authorization = handler.headers.get("Authorization")
        self.seen.append((handler.path, authorization))
        if handler.path.startswith("/token"):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(json.dumps({"token": "secret"}).encode())
        elif self.challenge and not authorization:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", self.challenge.replace("URL", self.url))
            handler.end_headers()
        else:
            handler.send_response(self.status)
            handler.end_headers()
            handler.wfile.write(self.content)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_mirror_with_other_bytes_or_none_is_passed_over() -> None:
    with running(Server(b"other")) as liar, running(Server(status=404)) as empty, running(Server()) as honest:
        access = RegistryAccess("vllm/vllm-openai", (liar.url, empty.url, "http://127.0.0.1:9", honest.url))
        assert Registry(access).document(DIGEST) == CONTENT
    assert honest.seen == [(f"/v2/vllm/vllm-openai/manifests/{DIGEST}", None)]


def test_that_nobody_gives_it_is_said_with_what_each_answered() -> None:
    with running(Server(b"other")) as liar, running(Server(status=404)) as empty:
        access = RegistryAccess("a/b", (liar.url, empty.url))
        with pytest.raises(RegistryError) as caught:
            Registry(access).document(DIGEST)
    assert f"{liar.url}: it gave other bytes; {empty.url}: HTTP Error 404" in str(caught.value)


@pytest.mark.parametrize("login", [None, LOGIN])
def test_a_token_is_fetched_where_the_registry_says(login: tuple[str, str] | None) -> None:
    challenge = 'Bearer realm="URL/token",service="registry",scope="repository:a/b:pull"'
    with running(Server(challenge=challenge)) as server:
        assert Registry(RegistryAccess("a/b", (server.url,), login=login)).document(DIGEST) == CONTENT
    basic = f"Basic {base64.b64encode(b'user:pass:word').decode()}" if login else None
    assert server.seen[1:] == [
        ("/token?service=registry&scope=repository%3Aa%2Fb%3Apull", basic),
        (f"/v2/a/b/manifests/{DIGEST}", "Bearer secret"),
    ]


def test_a_registry_that_wants_the_login_itself_gets_it() -> None:
    with running(Server(challenge='Basic realm="x"')) as server:
        assert Registry(RegistryAccess("a/b", (server.url,), login=LOGIN)).document(DIGEST) == CONTENT
        assert server.seen[0][1] is None
        with pytest.raises(RegistryError, match="401"):
            Registry(RegistryAccess("a/b", (server.url,))).document(DIGEST)
