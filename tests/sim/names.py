# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's constants: what its parts are called and where they answer."""

from __future__ import annotations

from pathlib import Path

SIM = Path(__file__).resolve().parent
CACHE = SIM / ".cache"
LOGS = CACHE / "logs"
KEY = CACHE / "id_ed25519"
TINY_GEMMA4 = CACHE / "tiny-gemma4"
HUB_REPOS = CACHE / "hub"
REGISTRY_STORAGE = CACHE / "registry"
BOXES = CACHE / "boxes"

# Everything that the lab makes carries this label: "box", "gateway", "service", "network", "volume" or "image".
LABEL = "dgx.spark.sim"
# What a container was made from: another value means that it is out of date.
INPUTS_LABEL = "dgx.spark.sim.inputs"

NETWORK = "spark-sim"
SUBNET = "172.30.99.0/24"
GATEWAY = "172.30.99.1"
REGISTRY = ("spark-sim-registry", "172.30.99.2")
HUB = ("spark-sim-hub", "172.30.99.3")
APT = ("spark-sim-apt", "172.30.99.4")
# A host without a GPU's work, for what stands before a fleet.
GATEWAY_HOST = ("spark-sim-gateway", "172.30.99.5")
# Docker takes a registry without TLS only on loopback: images are pushed here.
PUSH_TO = "127.0.0.1:5099"

BASE_IMAGE = "dgx-spark-sim/base:bookworm"
BOX_IMAGE = "dgx-spark-sim/box:latest"
SERVICE_IMAGE = "dgx-spark-sim/service:latest"
CPU_IMAGE = "dgxspark/vllm-cpu:0.32.0"
# Tag → the version of vLLM that is inside. The tag `gemma4` really contains an older one.
SCRIPTED_IMAGES = {
    "vllm/vllm-openai:gemma4-cu130": "0.19.1.dev6+g6d4a8e6d2",
    "vllm/vllm-openai:gemma4": "0.18.2.dev0",
    "vllm/vllm-openai:v0.20.2": "0.20.2",
    "vllm/vllm-openai:v0.19.1": "0.19.1",
}
SMOKE_IMAGE = "library/ubuntu:24.04"

BOX_PREFIX = "spark-sim-"
MAX_BOXES = 200


def box_name(number: int) -> str:
    """The container's name of the box with this number (from 1)."""
    return f"{BOX_PREFIX}{number}"


def box_address(number: int) -> str:
    """The box's address on the lab's network: box 1 is 172.30.99.11."""
    return f"172.30.99.{10 + number}"
