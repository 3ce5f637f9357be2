# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module against the lab's stand-in for Ollama, which unloads asynchronously and only when no request is in flight."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._ollama import Model, Ollama, OllamaError, chosen, wait_unloaded
from ansible_collections.dgx.spark.plugins.modules import ollama_models
from sim.ollama import Ollama as SimOllama
from unit.run_module import run_module

GPU = {"name": "gemma4:26b", "size": 17e9, "size_vram": 17e9}
SPLIT = {"name": "gemma4:26b", "size": 17e9, "size_vram": 5.8e9}
OTHER = {"name": "nomic:latest", "size": 1e9, "size_vram": 1e9}


class Memory:
    """MemAvailable that grows by what the stand-in gives back."""

    def __init__(self, sim: SimOllama) -> None:
        self.sim = sim

    def __call__(self) -> int:
        return int(100e9 - sum(self.sim.claims.values()))


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimOllama]:
    with SimOllama() as server:
        monkeypatch.setattr(ollama_models, "available", Memory(server))
        yield server


def load(sim: SimOllama, *models: dict[str, Any], **settings: Any) -> None:
    body = json.dumps({"loaded": list(models), "unload_delay": 0.1, "memory_delay": 0.1, **settings}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{sim.url}/_sim/state", data=body), timeout=5).close()


def unload(sim: SimOllama, capsys: pytest.CaptureFixture[str], check: bool = False, **options: Any) -> dict[str, Any]:
    return run_module(ollama_models.main, capsys, check=check, url=sim.url, timeout=3, **options)


def loaded(sim: SimOllama) -> list[str]:
    return [model.name for model in Ollama(sim.url).loaded() or []]


def test_ladder(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, OTHER)
    check = unload(sim, capsys, check=True)
    assert check["changed"]
    assert check["unloaded"] == ["gemma4:26b", "nomic:latest"]
    assert loaded(sim) == ["gemma4:26b", "nomic:latest"]
    done = unload(sim, capsys)
    assert done["changed"]
    assert done["freed_bytes"] >= 0.9 * 18e9
    assert loaded(sim) == []
    assert unload(sim, capsys)["changed"] is False


def test_only_the_named_model_goes(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, OTHER)
    assert unload(sim, capsys, names=["Nomic"])["unloaded"] == ["nomic:latest"]
    assert loaded(sim) == ["gemma4:26b"]


def test_a_split_between_cpu_and_gpu_is_reported(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, SPLIT)
    assert unload(sim, capsys)["split"] == [{"name": "gemma4:26b", "cpu_percent": 66, "gpu_percent": 34}]


def test_a_model_that_stays_is_named_with_the_remedy(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, stuck=True)
    failed = unload(sim, capsys)
    assert failed["failed"]
    assert "gemma4:26b did not unload within 3 s" in failed["msg"]
    assert "systemctl restart ollama" in failed["msg"]


def test_memory_that_does_not_come_back_is_no_success(sim: SimOllama, capsys: pytest.CaptureFixture[str]) -> None:
    load(sim, GPU, memory_delay=60)
    failed = unload(sim, capsys)
    assert "unloaded, but only 0.0 of" in failed["msg"]


def test_no_ollama_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(ollama_models.main, capsys, url="http://127.0.0.1:1")
    assert (result["changed"], result["unloaded"]) == (False, [])


def test_something_else_on_the_port_is_an_error() -> None:
    with pytest.raises(OllamaError, match="is no URL of an Ollama"):
        Ollama("127.0.0.1:11434")


def test_a_name_without_a_tag_means_latest() -> None:
    models = [Model("gemma4:26b", 1, 1), Model("gemma4:latest", 1, 1)]
    assert chosen(models, ["gemma4"]) == [models[1]]
    assert chosen(models, None) == models


def test_a_model_of_the_cpu_alone_frees_no_memory_of_the_gpu(sim: SimOllama) -> None:
    # Its weights are a mapped file: available memory was never lower.
    assert wait_unloaded(Ollama(sim.url), [Model("gone", 17, 0)], lambda: 0, 0, timeout=1) == 0
