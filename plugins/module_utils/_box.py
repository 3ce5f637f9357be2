# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a box is, read from the outputs of its own tools. Pure parsers: nothing here runs or opens anything."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _vllm_guard

GPU_QUERY = ("name", "compute_cap", "driver_version", "memory.total", "uuid")
TOOLKIT_PACKAGES = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
SPEC, SPEC_DIGEST, RECIPE, VLLM_VERSION = "dgx.spark.spec", "dgx.spark.spec_digest", "dgx.spark.recipe", "dgx.spark.vllm_version"
NEVER = "0001-01-01T00:00:00Z"  # what Docker says of a container that was never started


def memory(meminfo: str) -> dict[str, float]:
    """C(total_gib) and C(available_gib) from /proc/meminfo. On a GB10 nvidia-smi shows no memory: it is the box's own."""
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE))
    return {f"{key}_gib": round(int(kib.get(name, 0)) / 1024**2, 2) for key, name in (("total", "MemTotal"), ("available", "MemAvailable"))}


def gpus(output: str) -> list[dict[str, Any]]:
    """The GPUs from C(nvidia-smi --query-gpu=… --format=csv,noheader) with GPU_QUERY; what it shows as [N/A] is null."""
    found = []
    for row in csv.reader(io.StringIO(output), skipinitialspace=True):
        if len(row) != len(GPU_QUERY):
            continue
        name, capability, driver, total, uuid = (None if _is_absent(cell) else cell.strip() for cell in row)
        found.append(
            {
                "name": name,
                "compute_capability": capability,
                "driver_version": driver,
                "memory_mib": int(total.split()[0]) if total else None,
                "uuid": uuid,
            }
        )
    return found


def _is_absent(cell: str) -> bool:
    return cell.strip().strip("[]").lower() in ("n/a", "not supported", "unknown error", "")


def operating_system(os_release: str, dgx_release: str) -> dict[str, str | None]:
    """C(id), C(version_id) and C(pretty_name) of os-release, and the version of DGX OS, null when it is none."""
    values = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    dgx = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', dgx_release, re.MULTILINE))
    return {
        "id": values.get("ID"),
        "version_id": values.get("VERSION_ID"),
        "pretty_name": values.get("PRETTY_NAME"),
        # An upgrade in place is written below the version that the box was delivered with.
        "dgx_os": dgx.get("DGX_OTA_VERSION") or dgx.get("DGX_SWBUILD_VERSION"),
    }


def docker_info(output: str, api_version: str | None = None) -> dict[str, Any]:
    """The facts of C(docker info --format '{{json .}}'); an engine that does not answer is C(running) false, with its error."""
    try:
        info = json.loads(output)
    except ValueError:
        info = None
    if not isinstance(info, dict):
        return docker_down("its answer is no JSON")
    errors = info.get("ServerErrors")
    if errors:
        return docker_down("; ".join(errors))
    return {
        "running": True,
        "error": None,
        "version": info.get("ServerVersion"),
        "api_version": api_version,
        "runtimes": sorted(info.get("Runtimes") or {}),
        "default_runtime": info.get("DefaultRuntime"),
        "root_dir": info.get("DockerRootDir"),
        "cgroup_driver": info.get("CgroupDriver"),
    }


def docker_down(error: str) -> dict[str, Any]:
    """The facts of an engine that does not answer."""
    absent = dict.fromkeys(("version", "api_version", "default_runtime", "root_dir", "cgroup_driver"))
    return {"running": False, "error": error.strip(), "runtimes": [], **absent}


def containers(inspected: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Our containers from C(docker inspect): those with our label, and the one called C(name) whoever made it."""
    found = []
    for container in inspected:
        labels = container["Config"].get("Labels") or {}
        own_name = container["Name"].lstrip("/")
        if SPEC_DIGEST not in labels and own_name != name:
            continue
        found.append(
            {
                "name": own_name,
                "id": container["Id"],
                "image": container["Config"]["Image"],
                "image_id": container["Image"],
                "state": container["State"]["Status"],
                "started_at": started if (started := container["State"]["StartedAt"]) != NEVER else None,
                "restart_count": container["RestartCount"],
                "exit_code": container["State"]["ExitCode"],
                "spec_digest": labels.get(SPEC_DIGEST),
                "recipe": labels.get(RECIPE),
                "vllm_version": labels.get(VLLM_VERSION),
                "base_url": _base_url((container.get("HostConfig") or {}).get("PortBindings") or {}),
                "api_key_file": _api_key_file(container.get("Mounts") or []),
                **_made_from(labels.get(SPEC)),
            }
        )
    return sorted(found, key=lambda entry: entry["name"])


def _base_url(bindings: Mapping[str, Any]) -> str | None:
    """Where the box itself reaches a container's first published port, whether it runs or not; null when it publishes none."""
    for published in bindings.values():
        for binding in published or []:
            address, port = binding.get("HostIp") or "0.0.0.0", binding.get("HostPort")
            address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
            if port:
                return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
    return None


def _api_key_file(mounts: Sequence[Mapping[str, Any]]) -> str | None:
    """Where the box keeps the key that a container wants of its clients; null for one that wants none, or is not ours."""
    found = next((mount.get("Source") for mount in mounts if mount.get("Destination") == _vllm_guard.MOUNT), None)
    return f"{found}/{_vllm_guard.KEY_NAME}" if found else None


def _made_from(label: str | None) -> dict[str, Any]:
    """C(model_dir), C(served_model_name), C(draft) ({repo, commit}) and C(patches) (file → sha256) from the resolved spec in a container's
    label; null and none without one."""
    try:
        spec = json.loads(label or "")
        return {
            "model_dir": spec["model"]["path"],
            "served_model_name": spec["served_model_name"],
            "draft": {key: spec["draft"][key] for key in ("repo", "commit")} if "draft" in spec else None,
            "patches": {patch["file"]: patch["sha256"] for patch in spec["patches"].values()},
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"model_dir": None, "served_model_name": None, "draft": None, "patches": {}}


def publisher(inspected: Sequence[Mapping[str, Any]], port: int) -> str | None:
    """The name of the running container that publishes C(port) of the box, null when none does."""
    for container in inspected:
        for bindings in (container["NetworkSettings"].get("Ports") or {}).values():
            if any(binding.get("HostPort") == str(port) for binding in bindings or []):
                return str(container["Name"]).lstrip("/")
    return None


def named(inspected: Sequence[Mapping[str, Any]], container_id: str | None) -> str | None:
    """The name of the container with this id."""
    return next((str(container["Name"]).lstrip("/") for container in inspected if container["Id"] == container_id), None)


def packages(output: str) -> dict[str, str]:
    """Package → version of what is installed, from C(dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\\n')."""
    rows = (line.split() for line in output.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}
