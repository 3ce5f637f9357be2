# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Docker where it fails in ways that no real engine shows on demand. tests/integration has the rest."""

from __future__ import annotations

from typing import Any

import docker.errors
import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _container_engine
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, EngineError

# Docker's words, with an engine 20.10 and with a newer one.
GIVES_UP = "container a704c10adc0b PID 2470 is zombie and can not be killed", "tried to kill container, but did not receive an exit event"


class Dying:
    """Docker's API, to which a container still runs for so many looks after it was killed."""

    def __init__(self, words: str, looks: int) -> None:
        self._words, self._looks = words, looks

    def stop(self, name: str, timeout: int) -> None:
        raise docker.errors.APIError(f"cannot stop container: {name}: {self._words}")

    def inspect_container(self, name: str) -> dict[str, Any]:
        self._looks -= 1
        return {"State": {"Running": self._looks >= 0}}


def engine(words: str, looks: int) -> DockerEngine:
    made = object.__new__(DockerEngine)
    api: Any = Dying(words, looks)
    made._api = api
    return made


@pytest.mark.parametrize("words", GIVES_UP)
def test_what_docker_could_not_stop_may_end_a_little_later(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container_engine, "_LOOK", 0.01)
    engine(words, looks=3).stop("gemma4", 1)


def test_what_does_not_end_at_all_is_an_error_with_dockers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container_engine, "_LOOK", 0.01)
    monkeypatch.setattr(_container_engine, "_DYING", 0.05)
    with pytest.raises(EngineError, match="refused to stop gemma4: .*is zombie and can not be killed"):
        engine(GIVES_UP[0], looks=10**9).stop("gemma4", 1)
