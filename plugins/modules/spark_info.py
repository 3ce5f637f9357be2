#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""One look at a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_info
short_description: One look at a box
version_added: "0.1.0"
description:
  - Reads what a deployment needs to know of a box in one go. The GPU and its driver, memory, disk, Docker, the container toolkit, Ollama,
    the containers of this collection, a port, the weights and the evidence.
  - What is absent is a fact and no failure, so it runs on a virgin box. Every command it runs is bounded, so a hanging Docker is one, too.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  container:
    description: The name of the container that serves, or will serve. It is reported even when this collection did not make it.
    type: str
    default: ""
  model_dir:
    description: The directory of the weights, as M(dgx.spark.hf_snapshot) makes it. The disk is that of its nearest existing parent.
    type: path
    default: /srv/models
  evidence_dir:
    description: Where the box keeps its evidence. The file C(CONTAINER.json) in it is returned.
    type: path
    default: /var/lib/dgx-spark/evidence
  ollama_url:
    description: Where Ollama listens, if it does.
    type: str
    default: http://127.0.0.1:11434
  ports:
    description: The ports to look at.
    type: list
    elements: int
    default: [8002]
"""

EXAMPLES = r"""
- name: Look at the box
  dgx.spark.spark_info:
    container: gemma4-nvfp4
    model_dir: /srv/models/gemma4-26b-a4b-nvfp4
  register: look

- name: It has a GB10
  ansible.builtin.assert:
    that: look.spark.gpus[0].compute_capability == '12.1'
"""

RETURN = r"""
spark:
  description: The facts.
  type: dict
  returned: success
  contains:
    architecture:
      description: As the kernel calls it.
      type: str
      sample: aarch64
    kernel:
      description: The kernel's release.
      type: str
    cpus:
      description: How many processors.
      type: int
    os:
      description: C(id), C(version_id), C(pretty_name), and C(dgx_os), the version of DGX OS or null.
      type: dict
    memory:
      description: C(total_gib) and C(available_gib), from /proc/meminfo. On a GB10 it is the GPU's memory, too.
      type: dict
    gpus:
      description: C(name), C(compute_capability), C(driver_version), C(memory_mib) (null on a GB10) and C(uuid) of each.
      type: list
      elements: dict
    disk:
      description: C(path), C(total_gb) and C(free_gb) of the disk under O(model_dir).
      type: dict
    docker_disk:
      description: The same of Docker's own directory, null when Docker does not run.
      type: dict
    docker:
      description: C(running), C(error), C(version), C(runtimes), C(default_runtime), C(root_dir) and C(cgroup_driver).
      type: dict
    toolkit:
      description: Package to version of NVIDIA's container toolkit, as far as installed.
      type: dict
    ollama:
      description: C(present), C(running), C(version) and the loaded C(models) (C(name), C(size) and C(size_vram) in bytes).
      type: dict
    containers:
      description: The containers of this collection, and the one called O(container).
      type: list
      elements: dict
    ports:
      description: For each of O(ports) null, or the C(process), C(pid) and C(container) that hold it.
      type: dict
    model:
      description: C(path), C(repo), C(revision), C(commit), C(complete), C(bytes) and C(problem) of the weights, null when there are none.
      type: dict
    evidence:
      description: The evidence of O(container), null when there is none.
      type: dict
    python_docker:
      description: The version of python3-docker, null when it is not installed.
      type: str
"""

import http.client
import importlib.metadata
import json
import os
import shutil
import subprocess
import urllib.parse
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _box
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import problem, read_marker

COMMAND_S = 10


def run(*argv: str) -> tuple[bool, str]:
    """Did the command end well, and what it printed (its errors when it did not). A missing one, or one that hangs, did not."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except FileNotFoundError:
        return False, f"{argv[0]} is not installed"
    except subprocess.TimeoutExpired:
        return False, f"{argv[0]} did not answer within {COMMAND_S} s"
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stderr or done.stdout


def read(path: str) -> str:
    """The file's content, empty when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def document(path: str) -> dict[str, Any] | None:
    """The JSON object in the file, null when there is none that can be read."""
    try:
        found = json.loads(read(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def disk(path: str) -> dict[str, Any]:
    """Room on the disk of the nearest parent of C(path) that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    usage = shutil.disk_usage(path)
    return {"path": path, "total_gb": round(usage.total / 1e9, 1), "free_gb": round(usage.free / 1e9, 1)}


