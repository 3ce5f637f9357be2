# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image, _load, _loaded
from ansible_collections.dgx.spark.plugins.module_utils._image import pinned
from ansible_collections.dgx.spark.plugins.module_utils._pull import Pull, explain
from ansible_collections.dgx.spark.plugins.modules import vllm_image
from unit.fake_engine import FakeEngine
from unit.run_module import run_module
from unit.saved_image import SavedImage

NAME = "vllm/vllm-openai:gemma4-cu130"
DIGEST = "sha256:" + "d" * 64
OTHER = "e" * 64
EVENTS: list[dict[str, Any]] = [
    {"status": "Pulling from vllm/vllm-openai", "id": "gemma4-cu130"},
    {"status": "Downloading", "id": "a", "progressDetail": {"current": 1_000_000_000, "total": 4_000_000_000}},
    {"status": "Downloading", "id": "b", "progressDetail": {"current": 500_000_000, "total": 1_000_000_000}},
    {"status": "Download complete", "id": "a"},
    {"status": "Download complete", "id": "b"},
    {"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 2}},
    {"status": "Pull complete", "id": "a"},
    {"vllm": "0.19.1.dev6+g6d4a8e6d2"},
]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    fake = FakeEngine()
    fake.registry = {NAME: EVENTS, f"vllm/vllm-openai@{DIGEST}": EVENTS}
    monkeypatch.setattr(vllm_image, "DockerEngine", lambda: fake)
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    return fake


def test_ladder(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments: image" in run_module(vllm_image.main, capsys)["msg"]

    would = run_module(vllm_image.main, capsys, check=True, image=NAME)
    assert (would["changed"], would["image"], engine.deeds) == (True, None, [])
    assert would["diff"]["after"] == f"{NAME} as the registry has it\n"

    made = run_module(vllm_image.main, capsys, image=NAME)
    assert (made["changed"], made["bytes_fetched"], engine.deeds) == (True, 5_000_000_000, [f"pull {NAME}"])
    assert made["image"]["vllm_version"] == "0.19.1.dev6+g6d4a8e6d2"
    assert made["diff"]["before"] == ""

    again = run_module(vllm_image.main, capsys, image=NAME)
    assert (again["changed"], again["bytes_fetched"], len(engine.deeds)) == (False, 0, 1)
    assert again["image"] == made["image"]
    assert again["diff"]["before"] == again["diff"]["after"]


def test_a_digest_is_pulled_by_itself_whatever_the_tag_beside_it_means_by_now(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    made = run_module(vllm_image.main, capsys, image=f"{NAME}@{DIGEST}")
    assert engine.deeds == [f"pull vllm/vllm-openai@{DIGEST}"]
    assert made["image"]["digest"] == DIGEST
    assert not run_module(vllm_image.main, capsys, image=f"{NAME}@{DIGEST}")["changed"]
    assert pinned("localhost:5000/vllm:x@sha256:1") == "localhost:5000/vllm@sha256:1"
    assert pinned("localhost:5000/vllm:x") == "localhost:5000/vllm:x"


def test_what_is_doing_is_told(engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_module(vllm_image.main, capsys, image=NAME, progress_file=str(tmp_path / "words"))
    assert (tmp_path / "words").read_text() == f"pulling {NAME}: unpacking 5.0 GB, 1 layers done"


def test_a_name_that_the_registry_lacks_is_said_with_the_remedy(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(vllm_image.main, capsys, image="vllm/vllm-openai:gemma5")
    assert result["failed"]
    assert "manifest unknown: the registry has no such name, tag or digest" in result["msg"]
    assert "Nothing that serves was touched" in result["msg"]


def test_a_digest_that_the_registry_gives_no_more_is_named_beside_the_one_it_has_now(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    gone, now = ("sha256:" + letter * 64 for letter in "01")
    engine.tags = {NAME: now}
    said = run_module(vllm_image.main, capsys, image=f"{NAME}@{gone}")["msg"]
    assert f"{NAME}@{gone} was not pulled: manifest" in said
    assert f"Under {NAME} the registry has {now} now" in said
    engine.refuse_pull = "no such host"  # before the first event
    said = run_module(vllm_image.main, capsys, image=f"{NAME}@{gone}")["msg"]
    assert "no such host" in said
    assert f"Under {NAME} the registry has {now} now" in said
    engine.tags = {}
    assert "Under" not in run_module(vllm_image.main, capsys, image=f"{NAME}@{gone}")["msg"]


def test_a_pull_is_bounded_and_says_how_far_it_came(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(vllm_image.main, capsys, image=NAME, timeout=0)
    assert result["failed"]
    assert "was not pulled within 0 s" in result["msg"]


def test_no_room_for_an_image_is_said_before_the_first_byte(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(vllm_image.main, capsys, image=NAME, size_gb=1e9)
    assert result["failed"]
    assert f"{NAME} needs 1000000" in result["msg"]
    assert "Nothing was pulled" in result["msg"]
    assert engine.deeds == []
    assert run_module(vllm_image.main, capsys, image=NAME, size_gb=0.001)["changed"]


def test_a_pull_says_how_far_it_is() -> None:
    state = Pull()
    assert state.describe(1) == "asking the registry"
    for event in EVENTS[:3]:
        state.take(event)
    assert state.describe(10) == "1.5 GB of at least 5.0 GB, 150 MB/s, 23 s left of these layers"
    assert state.fetched == 1_500_000_000


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", "linux/arm64"),
        ("toomanyrequests: You have reached your pull rate limit", "use a mirror"),
        ("pull access denied for x, repository does not exist", "docker login"),
        ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "make room"),
        ("dial tcp: lookup registry: no such host", "DNS"),
        ("something new", "journalctl -u docker"),
    ],
)
def test_dockers_words_come_with_what_to_do(error: str, words: str) -> None:
    assert explain(error).startswith(error)
    assert words in explain(error)


@pytest.fixture
def carried(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SavedImage:
    """An image of a bundle, and a box to which its archive comes."""
    monkeypatch.setattr(_load, "DIRECTORY", str(tmp_path / "bundle"))
    monkeypatch.setattr(_loaded, "DIRECTORY", str(tmp_path / "loaded"))
    return SavedImage()


def told(image: SavedImage) -> dict[str, Any]:
    """What the action half says of an archive."""
    content = image.archive()
    sha256 = hashlib.sha256(content).hexdigest()
    archive = {"digest": image.digest, "documents": image.documents, "size": len(content), "sha256": sha256, "bundle": [sha256, OTHER]}
    return {"image": f"{NAME}@{image.digest}", "bundle": "/media/disk/bundle", "archive": archive}


def test_an_archive_is_asked_for_continued_proven_and_loaded_once(
    engine: FakeEngine, carried: SavedImage, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = told(carried)
    would = run_module(vllm_image.main, capsys, check=True, **arguments)
    assert (would["changed"], would["image"], "needed" in would, engine.deeds) == (True, None, False, [])

    asked = run_module(vllm_image.main, capsys, **arguments)
    part = Path(asked["needed"]["path"])
    assert (asked["needed"]["have"], part.parent.is_dir(), engine.deeds) == (0, True, [])
    older, beside = part.with_name("older.tar"), part.with_name(f"{OTHER}.tar")
    older.write_bytes(b"of another bundle, and never ended")
    beside.write_bytes(b"a part of another image of this bundle")
    part.write_bytes(carried.archive()[:100])
    assert run_module(vllm_image.main, capsys, **arguments)["needed"]["have"] == 100
    assert (older.exists(), beside.exists()) == (False, True)

    part.write_bytes(carried.archive())
    made = run_module(vllm_image.main, capsys, **arguments)
    assert (made["changed"], made["image"]["id"], made["image"]["digest"]) == (True, carried.id, carried.digest)
    assert made["image"]["reference"] == carried.tag
    assert not part.exists()
    again = run_module(vllm_image.main, capsys, **arguments)
    assert (again["changed"], again["image"], engine.deeds) == (False, made["image"], ["load"])


def test_an_archive_of_another_image_is_removed_and_never_reaches_docker(
    engine: FakeEngine, carried: SavedImage, capsys: pytest.CaptureFixture[str]
) -> None:
    carried.layers = (carried.layers[0], b"a back door")
    arguments = told(carried)
    part = Path(run_module(vllm_image.main, capsys, **arguments)["needed"]["path"])
    part.write_bytes(carried.archive())
    result = run_module(vllm_image.main, capsys, **arguments)
    assert result["failed"]
    assert f"the archive of {NAME} is not the image {carried.digest}: its layer 2 is sha256:" in result["msg"]
    assert (part.exists(), engine.deeds) == (False, [])


def test_documents_that_do_not_lead_to_the_digest_load_nothing(
    engine: FakeEngine, carried: SavedImage, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = told(carried)
    arguments["archive"]["documents"] = {carried.digest: "{}"}
    Path(run_module(vllm_image.main, capsys, **arguments)["needed"]["path"]).write_bytes(carried.archive())
    result = run_module(vllm_image.main, capsys, **arguments)
    assert result["failed"]
    assert f"the document that is called {carried.digest} is sha256:" in result["msg"]
    assert engine.deeds == []


def test_no_room_for_an_archive_is_said_before_it_comes(
    engine: FakeEngine, carried: SavedImage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = told(carried)
    arguments["archive"]["size"] = 10**18
    result = run_module(vllm_image.main, capsys, **arguments)
    assert result["failed"]
    assert "the image needs " in result["msg"]
    assert "Nothing was copied" in result["msg"]
