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
  - What is absent is a fact and no failure, so it runs on a virgin box. Every command it runs is bounded, so a Docker or a driver that
    hangs is one, too.
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
  draft_dir:
    description: The directory of a draft model's weights, where there is one.
    type: path
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
    gpu_error:
      description: Why nvidia-smi shows no GPU, null when it does.
      type: str
    disk:
      description: C(path), C(total_gb) and C(free_gb) of the disk under O(model_dir).
      type: dict
    docker_disk:
      description: The same of Docker's own directory, null when Docker does not run.
      type: dict
    docker:
      description: C(running), C(error), C(version), C(api_version), C(runtimes), C(default_runtime), C(root_dir) and C(cgroup_driver).
      type: dict
    toolkit:
      description: Package to version of NVIDIA's container toolkit, as far as installed.
      type: dict
    ollama:
      description: C(present), C(running), C(version) and the loaded C(models) (C(name), C(size) and C(size_vram) in bytes).
      type: dict
    containers:
      description:
        - The containers of this collection, and the one called O(container).
        - C(model_dir), C(served_model_name), C(draft) (C(repo) and C(commit) of its draft model) and C(patches) (file to sha256) are what
          one was made from, null and empty when this collection did not make it.
        - C(base_url) is where the box itself reaches it, null when it publishes no port.
        - C(api_key_file) is where the box keeps the API key that it wants of its clients, null when it wants none.
      type: list
      elements: dict
    ports:
      description: For each of O(ports) null, or the C(process), C(pid) and C(container) that hold it. Each may be null by itself.
      type: dict
    model:
      description:
        - C(path), C(repo), C(revision), C(commit), C(complete), C(bytes) and C(problem) of the weights, null when O(model_dir) is empty.
        - They are complete when every file has the size, time and inode that it had when it was verified. C(problem) says what has not.
        - C(fingerprint) is one hash over the paths, sizes and hashes of all files, by which a lock knows them.
      type: dict
    draft:
      description: The same of what lies in O(draft_dir).
      type: dict
    snapshots:
      description: C(path), C(repo), C(revision) and C(commit) of what lies complete beside O(model_dir), which a download would link.
      type: list
      elements: dict
    evidence:
      description: The evidence of O(container), null when there is none.
      type: dict
    python_docker:
      description: The version of python3-docker, null when it is not installed.
      type: str
    firewall:
      description: Does M(dgx.spark.port_access) keep clients away from vLLM's port?
      type: bool
    run_lock:
      description: The run that holds the box, as M(dgx.spark.run_lock) returns it, null when none does. A run that was killed leaves it.
      type: dict
"""

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _box
from ansible_collections.dgx.spark.plugins.module_utils._command import Ran, bounded
from ansible_collections.dgx.spark.plugins.module_utils._locked import fingerprint
from ansible_collections.dgx.spark.plugins.module_utils._neighbours import neighbours
from ansible_collections.dgx.spark.plugins.module_utils._ollama import Ollama, OllamaError
from ansible_collections.dgx.spark.plugins.module_utils._port_access import UNIT_FILE
from ansible_collections.dgx.spark.plugins.module_utils._proc import LISTEN, owners, tcp_sockets
from ansible_collections.dgx.spark.plugins.module_utils._run_lock import LOCK, about, holder
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Marker, problem, read_marker

COMMAND_S = 10
OLLAMA_S = 2


def run(*argv: str) -> Ran:
    """Run a command; one that is missing, or hangs, did not end well."""
    return bounded(argv, COMMAND_S)


def read(path: str) -> str:
    """The file's content, empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
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
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    usage = shutil.disk_usage(path)
    return {"path": path, "total_gb": round(usage.total / 1e9, 1), "free_gb": round(usage.free / 1e9, 1)}


def docker() -> dict[str, Any]:
    """Docker, as its own command sees it."""
    info = run("docker", "info", "--format", "{{json .}}")
    if not info.ok:
        return _box.docker_down(info.error)
    version = run("docker", "version", "--format", "{{.Server.APIVersion}}")
    return _box.docker_info(info.output, version.output.strip() or None)


def inspect_containers() -> list[dict[str, Any]]:
    """All containers. Empty when Docker does not tell in time."""
    ids = run("docker", "ps", "--all", "--quiet", "--no-trunc").output.split()
    if not ids:
        return []
    # One that is removed meanwhile is an error of the command; the others are printed all the same.
    try:
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", "--type", "container", *ids).output or "[]")
    except ValueError:
        return []
    return found


