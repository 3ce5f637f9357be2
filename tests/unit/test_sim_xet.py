# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's Hub offers Xet: asked by the real `hf download` with the real hf_xet, by hf_snapshot, and by plain HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._fetch import Address, Limits, carry_out
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import make_plan, read_marker
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub as RealHub
from hypothesis import given, settings
from hypothesis import strategies as st
from sim import xet
from sim.hub import GATED, TOKEN, Hub

REPO = "org/model"
LARGE = {"one.safetensors": os.urandom(900_000), "two.safetensors": os.urandom(xet.CHUNK)}
FILES = {**LARGE, "config.json": b"{}\n"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that offers Xet, with xorbs so small that a file has several."""
    monkeypatch.setattr(xet, "XORB", 4 * xet.CHUNK)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for repo in (REPO, GATED):
        folder = tmp_path / "root" / repo
        folder.mkdir(parents=True)
        for path, content in FILES.items():
            (folder / path).write_bytes(content)
    with Hub(tmp_path / "root", xet=True) as running:
        yield running


def hf_download(hub: Hub, folder: Path, **environment: str) -> Path:
    """Run the real client to its end; where the files are then."""
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and not name.startswith("HF_")}
    told = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hf-home"), "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms", **environment}
    command = [str(Path(sys.executable).with_name("hf")), "download", REPO, "--local-dir", str(folder / "model"), "--quiet"]
    done = subprocess.run(command, env={**clean, **told}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "model"


def right(dest: Path) -> bool:
    """Are all files there with their content?"""
    return all((dest / path).read_bytes() == content for path, content in FILES.items())


def sent(hub: Hub, path: str) -> int:
    """Bytes that the CDN sent from below a path."""
    return sum(request["bytes"] for request in hub.requests if request["origin"] == "cdn" and request["path"].startswith(path))


def get(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def storage(hub: Hub) -> tuple[str, str]:
    """Where Xet's storage is, and a token for it."""
    document = json.loads(get(f"{hub.url}/api/models/{REPO}/xet-read-token/main")[1])
    return document["casUrl"], document["accessToken"]


def reconstruction(hub: Hub, path: str) -> dict[str, Any]:
    """What the storage says of a file."""
    address, token = storage(hub)
    file = next(f for f in hub.state.store.large() if f.path == path)
    status, body = get(f"{address}/v2/reconstructions/{xet.file_hash(file.sha256)}", Authorization=f"Bearer {token}")
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    return document


def test_hf_download_gets_large_files_over_xet(hub: Hub, tmp_path: Path) -> None:
    assert right(hf_download(hub, tmp_path))
    # Every byte once, and eight for each chunk.
    assert sent(hub, "/xorbs/") == sum(len(content) + xet.HEADER * -(-len(content) // xet.CHUNK) for content in LARGE.values())
    assert sent(hub, "/cdn/") == 0


def test_hf_download_without_xet_gets_them_over_http(hub: Hub, tmp_path: Path) -> None:
    assert right(hf_download(hub, tmp_path, HF_HUB_DISABLE_XET="1"))
    assert (sent(hub, "/xorbs/"), sent(hub, "/cdn/")) == (0, sum(map(len, LARGE.values())))


def test_hf_download_asks_again_when_an_address_has_expired(hub: Hub, tmp_path: Path) -> None:
    hub.faults.cdn_seconds = 0

    def renew() -> None:
        """Addresses are good again once one was refused."""
        bound = time.monotonic() + 60
        while all(request["status"] != 403 for request in hub.requests) and time.monotonic() < bound:
            time.sleep(0.01)
        hub.faults.cdn_seconds = 3600

    threading.Thread(target=renew, daemon=True).start()
    assert right(hf_download(hub, tmp_path))
    assert any(request["status"] == 403 for request in hub.requests)


@pytest.mark.parametrize("off", ["0", "1"], ids=["xet", "http"])
def test_hf_download_does_not_notice_a_wrong_byte(hub: Hub, tmp_path: Path, off: str) -> None:
    """So names are enough for hashes here, and docs/supply.md may say it."""
    hub.faults.flip = {"one.safetensors": xet.HEADER + 5}
    dest = hf_download(hub, tmp_path, HF_HUB_DISABLE_XET=off)
    wrong = (dest / "one.safetensors").read_bytes()
    assert (len(wrong), wrong == LARGE["one.safetensors"]) == (len(LARGE["one.safetensors"]), False)


def test_hf_snapshot_goes_the_bridge_where_xet_is_offered(hub: Hub, tmp_path: Path) -> None:
    listing = (asked := RealHub(hub.url, None, tmp_path)).listing(REPO, "main")
    dest = str(tmp_path / "model")
    plan = make_plan(dest, listing.manifest, read_marker(dest))
    found = asked.addresses(listing, [file.path for file in plan.fetch])
    addresses = {path: Address(**entry) for path, entry in found.items()}
    carry_out(dest, listing.manifest, plan, addresses, Limits(), lambda came: None)
    assert right(tmp_path / "model")
    # aria2 may be sent a little more than it asked for, and never less.
    assert sent(hub, "/cdn/") >= sum(map(len, LARGE.values()))
    assert not [request for request in hub.requests if "xet" in request["path"] or "xorbs" in request["path"]]


def test_a_hub_that_does_not_offer_xet_says_nothing_of_it(hub: Hub, tmp_path: Path) -> None:
    with Hub(tmp_path / "root") as without:
        assert get(f"{without.url}/api/models/{REPO}/xet-read-token/main")[0] == 404
        address, token = storage(hub)
        assert b"xetHash" in get(f"{hub.url}/api/models/{REPO}/tree/main")[1]
        assert b"xetHash" not in get(f"{without.url}/api/models/{REPO}/tree/main")[1]
        file = next(iter(hub.state.store.large()))
        other = f"http://127.0.0.1:{without.state.cdn_port}"
        assert get(f"{other}/v2/reconstructions/{xet.file_hash(file.sha256)}", Authorization=f"Bearer {token}")[0] == 404


def test_the_storage_wants_the_hubs_token_and_the_hub_its_own_for_a_gated_repository(hub: Hub) -> None:
    address, token = storage(hub)
    name = xet.file_hash(next(iter(hub.state.store.large())).sha256)
    late = f"{int(time.time()) - 1}.{token.split('.')[1]}"
    answers = [get(f"{address}/v2/reconstructions/{name}", Authorization=f"Bearer {t}")[0] for t in (token, "", TOKEN, late)]
    assert answers == [200, 401, 401, 401]
    gated = f"{hub.url}/api/models/{GATED}/xet-read-token/main"
    assert (get(gated)[0], get(gated, Authorization=f"Bearer {TOKEN}")[0]) == (401, 200)


def test_a_xorb_has_a_signed_address_that_expires(hub: Hub) -> None:
    hub.faults.cdn_seconds = 0
    xorb = reconstruction(hub, "two.safetensors")["terms"][0]["hash"]
    [[late]] = reconstruction(hub, "two.safetensors")["xorbs"].values()
    hub.faults.cdn_seconds = 60
    [[entry]] = reconstruction(hub, "two.safetensors")["xorbs"].values()
    [stored] = entry["ranges"]
    wanted = f"bytes={stored['bytes']['start']}-{stored['bytes']['end']}"
    status, body = get(entry["url"], Range=wanted)
    assert (status, body[xet.HEADER :]) == (206, LARGE["two.safetensors"])
    assert get(late["url"], Range=wanted)[0] == 403
    assert get(f"{entry['url'].partition('?')[0]}?Expires=9999999999&Signature=x")[0] == 403
    assert xorb in entry["url"]


def test_what_does_not_exist_is_named_so(hub: Hub) -> None:
    address, token = storage(hub)
    name = xet.file_hash(next(f for f in hub.state.store.large() if f.path == "two.safetensors").sha256)
    told = {"Authorization": f"Bearer {token}"}
    assert get(f"{address}/v2/reconstructions/{'0' * 64}", **told)[0] == 404
    assert get(f"{address}/v2/reconstructions/{name}", Range=f"bytes={xet.CHUNK}-", **told)[0] == 416


@settings(max_examples=200, deadline=None)
@given(data=st.data(), size=st.integers(1, 400))
def test_any_part_of_a_file_is_put_together_from_its_xorbs(
    data: st.DataObject, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As a client does it: fetch the ranges, take the headers out, cut off what is too much. Chunks of 24 bytes, four in a xorb."""
    source = tmp_path_factory.getbasetemp() / "part.bin"
    source.write_bytes(content := os.urandom(size))
    first = data.draw(st.integers(0, size - 1))
    last = data.draw(st.integers(first, size - 1))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"STORED": 32, "CHUNK": 24, "XORB": 96}.items():
            patch.setattr(xet, name, value)
        came, skipped = put_together(xet.xorbs("a" * 64, source, size), first, last)
    assert came[skipped : skipped + last - first + 1] == content[first : last + 1]
    assert len(came) - (last - first + 1) < 2 * 24


def put_together(parts: list[xet.Xorb], first: int, last: int) -> tuple[bytes, int]:
    """The bytes of all terms, and how many of them are before the first that was wanted."""
    answer = xet.reconstruction(parts, first, last, lambda xorb: xorb.hash)
    named = {xorb.hash: xorb for xorb in parts}
    came = b""
    for term in answer["terms"]:
        [entry] = answer["xorbs"][term["hash"]]
        [stored] = entry["ranges"]
        assert stored["chunks"] == term["range"]
        serialized = b""
        left = stored["bytes"]["end"] + 1 - stored["bytes"]["start"]
        with named[entry["url"]].open() as stream:
            stream.seek(stored["bytes"]["start"])
            # Uneven reads, as a slow connection makes them.
            while left > len(serialized) and (piece := stream.read(min(21, left - len(serialized)))):
                serialized += piece
        assert len(serialized) == left
        unpacked = b""
        for _chunk in range(term["range"]["start"], term["range"]["end"]):
            length = int.from_bytes(serialized[5:8], "little")
            assert serialized[:5] == b"\0" + length.to_bytes(3, "little") + b"\0"
            unpacked, serialized = unpacked + serialized[8 : 8 + length], serialized[8 + length :]
        assert (len(unpacked), serialized) == (term["unpacked_length"], b"")
        came += unpacked
    return came, answer["offset_into_first_range"]
