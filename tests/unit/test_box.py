# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _box


def test_memory_is_in_gib() -> None:
    meminfo = "MemTotal:       127598592 kB\nMemFree:         100 kB\nMemAvailable:   122683392 kB\n"
    assert _box.memory(meminfo) == {"total_gib": 121.69, "available_gib": 117.0}


@pytest.mark.parametrize("absent", ["[N/A]", "N/A", "[Not Supported]", ""])
def test_a_gb10_shows_no_memory_of_its_own(absent: str) -> None:
    (gpu,) = _box.gpus(f"NVIDIA GB10, 12.1, 580.142, {absent}, GPU-1\n")
    assert gpu == {"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.142", "memory_mib": None, "uuid": "GPU-1"}


def test_another_gpu_shows_its_memory() -> None:
    assert _box.gpus("NVIDIA RTX 6000, 8.9, 580.1, 49140 MiB, GPU-2")[0]["memory_mib"] == 49140


def test_an_error_of_nvidia_smi_is_no_gpu() -> None:
    assert _box.gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == []


def test_dgx_os_is_told_from_ubuntu() -> None:
    ubuntu = 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\n'
    dgx = 'DGX_NAME="DGX Spark"\nDGX_SWBUILD_VERSION="7.2.3"\nDGX_OTA_VERSION="7.3.1"\n'
    expected = {"id": "ubuntu", "version_id": "24.04", "pretty_name": "Ubuntu 24.04.3 LTS"}
    assert _box.operating_system(ubuntu, dgx) == {**expected, "dgx_os": "7.3.1"}
    assert _box.operating_system(ubuntu, "") == {**expected, "dgx_os": None}


# As they print it, without what is not read. Only the new one has a status of each runtime, and knows of CDI.
DOCKER_20 = """{"Containers":6,"Driver":"overlay2","Warnings":null,"CgroupDriver":"cgroupfs","ServerVersion":"20.10.24+dfsg1",
"DockerRootDir":"/var/lib/docker","Runtimes":{"io.containerd.runc.v2":{"path":"runc"},"io.containerd.runtime.v1.linux":{"path":"runc"},
"nvidia":{"path":"nvidia-container-runtime"},"runc":{"path":"runc"}},"DefaultRuntime":"nvidia"}"""
DOCKER_28 = """{"Containers":1,"Driver":"overlay2","Warnings":null,"CgroupDriver":"systemd","ServerVersion":"28.2.2",
"DockerRootDir":"/var/lib/docker","CDISpecDirs":["/etc/cdi","/var/run/cdi"],"Runtimes":{"io.containerd.runc.v2":{"path":"runc","status":
{"org.opencontainers.runtime-spec.features":"{}"}},"runc":{"path":"runc","status":{}}},"DefaultRuntime":"runc","ClientInfo":{"Version":"28.2.2"}}"""


@pytest.mark.parametrize(
    ("output", "version", "cgroups", "default", "nvidia"),
    [(DOCKER_20, "20.10.24+dfsg1", "cgroupfs", "nvidia", True), (DOCKER_28, "28.2.2", "systemd", "runc", False)],
)
def test_docker_that_runs(output: str, version: str, cgroups: str, default: str, nvidia: bool) -> None:
    found = _box.docker_info(output, "1.41")
    assert (found["running"], found["error"], found["version"], found["api_version"]) == (True, None, version, "1.41")
    assert (found["cgroup_driver"], found["default_runtime"], found["root_dir"]) == (cgroups, default, "/var/lib/docker")
    assert ("nvidia" in found["runtimes"]) == nvidia


def test_docker_that_does_not_run_is_a_fact() -> None:
    # A new client prints its own facts and the server's errors, and ends with 0.
    found = _box.docker_info(json.dumps({"ServerErrors": ["Cannot connect to the Docker daemon"]}))
    assert (found["running"], found["error"]) == (False, "Cannot connect to the Docker daemon")
    assert _box.docker_info("hello")["running"] is False
    assert _box.docker_info("[]")["running"] is False
    assert _box.docker_down("x").keys() == _box.docker_info("{}").keys()


