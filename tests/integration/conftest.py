# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine that answers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes a file stays in one, and so do all files that make containers on this machine's engine."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("engine" if item.get_closest_marker("docker") else item.path.name))


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    # `make integration` starts the engine: one that does not answer is a failure and nothing to skip.
    found = docker.from_env(version="auto")
    found.ping()
    yield found
    found.close()
