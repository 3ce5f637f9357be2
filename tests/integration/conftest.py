# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

LOCK = Path(__file__).parents[2] / ".cache" / "engine.lock"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine that answers")


@pytest.fixture(scope="module", autouse=True)
def turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files that make containers and images on this machine's engine take turns; other processes may run the rest."""
    if request.node.get_closest_marker("docker") is None:
        yield
        return
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def client(turn: None) -> Iterator[docker.DockerClient]:
    # `make integration` starts the engine: one that does not answer is a failure and nothing to skip.
    found = docker.from_env(version="auto")
    found.ping()
    yield found
    found.close()