def inspect_containers() -> list[dict[str, Any]]:
    ok, ids = run("docker", "ps", "--all", "--quiet", "--no-trunc")
    if not ok or not ids.split():
        return []
    # One that is removed meanwhile is an error of the command; the others are printed all the same.
    done = subprocess.run(["docker", "inspect", *ids.split()], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def holder(port: int, inspected: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Who listens on the port."""
    sockets = {**_box.listening(read("/proc/net/tcp6")), **_box.listening(read("/proc/net/tcp"))}
    container = _box.publisher(inspected, port)
    if port not in sockets and not container:
        return None
    pid = _owner(sockets.get(port, ""))
    return {"process": read(f"/proc/{pid}/comm").strip() or None if pid else None, "pid": pid, "container": container}


def _owner(inode: str) -> int | None:
    """The process that has the socket open."""
    target = f"socket:[{inode}]"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = os.scandir(f"/proc/{pid}/fd")
        except OSError:  # it ended meanwhile
            continue
        with files:
            for entry in files:
                try:
                    if os.readlink(entry.path) == target:
                        return int(pid)
                except OSError:
                    continue
    return None


def ollama(url: str) -> dict[str, Any]:
    """Is Ollama there, does it answer, and what has it loaded?"""
    found: dict[str, Any] = {"present": shutil.which("ollama") is not None, "running": False, "version": None, "models": []}
    version, loaded = _get(url, "/api/version"), _get(url, "/api/ps")
    if loaded is None:
        return found
    models = [{"name": m.get("name"), "size": m.get("size"), "size_vram": m.get("size_vram")} for m in loaded.get("models") or []]
    return {"present": True, "running": True, "version": (version or {}).get("version"), "models": models}


def _get(url: str, path: str) -> dict[str, Any] | None:
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=3)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return answer if isinstance(answer, dict) else None


def model(path: str) -> dict[str, Any] | None:
    """The weights as their marker describes them, and whether every file is still as it was verified."""
    marker = read_marker(path)
    if marker is None:
        return None
    found = problem(path, marker)
    size = sum(present.size for present in marker.present.values())
    source = {"repo": marker.repo, "revision": marker.revision, "commit": marker.commit}
    return {"path": path, **source, "complete": not found, "bytes": size, "problem": found}


def python_docker() -> str | None:
    try:
        return importlib.metadata.version("docker")
    except importlib.metadata.PackageNotFoundError:
        return None


def toolkit() -> dict[str, str]:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *_box.TOOLKIT_PACKAGES]
    if not shutil.which(query[0]):
        return {}
    # It fails when one of the packages is unknown, and prints the others all the same.
    return _box.packages(subprocess.run(query, capture_output=True, text=True, timeout=COMMAND_S, check=False).stdout)


def look(params: dict[str, Any]) -> dict[str, Any]:
    """All facts of the box."""
    ok, output = run("docker", "info", "--format", "{{json .}}")
    docker = _box.docker_info(output) if ok else _box.docker_down(output)
    inspected = inspect_containers() if docker["running"] else []
    ok, smi = run("nvidia-smi", f"--query-gpu={','.join(_box.GPU_QUERY)}", "--format=csv,noheader")
    system = os.uname()
    return {
        "architecture": system.machine,
        "kernel": system.release,
        "cpus": os.cpu_count(),
        "os": _box.operating_system(read("/etc/os-release"), read("/etc/dgx-release")),
        "memory": _box.memory(read("/proc/meminfo")),
        "gpus": _box.gpus(smi) if ok else [],
        "disk": disk(params["model_dir"]),
        "docker_disk": disk(docker["root_dir"]) if docker["root_dir"] else None,
        "docker": docker,
        "toolkit": toolkit(),
        "ollama": ollama(params["ollama_url"]),
        "containers": _box.containers(inspected, params["container"]),
        "ports": {str(port): holder(port, inspected) for port in params["ports"]},
        "model": model(params["model_dir"]),
        "evidence": document(os.path.join(params["evidence_dir"], f"{params['container']}.json")) if params["container"] else None,
        "python_docker": python_docker(),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "default": ""},
            "model_dir": {"type": "path", "default": "/srv/models"},
            "evidence_dir": {"type": "path", "default": "/var/lib/dgx-spark/evidence"},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "ports": {"type": "list", "elements": "int", "default": [8002]},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, spark=look(module.params))


if __name__ == "__main__":
    main()
