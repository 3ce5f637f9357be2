# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine that answers")


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    # `make integration` starts the engine: one that does not answer is a failure and nothing to skip.
    found = docker.from_env(version="auto")
    found.ping()
    yield found
    found.close()
