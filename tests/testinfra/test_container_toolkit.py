# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-2"]
PACKAGES = ["nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1"]


@pytest.mark.parametrize("name", PACKAGES)
def test_all_four_packages_have_the_pinned_version(host: Host, name: str) -> None:
    # The lab's repository also has 1.19.1, which apt would take without the pin.
    assert host.package(name).version == "1.19.0-1"


def test_an_upgrade_of_the_system_does_not_move_them(host: Host) -> None:
    assert "nvidia-container-toolkit" not in host.run("apt-get -s upgrade").stdout


def test_the_runtime_is_merged_and_the_rest_of_the_file_survives(host: Host) -> None:
    config = json.loads(host.file("/etc/docker/daemon.json").content_string)
    assert config["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert config["registry-mirrors"]


def test_docker_knows_the_runtime_and_gives_the_gpu(host: Host) -> None:
    assert "nvidia" in host.check_output("docker info | grep Runtimes")
    assert "NVIDIA GB10" in host.check_output("docker run --rm --gpus all ubuntu:24.04 nvidia-smi --query-gpu=name --format=csv,noheader")
