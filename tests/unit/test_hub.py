# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller asks the lab's Hub: what it learns, what it hands over, and where the token goes."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import re
import stat
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError
from ansible_collections.dgx.spark.plugins.plugin_utils import _hub
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, HubError, HubUnavailable
from sim.hub import GATED, TOKEN
from sim.hub import Hub as SimulatedHub

OPEN = "org/open"
FILES = {"model.safetensors": b"weights" * 1000, "config.json": b"{}\n", "sub/a b.txt": b"notes"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for repo in (OPEN, GATED):
        for path, content in FILES.items():
            target = tmp_path / "root" / repo / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return tmp_path / "root"


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedHub]:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with SimulatedHub(root) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir(mode=0o700)
    return tmp_path / "cache"


@pytest.fixture
def ask(server: SimulatedHub, cache: Path) -> Callable[..., Hub]:
    """Makes a client; `waits` of it are the seconds that it wanted to sleep."""

    def make(token: str | None = None, **options: Any) -> Hub:
        waits: list[float] = []
        hub = Hub(server.url, token, cache, **{"sleep": waits.append, **options})
        hub.waits = waits  # type: ignore[attr-defined]
        return hub

    return make


def test_a_listing_has_commit_sizes_and_the_hash_of_each_kind(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    listing = ask().listing(OPEN, "main")
    assert (listing.manifest.repo, listing.manifest.revision, listing.manifest.commit) == (OPEN, "main", server.commit(OPEN))
    assert (listing.closed, listing.gated) == (False, False)
    files = {file.path: file for file in listing.manifest.files}
    assert sorted(files) == sorted(FILES)
    large, small = files["model.safetensors"], files["config.json"]
    assert (large.size, large.sha256, large.git_sha1) == (7000, hashlib.sha256(FILES["model.safetensors"]).hexdigest(), None)
    assert (small.size, small.sha256, small.git_sha1) == (3, None, hashlib.sha1(b"blob 3\0{}\n").hexdigest())


def test_a_small_file_is_read_and_verified(ask: Callable[..., Hub], root: Path, server: SimulatedHub) -> None:
    hub = ask()
    listing = hub.listing(OPEN, "main")
    assert hub.content(listing, "sub/a b.txt") == b"notes"
    assert hub.content(listing, "model.safetensors") == FILES["model.safetensors"]
    with pytest.raises(HubError, match=f"org/open has no nowhere.py at main .commit {server.commit(OPEN)}"):
        hub.content(listing, "nowhere.py")
    server.faults.flip = {"config.json": 0}
    with pytest.raises(HubError, match="config.json came with hash [0-9a-f]{40} from 127.0.0.1:"):
        hub.content(listing, "config.json")


def test_a_box_gets_signed_addresses_of_large_files_and_plain_ones_of_small(ask: Callable[..., Hub]) -> None:
    hub = ask()
    addresses = hub.addresses(hub.listing(OPEN, "main"), list(FILES))
    for path, content in FILES.items():
        with urllib.request.urlopen(addresses[path]["url"], timeout=5) as answer:
            assert answer.read() == content
    assert "Signature=" in addresses["model.safetensors"]["url"]
    assert "/resolve/" in addresses["sub/a b.txt"]["url"]


def test_a_box_may_be_sent_to_the_hub_for_the_way_and_only_to_an_open_repository(ask: Callable[..., Hub]) -> None:
    hub = ask()
    addresses = hub.addresses(hub.listing(OPEN, "main"), ["model.safetensors"], redirect=True)
    assert re.fullmatch(rf"{hub.endpoint}/{OPEN}/resolve/[0-9a-f]+/model.safetensors", addresses["model.safetensors"]["url"])
    gated = ask(TOKEN)
    addresses = gated.addresses(gated.listing(GATED, "main"), ["model.safetensors"], redirect=True)
    assert "Signature=" in addresses["model.safetensors"]["url"]


def test_of_a_gated_repository_small_files_are_handed_over(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    hub = ask(TOKEN)
    listing = hub.listing(GATED, "main")
    assert (listing.closed, listing.gated) == (True, True)
    addresses = hub.addresses(listing, list(FILES))
    assert base64.b64decode(addresses["config.json"]["content"]) == FILES["config.json"]
    assert base64.b64decode(addresses["sub/a b.txt"]["content"]) == FILES["sub/a b.txt"]
    with urllib.request.urlopen(addresses["model.safetensors"]["url"], timeout=5) as answer:
        assert answer.read() == FILES["model.safetensors"]
    assert TOKEN not in json.dumps(addresses)
    with_token = {request["origin"]: TOKEN in str(request["headers"]) for request in server.requests}
    assert with_token == {"hub": True, "cdn": False}


def test_the_token_is_in_no_file_of_the_cache(ask: Callable[..., Hub], cache: Path) -> None:
    hub = ask(TOKEN)
    hub.addresses(hub.listing(GATED, "main"), list(FILES))
    kept = list(cache.iterdir())
    assert len(kept) == 3  # the listing, the addresses, and whether the Hub is silent
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert TOKEN not in path.read_text()
        assert TOKEN not in path.name and hashlib.sha256(TOKEN.encode()).hexdigest() not in path.name


def test_what_one_token_saw_another_does_not(ask: Callable[..., Hub]) -> None:
    hub = ask(TOKEN)
    hub.addresses(hub.listing(GATED, "main"), list(FILES))
    stranger = ask()
    with pytest.raises(HubError, match="is gated"):
        stranger.addresses(stranger.listing(GATED, "main"), list(FILES))


def _ask_in_a_process(url: str, cache: Path) -> None:
    hub = Hub(url, None, cache)
    hub.addresses(hub.listing(OPEN, "main"), list(FILES))


def test_many_processes_ask_once(server: SimulatedHub, cache: Path) -> None:
    server.faults.rate = 0
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_ask_in_a_process, args=(server.url, cache)) for _worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    # The listing, and where the one large file lies.
    assert sorted(request["method"] for request in server.requests) == ["GET", "HEAD"]


def test_the_commit_stays_when_the_branch_moves_in_a_run(ask: Callable[..., Hub], root: Path) -> None:
    before = ask().listing(OPEN, "main").manifest.commit
    (root / OPEN / "config.json").write_text('{"new": 1}')
    assert ask().listing(OPEN, "main").manifest.commit == before


def test_an_address_has_an_age(server: SimulatedHub, cache: Path) -> None:
    now = [1_000_000.0]
    hub = Hub(server.url, None, cache, clock=lambda: now[0])
    listing = hub.listing(OPEN, "main")

    def heads() -> int:
        return sum(request["method"] == "HEAD" for request in server.requests)

    hub.addresses(listing, list(FILES))
    now[0] += _hub.MAX_AGE - 1
    hub.addresses(listing, list(FILES))
    assert heads() == 1
    now[0] += 2
    hub.addresses(listing, list(FILES))
    assert heads() == 2
    # Those that a host has refused are not handed out again.
    hub.addresses(listing, list(FILES), newer_than=now[0])
    assert heads() == 3


@pytest.mark.parametrize(
    ("token", "repo", "revision", "text"),
    [
        (None, GATED, "main", rf"{GATED} is gated: accept the conditions on http://.*/{GATED}, make a token .* and set token"),
        (None, "org/none", "main", "there is no repository org/none on http://.*, or it is private: then set token"),
        (TOKEN, "org/none", "main", "there is no repository org/none on http://.*, or the token's account may not see it"),
        (None, OPEN, "v9", f"{OPEN} has no revision v9: see its branches"),
        ("hf_wrong", OPEN, "main", r"refuses the token \(HTTP 401\): it is wrong or was revoked"),
        (None, "a/b/c", "main", "'a/b/c' is no repository: write OWNER/NAME"),
    ],
)
def test_each_no_of_the_hub_has_its_own_words(ask: Callable[..., Hub], token: str | None, repo: str, revision: str, text: str) -> None:
    hub = ask(token)
    with pytest.raises(HubError, match=text) as caught:
        hub.addresses(hub.listing(repo, revision), list(FILES))
    assert not isinstance(caught.value, HubUnavailable)
    assert (token or "hf_") not in str(caught.value)


def test_too_many_requests_wait_as_long_as_they_are_told(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    server.faults.too_many, server.faults.retry_after = 2, 7
    said: list[str] = []
    hub = ask(say=said.append)
    assert hub.listing(OPEN, "main").manifest.commit == server.commit(OPEN)
    assert hub.waits == [7.0, 7.0]  # type: ignore[attr-defined]
    assert "answers HTTP 429: asking again in 7 s (1 of 3)" in said[0]


def test_too_many_requests_for_too_long_name_the_wait(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    server.faults.too_many, server.faults.retry_after = 99, 1200
    hub = ask()
    with pytest.raises(HubUnavailable, match=r"no more requests for now \(HTTP 429\): it asks to wait 1200 s"):
        hub.listing(OPEN, "main")
    assert hub.waits == []  # type: ignore[attr-defined]


def test_a_server_at_fault_is_asked_again_and_then_named(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    server.faults.error = 2
    assert ask().listing(OPEN, "main")
    server.faults.error = 99
    with pytest.raises(HubUnavailable, match=r"answers HTTP 503 \(A simulated failure\): the server is at fault"):
        ask(TOKEN).listing(OPEN, "main")


def test_a_forbidden_repository_tells_the_hubs_reason(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    server.faults.error, server.faults.error_status = 99, 403
    with pytest.raises(HubError, match=r"may not read org/open \(HTTP 403, A simulated failure\): give it read access"):
        ask(TOKEN).listing(OPEN, "main")


def test_nobody_there_is_unavailable(cache: Path) -> None:
    waits: list[float] = []
    hub = Hub("http://127.0.0.1:9", None, cache, sleep=waits.append)
    with pytest.raises(HubUnavailable, match=r"does not reach http://127.0.0.1:9 \(ConnectError: .*refused.*\): check its network"):
        hub.listing(OPEN, "main")
    assert len(waits) == _hub.CONNECTS - 1


def test_a_hub_that_did_not_answer_is_left_alone_for_a_while(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    now = [1000.0]
    server.faults.error = 4
    for revision in ("main", "main", "v2"):
        with pytest.raises(HubUnavailable, match="answers HTTP 503"):
            ask(clock=lambda: now[0]).listing(OPEN, revision)
    assert len(server.requests) == 4
    now[0] += _hub.SILENCE + 1
    assert ask(clock=lambda: now[0]).listing(OPEN, "main").manifest.commit == server.commit(OPEN)


def test_a_no_is_not_remembered(ask: Callable[..., Hub], server: SimulatedHub) -> None:
    server.faults.error, server.faults.error_status = 1, 403
    with pytest.raises(HubError):
        ask().listing(OPEN, "main")
    assert ask().listing(OPEN, "main").manifest.commit == server.commit(OPEN)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://x", "https://", "https://user@x", "https://x/?a=b", ""])
def test_an_endpoint_must_be_an_address(endpoint: str, cache: Path) -> None:
    with pytest.raises(HubError, match="is no http address"):
        Hub(endpoint, None, cache)


class OtherServer:
    """Answers every request with one document, or for files with a redirect or a content."""

    def __init__(self, document: Any, location: str = "") -> None:
        body = json.dumps(document).encode() if not isinstance(document, bytes) else document

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                redirect = bool(location) and "/resolve/" in self.path
                self.send_response(302 if redirect else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"x"')
                if redirect:
                    self.send_header("Location", location)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self) -> OtherServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def info(**sibling: Any) -> dict[str, Any]:
    """A repository's information with one file."""
    return {"id": "o/r", "sha": "c" * 40, "siblings": [{"rfilename": "x", "size": 5, "blobId": "a" * 40, **sibling}], "private": False}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (b"<html>login</html>", "does not speak the Hub's protocol"),
        ([], "does not speak the Hub's protocol"),
        ({"id": "o/r", "sha": None, "siblings": []}, "has no commit or no files"),
        (info(blobId=None), "there is no hash of x"),
        (info(size=None), "the size of x is None"),
        (info(rfilename="../../etc/passwd"), "could be written outside its directory"),
        (info(rfilename="a\n dir=/etc"), "could be written outside its directory"),
    ],
)
def test_an_endpoint_that_is_no_hub_or_an_evil_one(document: Any, text: str, cache: Path) -> None:
    with OtherServer(document) as other, pytest.raises(SnapshotError, match=text):
        Hub(other.url, None, cache).listing("o/r", "main")


def test_a_redirect_to_something_that_aria2_would_misread_is_refused(cache: Path) -> None:
    large = {"lfs": {"sha256": "b" * 64, "size": 5, "pointerSize": 1}}
    with OtherServer(info(**large), location="file:///etc/passwd") as other:
        hub = Hub(other.url, None, cache)
        with pytest.raises(HubError, match="redirects x to something that cannot be fetched"):
            hub.addresses(hub.listing("o/r", "main"), ["x"])


def test_a_mirror_that_keeps_a_large_file_for_holders_of_the_token(cache: Path) -> None:
    large = {"lfs": {"sha256": "b" * 64, "size": 20_000_000, "pointerSize": 1}}
    with OtherServer({**info(**large), "private": True}) as other:
        hub = Hub(other.url, "hf_secret", cache)
        with pytest.raises(HubError, match=r"gives x \(20000000 bytes\) to holders of a token only"):
            hub.addresses(hub.listing("o/r", "main"), ["x"])


def test_a_content_of_another_length_is_not_handed_over(cache: Path) -> None:
    with OtherServer({**info(), "private": True}) as other:
        hub = Hub(other.url, "hf_secret", cache)
        with pytest.raises(HubError, match="x came with another length than the Hub's 5 bytes"):
            hub.addresses(hub.listing("o/r", "main"), ["x"])


def test_offline_mode_is_respected(ask: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    from huggingface_hub.utils import _http

    _http.close_session()
    try:
        with pytest.raises(HubUnavailable, match="HF_HUB_OFFLINE is set on the controller"):
            ask().listing(OPEN, "main")
    finally:
        _http.close_session()


def test_without_the_library_the_remedy_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "MISSING", ImportError("No module named 'huggingface_hub'"))
    with pytest.raises(HubError, match="install huggingface_hub >= 1.0 for the Python that runs ansible"):
        Hub("https://huggingface.co", None, cache)
