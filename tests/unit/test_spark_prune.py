# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""spark_prune on a disk and a Docker engine in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image, _loaded
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Creation, EngineUnavailable
from ansible_collections.dgx.spark.plugins.modules import spark_prune
from unit.fake_engine import FakeEngine
from unit.run_module import run_module
from unit.test_leftovers import complete, started

NAME = "vllm/vllm-openai:gemma4-cu130"
OLD = "vllm/vllm-openai:gemma4"
Prune = Callable[..., dict[str, Any]]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    for name in (NAME, OLD, "postgres:17"):
        fake.add_image(name, "0.19.1")
    monkeypatch.setattr(spark_prune, "DockerEngine", lambda: fake)
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    return fake


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("gemma4/v1", "gemma4/v2", "gemma4/v3"):
        complete(tmp_path / "models" / name, "x.safetensors")
    started(tmp_path / "models" / "gemma4" / "v4")
    return tmp_path / "models"


@pytest.fixture
def prune(engine: FakeEngine, root: Path, capsys: pytest.CaptureFixture[str]) -> Prune:
    def run(**options: Any) -> dict[str, Any]:
        return run_module(spark_prune.main, capsys, **{"models_root": str(root), "images": [NAME], **options})

    return run


def serve(engine: FakeEngine, name: str, image: str, path: Path) -> None:
    """A stopped container that has a snapshot mounted."""
    creation = Creation(engine.images[image].id, [], [], {}, {}, [(str(path), "/m")], "", 8002, 8000, "all", "host", 1, 10, "1m", 1)
    engine.create(name, creation)


def test_ladder(prune: Prune, engine: FakeEngine, root: Path) -> None:
    serve(engine, "gemma4", NAME, root / "gemma4" / "v2")
    serve(engine, "gemma4-previous", NAME, root / "gemma4" / "v1")
    old = engine.images[OLD].id
    before = sorted(root.rglob("*"))
    would = prune(check=True, model_dirs=[str(root / "gemma4" / "v3")])
    assert (would["changed"], would["removed"]) == (True, [])
    assert [item["name"] for item in would["leftovers"]] == [str(root / "gemma4" / "v4"), old]
    assert len(would["kept"]) == 4
    assert sorted(root.rglob("*")) == before
    assert OLD in engine.images

    made = prune(model_dirs=[str(root / "gemma4" / "v3")])
    assert made["changed"] and made["removed"] == [str(root / "gemma4" / "v4"), old]
    assert (made["leftovers"], made["diff"]) == (would["leftovers"], would["diff"])
    assert [path.name for path in sorted((root / "gemma4").iterdir())] == ["v1", "v2", "v3"]
    assert sorted(name for name in engine.images if ":" in name and not name.startswith("sha256")) == ["postgres:17", NAME]

    again = prune(model_dirs=[str(root / "gemma4" / "v3")])
    assert (again["changed"], again["leftovers"], again["removed"]) == (False, [], [])
    assert again["summary"][0] == "nothing removed, 4 stay"


def test_an_image_that_was_looked_into_may_go_whatever_its_name_and_what_was_seen_is_forgotten(prune: Prune, engine: FakeEngine) -> None:
    engine.add_image("ghcr.io/me/vllm:1", "0.19.1")
    _image.inspect(engine, "ghcr.io/me/vllm:1")
    assert len(_image.looked_into()) == 1
    prune()
    assert "ghcr.io/me/vllm:1" not in engine.images
    assert "postgres:17" in engine.images
    assert _image.looked_into() == set()


def test_where_docker_does_not_answer_nothing_is_removed(prune: Prune, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise EngineUnavailable("Docker does not answer (x): start it")

    monkeypatch.setattr(spark_prune, "DockerEngine", away)
    result = prune()
    assert result["failed"]
    assert "Docker does not answer" in result["msg"]
    assert (root / "gemma4" / "v4").exists()


def test_what_was_removed_before_a_failure_is_said(prune: Prune, engine: FakeEngine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uses = engine.uses
    serve(engine, "taken-meanwhile", OLD, root / "gemma4" / "v3")
    monkeypatch.setattr(engine, "uses", lambda: [use for use in uses() if use.container != "taken-meanwhile"])
    result = prune(model_dirs=[str(root / "gemma4")])
    assert result["failed"]
    assert "Docker refused to remove image" in result["msg"]
    assert result["removed"] == []
    assert (root / "gemma4" / "v3").exists()


def test_an_image_that_was_loaded_is_known_by_its_digest(
    prune: Prune, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded, "DIRECTORY", str(tmp_path / "loaded"))
    digest = "sha256:" + "d" * 64
    loaded = engine.add_image(_image.loaded_name(NAME, digest), "0.19.1")
    _loaded.remember(digest, loaded)
    kept = [item["name"] for item in prune(images=[f"{NAME}@{digest}"], check=True)["kept"]]
    assert loaded in kept
