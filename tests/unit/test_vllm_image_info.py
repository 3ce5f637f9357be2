# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import EngineUnavailable
from ansible_collections.dgx.spark.plugins.modules import vllm_image_info
from unit.fake_engine import FakeEngine
from unit.run_module import run_module

NAME = "vllm/vllm-openai:gemma4"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    fake = FakeEngine()
    fake.add_image(NAME, "0.18.2.dev0")
    monkeypatch.setattr(vllm_image_info, "DockerEngine", lambda: fake)
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    return fake


def test_it_returns_the_image_and_never_changes(engine: FakeEngine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    checked = run_module(vllm_image_info.main, capsys, check=True, image=NAME)
    assert not (tmp_path / "images").exists()
    first = run_module(vllm_image_info.main, capsys, image=NAME)
    again = run_module(vllm_image_info.main, capsys, image=NAME)
    assert checked == first == again
    assert not first["changed"]
    assert engine.looks == 2  # the check, the first; the second was kept
    assert set(first["image"]) == {"name", "reference", "id", "digest", "architecture", "vllm_version", "vllm_path", "python", "entrypoint"}
    assert (first["image"]["vllm_version"], first["image"]["digest"]) == ("0.18.2.dev0", None)


def test_it_takes_an_id_too(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    by_id = run_module(vllm_image_info.main, capsys, image=engine.images[NAME].id)
    assert by_id["image"]["vllm_version"] == "0.18.2.dev0"


def test_an_image_without_vllm_is_no_failure(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.add_image("ubuntu:24.04", None)
    assert run_module(vllm_image_info.main, capsys, image="ubuntu:24.04")["image"]["vllm_version"] is None


def test_a_missing_image_and_a_missing_docker_name_the_remedy(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pull it with 'docker pull a:b'" in run_module(vllm_image_info.main, capsys, image="a:b")["msg"]

    def unavailable() -> FakeEngine:
        raise EngineUnavailable("Docker does not answer")

    monkeypatch.setattr(vllm_image_info, "DockerEngine", unavailable)
    assert "Docker does not answer" in run_module(vllm_image_info.main, capsys, image=NAME)["msg"]


def test_it_says_what_the_registry_has_under_the_name_by_now(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = ("sha256:" + letter * 64 for letter in "ab")
    engine.add_image(NAME, "0.18.2.dev0", digest=here)
    engine.tags = {NAME: there, "vllm/vllm-openai:new": there}
    found = run_module(vllm_image_info.main, capsys, image=NAME, registry=True)
    assert found["registry"] == {"digest": there, "architectures": ["amd64", "arm64"], "error": None}
    assert found["image"]["digest"] == here
    by_digest = run_module(vllm_image_info.main, capsys, image=f"{NAME}@{here}", registry=True)
    assert by_digest["registry"]["digest"] == there

    absent = run_module(vllm_image_info.main, capsys, image="vllm/vllm-openai:new", registry=True)
    assert (absent["image"], absent["registry"]["digest"]) == (None, there)
    assert engine.deeds == []


def test_a_registry_that_does_not_answer_is_no_failure(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    found = run_module(vllm_image_info.main, capsys, image=NAME, registry=True)
    assert found["image"]["vllm_version"] == "0.18.2.dev0"
    assert found["registry"]["digest"] is None
    assert "manifest unknown" in found["registry"]["error"]