def container(name: str, labels: dict[str, str] | None = None, ports: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "Name": f"/{name}",
        "Id": f"id-{name}",
        "Image": "sha256:1",
        "RestartCount": 0,
        "Config": {"Image": "vllm:x", "Labels": labels},
        "State": {"Status": "running", "StartedAt": "2026-11-23T10:00:00Z", "ExitCode": 0},
        "NetworkSettings": {"Ports": ports},
    }


def test_ours_are_those_with_our_label_and_the_one_that_is_asked_for() -> None:
    labels = {"dgx.spark.spec_digest": "d1", "dgx.spark.recipe": "r"}
    inspected = [container("web"), container("gemma4-nvfp4-previous", labels), container("gemma4-nvfp4")]
    found = _box.containers(inspected, "gemma4-nvfp4")
    assert [(c["name"], c["spec_digest"], c["recipe"]) for c in found] == [
        ("gemma4-nvfp4", None, None),
        ("gemma4-nvfp4-previous", "d1", "r"),
    ]


def test_the_publisher_of_a_port_is_found() -> None:
    inspected = [
        container("off", ports=None),
        container("web", ports={"80/tcp": None, "8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8002"}]}),
    ]
    assert _box.publisher(inspected, 8002) == "web"
    assert _box.publisher(inspected, 8003) is None
    # In the network of the host nothing is published: the process tells its container.
    assert _box.named(inspected, "id-off") == "off"
    assert _box.named(inspected, None) is None


def test_a_container_tells_the_model_and_the_patches_that_it_was_made_from() -> None:
    spec = {
        "model": {"path": "/srv/models/x"},
        "served_model_name": "x",
        "patches": {"vllm.m": {"file": "p.py", "sha256": "a" * 64, "target": "/m.py"}},
    }
    made, foreign = container("ours"), container("theirs")
    made["Config"]["Labels"] = {"dgx.spark.spec_digest": "d1", "dgx.spark.spec": json.dumps(spec)}
    (ours,) = _box.containers([made], "")
    assert (ours["model_dir"], ours["served_model_name"], ours["draft"]) == ("/srv/models/x", "x", None)
    assert ours["patches"] == {"p.py": "a" * 64}
    spec["draft"] = {"path": "/srv/models/x.draft", "mount": "/models/draft", "repo": "google/draft", "commit": "d1"}
    made["Config"]["Labels"]["dgx.spark.spec"] = json.dumps(spec)
    assert _box.containers([made], "")[0]["draft"] == {"repo": "google/draft", "commit": "d1"}
    for label in (None, "{half", '{"model": 1}'):
        foreign["Config"]["Labels"] = {"dgx.spark.spec": label} if label else None
        (theirs,) = _box.containers([foreign], "theirs")
        assert (theirs["model_dir"], theirs["patches"]) == (None, {})


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("", "http://127.0.0.1:8002"),
        ("0.0.0.0", "http://127.0.0.1:8002"),
        ("10.0.0.7", "http://10.0.0.7:8002"),
        ("::", "http://[::1]:8002"),
    ],
)
def test_a_container_tells_where_the_box_reaches_it(address: str, url: str) -> None:
    published = container("ours")
    published["HostConfig"] = {"PortBindings": {"9/tcp": None, "8000/tcp": [{"HostIp": address, "HostPort": "8002"}]}}
    assert _box.containers([published, container("none")], "ours")[0]["base_url"] == url
    assert _box.containers([container("none")], "none")[0]["base_url"] is None


def test_a_container_tells_where_its_key_lies() -> None:
    keyed, keyless = container("keyed"), container("keyless")
    keyed["Mounts"] = [
        {"Source": "/srv/models/x", "Destination": "/models/model"},
        {"Source": "/var/lib/dgx-spark/api-keys/keyed.1", "Destination": "/run/dgx-spark"},
    ]
    assert _box.containers([keyed], "keyed")[0]["api_key_file"] == "/var/lib/dgx-spark/api-keys/keyed.1/api_key"
    assert _box.containers([keyless], "keyless")[0]["api_key_file"] is None


def test_only_installed_packages_count() -> None:
    output = "installed nvidia-container-toolkit 1.19.0-1\nconfig-files libnvidia-container1 1.18.1-1\nnot-installed libnvidia-tools \n"
    assert _box.packages(output) == {"nvidia-container-toolkit": "1.19.0-1"}
