# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's Hub, asked by the real client and by plain HTTP."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import get_hf_file_metadata
from sim import repos
from sim.hub import TOKEN, Hub

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's repositories, and one with folders and a second revision."""
    root = tmp_path_factory.mktemp("hub")
    repos.ensure(root, tiny=root / "none")
    repos.write(root / "org/tree", {f"a/b/{i}.txt": str(i).encode() for i in range(7)} | {"top.txt": b"top"})
    repos.write(root / "org/tree@refs-pr-1", {"top.txt": b"other"})
    return root


@pytest.fixture
def hub(repositories: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with no faults; the client finds no token and no proxy of the machine."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Hub(repositories) as running:
        yield running


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """The real client, without a token."""
    return HfApi(endpoint=hub.url, token=False)


def get(url: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body; no redirect is followed."""
    host, _slash, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request(method, f"/{path}", body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    try:
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def set_faults(hub: Hub, **faults: Any) -> dict[str, Any]:
    """Switch faults as a test of the lab does; what is in force then."""
    document: dict[str, Any] = json.loads(get(f"{hub.url}/_sim/faults", method="POST", body=json.dumps(faults).encode())[2])
    return document


def test_model_info_lists_sizes_and_hashes(api: HfApi, hub: Hub, repositories: Path) -> None:
    info = api.model_info(repos.ARTICLE, files_metadata=True)
    assert info.sha == hub.commit(repos.ARTICLE)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert set(siblings) >= {
        "config.json",
        "gemma4_patched.py",
        "hf_quant_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        SHARD,
    }
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    lfs = siblings[SHARD].lfs
    assert lfs is not None
    assert (lfs.sha256, lfs.size) == (hashlib.sha256(content).hexdigest(), len(content))
    patch = (repositories / repos.ARTICLE / "gemma4_patched.py").read_bytes()
    assert siblings["gemma4_patched.py"].lfs is None
    assert siblings["gemma4_patched.py"].blob_id == hashlib.sha1(b"blob %d\0" % len(patch) + patch).hexdigest()


def test_a_revision_is_a_branch_or_a_commit(api: HfApi, hub: Hub) -> None:
    commit = hub.commit(repos.ARTICLE)
    assert api.model_info(repos.ARTICLE, revision="main").sha == commit
    assert api.model_info(repos.ARTICLE, revision=commit).sha == commit
    assert api.model_info("org/tree", revision="refs-pr-1").sha not in ("", hub.commit("org/tree"))
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repos.ARTICLE, revision="v9")


def test_the_commit_follows_the_files(tmp_path: Path) -> None:
    repos.write(tmp_path / "org/x", {"a.txt": b"1"})
    with Hub(tmp_path) as hub:
        before = hub.commit("org/x")
        assert hub.commit("org/x") == before
        repos.write(tmp_path / "org/x", {"a.txt": b"22"})
        assert hub.commit("org/x") != before


def test_a_missing_repository_is_401_for_a_stranger_and_404_with_a_token(api: HfApi, hub: Hub) -> None:
    with pytest.raises(RepositoryNotFoundError) as stranger:
        api.model_info("org/none")
    assert stranger.value.response.status_code == 401
    with pytest.raises(RepositoryNotFoundError) as member:
        HfApi(endpoint=hub.url, token=TOKEN).model_info("org/none")
    assert member.value.response.status_code == 404


def test_the_tree_is_listed_page_by_page(api: HfApi, hub: Hub) -> None:
    paths = [entry.path for entry in api.list_repo_tree("org/tree", recursive=True)]
    assert paths == ["a", "a/b", *(f"a/b/{i}.txt" for i in range(7)), "top.txt"]
    assert [entry.path for entry in api.list_repo_tree("org/tree")] == ["a", "top.txt"]
    assert [entry.path for entry in api.list_repo_tree("org/tree", path_in_repo="a/b")] == [f"a/b/{i}.txt" for i in range(7)]

    url, seen = f"{hub.url}/api/models/org/tree/tree/main?recursive=True&limit=4", []
    while url:
        _status, headers, body = get(url)
        seen.append([entry["path"] for entry in json.loads(body)])
        url = headers.get("link", "").partition(">")[0].removeprefix("<")
    assert [len(page) for page in seen] == [4, 4, 2]
    assert sum(seen, []) == paths


def test_metadata_of_one_file(hub: Hub, repositories: Path) -> None:
    shard = get_hf_file_metadata(hf_hub_url(repos.ARTICLE, SHARD, endpoint=hub.url), token=False)
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    assert (shard.commit_hash, shard.etag, shard.size) == (hub.commit(repos.ARTICLE), hashlib.sha256(content).hexdigest(), len(content))
    assert "/cdn/" in shard.location
    config = get_hf_file_metadata(hf_hub_url(repos.ARTICLE, "config.json", endpoint=hub.url), token=False)
    assert config.size == (repositories / repos.ARTICLE / "config.json").stat().st_size
    assert config.etag != shard.etag
    with pytest.raises(RemoteEntryNotFoundError):
        get_hf_file_metadata(hf_hub_url(repos.ARTICLE, "none.json", endpoint=hub.url), token=False)


def test_the_real_client_downloads_a_snapshot(hub: Hub, repositories: Path, tmp_path: Path) -> None:
    snapshot_download(repos.ARTICLE, endpoint=hub.url, local_dir=tmp_path, token=False, max_workers=4)
    for path in (repositories / repos.ARTICLE).iterdir():
        assert hashlib.sha256((tmp_path / path.name).read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest(), path.name


def test_large_files_are_redirected_to_a_signed_address_that_expires(hub: Hub, repositories: Path) -> None:
    url = f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}"
    status, headers, _body = get(url, method="HEAD")
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    assert status == 302
    assert headers["x-repo-commit"] == hub.commit(repos.ARTICLE)
    assert int(headers["x-linked-size"]) == len(content)
    assert headers["x-linked-etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert get(headers["location"])[2] == content
    assert get(headers["location"].replace("Signature=", "Signature=0"))[0] == 403
    set_faults(hub, cdn_seconds=0)
    assert get(get(url)[1]["location"])[0] == 403


def test_ranges(hub: Hub, repositories: Path) -> None:
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    url = get(f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}")[1]["location"]
    status, headers, body = get(url, Range="bytes=100-199")
    assert (status, body, headers["content-range"]) == (206, content[100:200], f"bytes 100-199/{len(content)}")
    assert get(url, Range=f"bytes={len(content) - 5}-")[2] == content[-5:]
    assert get(url, Range="bytes=-7")[2] == content[-7:]
    status, headers, _body = get(url, Range=f"bytes={len(content)}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(content)}")
    config = f"{hub.url}/{repos.ARTICLE}/resolve/main/config.json"
    assert get(config, Range="bytes=0-0") == (206, get(config, Range="bytes=0-0")[1], b"{")
    set_faults(hub, no_ranges=True)
    assert get(url, Range="bytes=100-199")[0] == 200


def test_a_gated_repository_wants_a_token(api: HfApi, hub: Hub, tmp_path: Path) -> None:
    assert api.model_info(repos.GATED).gated == "manual"
    url = hf_hub_url(repos.GATED, "config.json", endpoint=hub.url)
    with pytest.raises(GatedRepoError) as refused:
        get_hf_file_metadata(url, token=False)
    assert refused.value.response.status_code == 401
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        get_hf_file_metadata(url, token="hf_wrong")
    assert get_hf_file_metadata(url, token=TOKEN).commit_hash == hub.commit(repos.GATED)
    snapshot_download(repos.GATED, endpoint=hub.url, local_dir=tmp_path, token=TOKEN)
    assert (tmp_path / "model.safetensors").exists()


def test_requests_are_recorded_with_their_headers(hub: Hub) -> None:
    url = f"{hub.url}/{repos.GATED}/resolve/main/model.safetensors"
    redirect = get(url, Authorization=f"Bearer {TOKEN}")[1]["location"]
    get(redirect, Range="bytes=0-9")
    first, second = json.loads(get(f"{hub.url}/_sim/requests")[2])
    assert (first["method"], first["status"], first["headers"]["Authorization"]) == ("GET", 302, f"Bearer {TOKEN}")
    assert (first["origin"], second["origin"]) == ("hub", "cdn")
    assert TOKEN not in json.dumps(second)
    assert (second["status"], second["bytes"]) == (206, 10)
    get(f"{hub.url}/_sim/requests", method="DELETE")
    assert hub.requests == []


def test_too_many_requests(hub: Hub) -> None:
    set_faults(hub, too_many=2, retry_after=7, only="/resolve/")
    url = f"{hub.url}/{repos.ARTICLE}/resolve/main/config.json"
    assert get(f"{hub.url}/api/models/{repos.ARTICLE}")[0] == 200
    assert [get(url)[0] for _try in range(3)] == [429, 429, 200]
    assert next(r for r in hub.requests if r["status"] == 429)["path"].endswith("config.json")
    set_faults(hub, too_many=1)
    assert get(url)[1]["retry-after"] == "7"


def test_server_errors(hub: Hub) -> None:
    set_faults(hub, error=1, error_status=502)
    url = f"{hub.url}/{repos.ARTICLE}/resolve/main/config.json"
    assert [get(url)[0] for _try in range(2)] == [502, 200]


def test_a_cut_transfer_ends_early_and_can_be_resumed(hub: Hub, repositories: Path) -> None:
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    url = get(f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}")[1]["location"]
    set_faults(hub, cut={SHARD: 1000}, cut_times=1)
    with pytest.raises(http.client.IncompleteRead) as cut:
        get(url)
    assert cut.value.partial == content[:1000]
    assert cut.value.partial + get(url, Range="bytes=1000-")[2] == content


def test_a_flipped_byte_keeps_size_and_etag(hub: Hub, repositories: Path) -> None:
    content = (repositories / repos.ARTICLE / SHARD).read_bytes()
    url = get(f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}")[1]["location"]
    set_faults(hub, flip={SHARD: 70_000})
    body = get(url)[2]
    assert len(body) == len(content)
    assert [i for i in range(len(content)) if body[i] != content[i]] == [70_000]
    get(f"{hub.url}/_sim/faults", method="DELETE")
    assert get(url)[2] == content


def test_a_slow_server(hub: Hub) -> None:
    url = get(f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}")[1]["location"]
    set_faults(hub, rate=100_000)
    started = time.monotonic()
    get(url, Range="bytes=0-49999")
    assert time.monotonic() - started > 0.4


def test_a_server_that_stops_answering(hub: Hub) -> None:
    url = get(f"{hub.url}/{repos.ARTICLE}/resolve/main/{SHARD}")[1]["location"]
    set_faults(hub, stall={SHARD: 10})
    with urllib.request.urlopen(url, timeout=0.3) as answer:
        assert len(answer.read(10)) == 10
        with pytest.raises(TimeoutError):
            answer.read(1)
    set_faults(hub, stall={}, silent=5.0)
    with pytest.raises((TimeoutError, urllib.error.URLError)):
        urllib.request.urlopen(f"{hub.url}/api/models/{repos.ARTICLE}", timeout=0.3)


def test_an_unknown_fault_is_refused_with_the_known_ones(hub: Hub) -> None:
    status, _headers, body = get(f"{hub.url}/_sim/faults", method="POST", body=b'{"too_mny": 1}')
    assert status == 400
    assert "too_many" in json.loads(body)["error"]


def test_no_file_outside_the_repositories(repositories: Path, tmp_path: Path) -> None:
    shutil.copytree(repositories / "org", tmp_path / "root/org")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x").write_text("x")
    with Hub(tmp_path / "root") as hub:
        assert get(f"{hub.url}/../secret/resolve/main/x")[0] in (401, 404)
        assert get(f"{hub.url}/org/tree/resolve/main/..%2F..%2F..%2Fsecret%2Fx")[0] == 404
