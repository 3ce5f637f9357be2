# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-4"]


def inspect(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.check_output("docker inspect gemma4-nvfp4"))[0]
    return found


def test_the_container_has_the_articles_options(host: Host) -> None:
    container = inspect(host)
    options = container["HostConfig"]
    assert container["State"]["Running"]
    assert container["Config"]["Image"].startswith("vllm/vllm-openai:gemma4-cu130")
    assert options["IpcMode"] == "host"
    assert options["ShmSize"] == 64 * 1024**3
    assert options["DeviceRequests"][0]["Count"] == -1
    assert options["DeviceRequests"][0]["Capabilities"] == [["gpu"]]
    assert options["PortBindings"]["8000/tcp"][0]["HostPort"] == "8002"
    assert options["RestartPolicy"]["Name"] == "unless-stopped"
    assert options["LogConfig"]["Config"] == {"max-size": "50m", "max-file": "3"}


def test_the_command_is_the_articles_flag_for_flag(host: Host) -> None:
    command = " ".join(inspect(host)["Config"]["Cmd"])
    for flag in (
        "--model /models/gemma4",
        "--served-model-name gemma-4-26b",
        "--host 0.0.0.0",
        "--port 8000",
        "--quantization modelopt",
        "--kv-cache-dtype fp8",
        "--max-model-len 131072",
        "--gpu-memory-utilization 0.85",
        "--moe-backend marlin",
        "--reasoning-parser gemma4",
        "--enable-auto-tool-choice",
        "--tool-call-parser gemma4",
    ):
        assert flag in command


def test_weights_and_patch_are_mounted_read_only_where_the_image_has_vllm(host: Host) -> None:
    mounts = {mount["Destination"]: mount for mount in inspect(host)["Mounts"]}
    patch = next(path for path in mounts if path.endswith("/vllm/model_executor/models/gemma4.py"))
    for path in ("/models/gemma4", patch):
        assert not mounts[path]["RW"]
    # The path comes from the image, and not from the article's python3.12.
    found = host.check_output(
        "docker exec gemma4-nvfp4 python3 -c 'import importlib.util as u; print(u.find_spec(\"vllm\").submodule_search_locations[0])'"
    )
    assert patch.startswith(found)