def holders(ports: list[int], inspected: list[dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Who listens on each port, or publishes it."""
    sockets = {found.port: found.inode for found in tcp_sockets() if found.state == LISTEN and found.port in ports}
    processes = owners(sockets.values())
    held: dict[str, dict[str, Any] | None] = {}
    for port in ports:
        process = processes.get(sockets.get(port, ""))
        container = _box.publisher(inspected, port) or (_box.named(inspected, process.container) if process else None)
        held[str(port)] = None
        if port in sockets or container:
            held[str(port)] = {
                "process": process.name if process else None,
                "pid": process.pid if process else None,
                "container": container,
            }
    return held


def ollama(url: str) -> dict[str, Any]:
    """Is Ollama there, does it answer, and what has it loaded?"""
    installed = bool(shutil.which("ollama")) or any(map(os.path.exists, ("/usr/local/bin/ollama", "/etc/systemd/system/ollama.service")))
    found: dict[str, Any] = {"present": installed, "running": False, "version": None, "models": []}
    try:
        server = Ollama(url, timeout=OLLAMA_S)
        loaded = server.loaded()
        version = server.version() if loaded is not None else None
    except OllamaError:
        return found
    if loaded is None:
        return found
    models = [{"name": model.name, "size": model.size, "size_vram": model.size_vram} for model in loaded]
    return {"present": True, "running": True, "version": version, "models": models}


def model(path: str) -> dict[str, Any] | None:
    """The weights as their marker describes them, and whether every file is still as it was verified."""
    marker = read_marker(path)
    if marker is None and not (os.path.isdir(path) and os.listdir(path)):
        return None
    found = problem(path, marker)
    size = sum(present.size for present in marker.present.values()) if marker else 0
    about: dict[str, str | None] = {"repo": None, "revision": None, "commit": None, "fingerprint": None}
    if marker:
        about = {**_origin(marker), "fingerprint": fingerprint(marker.files.values())}
    return {"path": path, **about, "complete": not found, "bytes": size, "problem": found}


def snapshots(path: str) -> list[dict[str, Any]]:
    """What lies complete beside the weights."""
    beside = neighbours(path)
    return [{"path": where, **_origin(marker)} for where, marker in beside.items() if not problem(where, marker)]


def _origin(marker: Marker) -> dict[str, str]:
    return {"repo": marker.repo, "revision": marker.revision, "commit": marker.commit}


def python_docker() -> str | None:
    """The version that the docker modules would find."""
    try:
        return importlib.metadata.version("docker")
    except importlib.metadata.PackageNotFoundError:
        return None


def toolkit() -> dict[str, str]:
    """The toolkit's packages. The query fails when one of them is unknown, and prints the others all the same."""
    return _box.packages(run("dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n", *_box.TOOLKIT_PACKAGES).output)


def gpus() -> tuple[list[dict[str, Any]], str | None]:
    """The GPUs, and why there are none."""
    smi = run("nvidia-smi", f"--query-gpu={','.join(_box.GPU_QUERY)}", "--format=csv,noheader")
    found = _box.gpus(smi.output) if smi.ok else []
    return found, None if found else smi.error or smi.output.strip() or "nvidia-smi shows none"


def run_lock() -> Mapping[str, Any] | None:
    """The run that holds the box, or was killed while it did."""
    text = read(LOCK)
    return about(holder(text), time.time()) if text else None


def look(params: dict[str, Any]) -> dict[str, Any]:
    """All facts of the box."""
    engine = docker()
    inspected = inspect_containers() if engine["running"] else []
    devices, gpu_error = gpus()
    system = os.uname()
    return {
        "architecture": system.machine,
        "kernel": system.release,
        "cpus": os.cpu_count(),
        "os": _box.operating_system(read("/etc/os-release"), read("/etc/dgx-release")),
        "memory": _box.memory(read("/proc/meminfo")),
        "gpus": devices,
        "gpu_error": gpu_error,
        "disk": disk(params["model_dir"]),
        "docker_disk": disk(engine["root_dir"]) if engine["root_dir"] else None,
        "docker": engine,
        "toolkit": toolkit(),
        "ollama": ollama(params["ollama_url"]),
        "containers": _box.containers(inspected, params["container"]),
        "ports": holders(params["ports"], inspected),
        "model": model(params["model_dir"]),
        "draft": model(params["draft_dir"]) if params["draft_dir"] else None,
        "snapshots": snapshots(params["model_dir"]),
        "evidence": document(os.path.join(params["evidence_dir"], f"{params['container']}.json")) if params["container"] else None,
        "python_docker": python_docker(),
        "firewall": os.path.exists(UNIT_FILE),
        "run_lock": run_lock(),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str", "default": ""},
            "model_dir": {"type": "path", "default": "/srv/models"},
            "draft_dir": {"type": "path"},
            "evidence_dir": {"type": "path", "default": "/var/lib/dgx-spark/evidence"},
            "ollama_url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "ports": {"type": "list", "elements": "int", "default": [8002]},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, spark=look(module.params))


if __name__ == "__main__":
    main()
