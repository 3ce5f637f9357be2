# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The same state as plain.yml, with pyinfra's own operations."""

import json
from io import StringIO

from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import apt, docker, files, systemd

MODEL = "/srv/models/gemma4-26b-a4b-nvfp4/main"
TOOLKIT = ("libnvidia-container1", "libnvidia-container-tools", "nvidia-container-toolkit-base", "nvidia-container-toolkit")
repository = host.data.container_toolkit_repository

files.download(src=f"{repository}/gpgkey", dest="/etc/apt/keyrings/plain.asc", mode="644", _sudo=True)
files.put(
    src=StringIO(
        f"Types: deb\nURIs: {repository}/stable/deb/$(ARCH)\nSuites: /\nSigned-By: /etc/apt/keyrings/nvidia-container-toolkit.asc\n"
    ),
    dest="/etc/apt/sources.list.d/nvidia-container-toolkit.sources",
    mode="644",
    _sudo=True,
)
apt.packages(packages=[*(f"{name}=1.19.0-1" for name in TOOLKIT), "python3-docker", "aria2"], _sudo=True)
if "nvidia" not in json.loads(host.get_fact(Command, "cat /etc/docker/daemon.json"))["runtimes"]:
    raise SystemExit("the nvidia runtime is missing")
systemd.service(service="docker", running=True, enabled=True, _sudo=True)
for name in ("config.json", "gemma4_patched.py", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json"):
    files.file(path=f"{MODEL}/{name}", _sudo=True)
if json.loads(host.get_fact(Command, "curl -fsS http://127.0.0.1:11434/api/ps"))["models"]:
    raise SystemExit("Ollama holds a model")
docker.container(
    container="pyinfra-vllm",
    image="vllm/vllm-openai:gemma4-cu130",
    command=host.data.vllm_command,
    ports=["8102:8000"],
    volumes=[f"{MODEL}:/models/gemma4:ro", f"{MODEL}/gemma4_patched.py:{host.data.patched}:ro"],
    restart_policy="unless-stopped",
    extra_args=["--gpus=all", "--ipc=host", "--shm-size=64g", "--log-opt=max-size=50m", "--log-opt=max-file=3", "--stop-timeout=120"],
    start=True,
    _sudo=True,
)
if host.data.settled:  # the first run has only just planned the container
    host.get_fact(Command, "curl -fsS --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:8102/health")
    if json.loads(host.get_fact(Command, "curl -fsS http://127.0.0.1:8102/v1/models"))["data"][0]["id"] != "gemma-4-26b":
        raise SystemExit("another model is served")
