# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A look changes nothing: what is virgin stays virgin."""

from __future__ import annotations

import pytest
from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-5"]


@pytest.mark.parametrize("name", ["nvidia-container-toolkit", "python3-docker", "aria2"])
def test_no_package_was_installed(host: Host, name: str) -> None:
    assert not host.package(name).is_installed


@pytest.mark.parametrize("path", ["/srv/models", "/var/lib/dgx-spark"])
def test_no_directory_was_made(host: Host, path: str) -> None:
    assert not host.file(path).exists
