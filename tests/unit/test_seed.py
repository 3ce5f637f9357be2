# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A box that seeds, asked over HTTP: who knows the way gets files, torrents and peers, and nobody else gets anything."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed, own_address, port_range
from ansible_collections.dgx.spark.plugins.module_utils._torrent import SMALL, Described

CONTENT = os.urandom(SMALL + 1000)
SMALL_ONE = RepoFile("config.json", 3, None, "b" * 40)
LARGE = RepoFile("model.safetensors", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), None)
PIECES = b"".join(hashlib.sha1(CONTENT[at : at + 2**20]).digest() for at in range(0, len(CONTENT), 2**20))
INFO_HASH = Described(LARGE.digest, LARGE.size, PIECES, "s3cret").info_hash


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[Seed]:
    (tmp_path / "large").write_bytes(CONTENT)
    (tmp_path / "small").write_bytes(b"{}\n")
    with Seed("s3cret", range(26800, 26830), "127.0.0.1") as running:
        running.offer(LARGE, str(tmp_path / "large"), PIECES)
        running.offer(SMALL_ONE, str(tmp_path / "small"), b"")
        yield running


def get(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers, method=method), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read()


def announce(seed: Seed, port: int, event: str = "started", info_hash: bytes = INFO_HASH) -> tuple[int, bytes]:
    return get(f"{seed.url}/announce?info_hash={quote_from_bytes(info_hash)}&peer_id=x&port={port}&event={event}&compact=1")


def test_it_says_what_it_has_and_how_far_it_is(seed: Seed) -> None:
    seed.says = "6.2 of 16.5 GB"
    assert json.loads(get(f"{seed.url}/files")[1]) == {"files": [LARGE.digest, SMALL_ONE.digest], "says": "6.2 of 16.5 GB", "ended": False}


def test_a_file_comes_whole_or_in_ranges_and_is_counted(seed: Seed) -> None:
    url = f"{seed.url}/{LARGE.digest}"
    assert get(url) == (200, CONTENT)
    assert get(url, Range="bytes=100-199") == (206, CONTENT[100:200])
    assert get(url, Range=f"bytes={SMALL}-") == (206, CONTENT[SMALL:])
    assert get(url, Range=f"bytes={len(CONTENT)}-")[0] == 416
    assert get(url, method="HEAD") == (200, b"")
    assert seed.sent == len(CONTENT) + 100 + 1000


def test_a_file_that_is_put_in_place_meanwhile_is_still_given(seed: Seed, tmp_path: Path) -> None:
    (tmp_path / "large").rename(tmp_path / "elsewhere")
    assert get(f"{seed.url}/{LARGE.digest}") == (200, CONTENT)


def test_a_torrent_leads_to_this_seed_by_the_address_that_was_asked(seed: Seed) -> None:
    status, torrent = get(f"{seed.url}/{LARGE.digest}.torrent", Host="10.9.8.7:6881")
    assert status == 200
    assert b"http://10.9.8.7:6881/s3cret/announce" in torrent
    assert f"http://10.9.8.7:6881/s3cret/{LARGE.digest}".encode() in torrent
    # A small file is fetched whole.
    assert get(f"{seed.url}/{SMALL_ONE.digest}.torrent")[0] == 404


def test_peers_find_each_other_and_not_themselves(seed: Seed) -> None:
    assert b"5:peers0:" in announce(seed, 7001)[1]
    peer = socket.inet_aton("127.0.0.1") + (7001).to_bytes(2, "big")
    assert b"5:peers6:" + peer in announce(seed, 7002)[1]
    assert peer not in announce(seed, 7001)[1]
    announce(seed, 7001, "stopped")
    assert b"5:peers0:" in announce(seed, 7002)[1]
    assert announce(seed, 7002, info_hash=b"x" * 20)[0] == 404
    assert announce(seed, 0)[0] == 404


@pytest.mark.parametrize(
    "path", ["", "files", "other/files", "s3cre/files", "s3cret", "s3cret/", "s3cret/files/x", "s3cret/none", "s3cret/../x"]
)
def test_who_does_not_know_the_way_gets_nothing(seed: Seed, path: str) -> None:
    root = seed.url.removesuffix("/s3cret")
    assert get(f"{root}/{path}") == (404, b"")


def test_it_listens_on_one_address_and_on_nothing_when_it_has_ended(seed: Seed, tmp_path: Path) -> None:
    with Seed("x", range(26800, 26830), own_address()) as other:
        port = int(other.url.split(":")[2].split("/")[0])
        with socket.socket() as elsewhere:
            assert elsewhere.connect_ex(("127.0.0.2", port)) != 0
        address = own_address()
    with socket.socket() as gone:
        assert gone.connect_ex((address, port)) != 0


def test_the_next_port_is_taken_and_none_is_an_error(seed: Seed) -> None:
    port = int(seed.url.split(":")[2].split("/")[0])
    with Seed("x", range(port, port + 2), "127.0.0.1") as other:
        assert f":{port + 1}/" in other.url
    with pytest.raises(SnapshotError, match=rf"none of the ports {port} to {port} is free on 127.0.0.1: set peer_ports"):
        Seed("x", range(port, port + 1), "127.0.0.1")


def test_an_address_of_another_box_is_named() -> None:
    with pytest.raises(SnapshotError, match="192.0.2.7 is no address of this box: correct peer_address"):
        Seed("x", range(26800, 26830), "192.0.2.7")


@pytest.mark.parametrize(("text", "ports"), [("6881-6889", range(6881, 6890)), ("7000", range(7000, 7001))])
def test_ports_are_a_range_or_one(text: str, ports: range) -> None:
    assert port_range(text) == ports


@pytest.mark.parametrize("text", ["", "80", "6889-6881", "6881-70000", "1-2-3", "6881 - 6889", "x"])
def test_ports_that_are_none_are_named(text: str) -> None:
    with pytest.raises(SnapshotError, match="give the first and the last port, as in 6881-6889"):
        port_range(text)
