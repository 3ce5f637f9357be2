# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The network and the service containers around the boxes: registry, apt repository, Hub."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.error import URLError

from sim import images
from sim.names import (
    APT,
    GATEWAY,
    HUB,
    HUB_REPOS,
    INPUTS_LABEL,
    LABEL,
    NETWORK,
    PUSH_TO,
    REGISTRY,
    REGISTRY_STORAGE,
    SERVICE_IMAGE,
    SUBNET,
)
from sim.shell import LabError, docker, say, wait_for

START_TIMEOUT_S = 30


@dataclass(frozen=True)
class Service:
    """One service container: its name and address, what `docker run` gets, what it runs, and where it answers."""

    name: str
    address: str
    options: tuple[str, ...]
    command: tuple[str, ...]
    url: str

    def inputs(self, image_id: str) -> str:
        """A hash of all that the container is made from."""
        return images.digest([image_id, self.address, *self.options, "--", *self.command])


def _bind(source: str, target: str, *, read_only: bool = False) -> str:
    return f"--mount=type=bind,source={source},target={target}{',readonly' if read_only else ''}"


def services() -> list[Service]:
    """All services."""
    # They write to the cache as whoever runs the lab, so that it can be removed without root.
    user = f"--user={os.getuid()}:{os.getgid()}"
    return [
        Service(
            *REGISTRY,
            options=(
                user,
                f"--publish={PUSH_TO}:80",
                "--sysctl=net.ipv4.ip_unprivileged_port_start=0",
                _bind(str(REGISTRY_STORAGE), "/var/lib/registry"),
            ),
            command=("docker-registry", "serve", "/etc/spark-sim/registry.yml"),
            url=f"http://{REGISTRY[1]}/v2/",
        ),
        Service(
            *HUB,
            options=(user, _bind(str(HUB_REPOS), "/srv/hub", read_only=True)),
            command=("python3", "-u", "-m", "sim.hub", "--root", "/srv/hub", "--bind", "0.0.0.0", "--port", "8080"),
            url=f"http://{HUB[1]}:8080/_sim/faults",
        ),
        Service(
            *APT,
            options=(user,),
            command=("python3", "-u", "-m", "http.server", "8080", "-d", "/srv/apt"),
            url=f"http://{APT[1]}:8080/libnvidia-container/gpgkey",
        ),
    ]


def ensure_network() -> None:
    """The lab's network is there. Raises LabError when its addresses are taken."""
    if docker("network", "ls", "-q", "--filter", f"name=^{NETWORK}$").strip():
        return
    options = ["--subnet", SUBNET, "--gateway", GATEWAY, "--label", f"{LABEL}=network"]
    try:
        docker("network", "create", *options, NETWORK)
    except LabError as error:
        raise LabError(f"{error}\nThe lab needs the addresses {SUBNET}: remove the network that has them (`docker network ls`)") from error


def _answers(url: str) -> Callable[[], bool]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask() -> bool:
        try:
            opener.open(url, timeout=2).close()
        except (URLError, OSError):
            return False
        return True

    return ask


def running() -> dict[str, tuple[str, str]]:
    """Name → (state, inputs) of the boxes, the gateway's host and the services.

    Their label must have its value: a build's container inherits the label of the image that it comes from.
    """
    form = f'{{{{.Names}}}} {{{{.State}}}} {{{{.Label "{INPUTS_LABEL}"}}}}'
    found = {}
    for kind in ("box", "gateway", "service"):
        for line in docker("ps", "-a", "--filter", f"label={LABEL}={kind}", "--format", form).splitlines():
            name, state, inputs = line.split(" ")
            found[name] = (state, inputs)
    return found


def ensure(image_id: str, containers: dict[str, tuple[str, str]]) -> None:
    """Every service runs from the present image and answers."""
    ensure_network()
    for folder in (REGISTRY_STORAGE, HUB_REPOS):
        folder.mkdir(parents=True, exist_ok=True)
    started = []
    for service in services():
        inputs = service.inputs(image_id)
        state, found = containers.get(service.name, ("", ""))
        if found == inputs and state == "running":
            continue
        if state:
            docker("rm", "-f", service.name)
        labels = ["--label", f"{LABEL}=service", "--label", f"{INPUTS_LABEL}={inputs}"]
        network = ["--network", NETWORK, "--ip", service.address, "--hostname", service.name]
        docker("run", "-d", "--name", service.name, *labels, *network, "--restart", "no", *service.options, SERVICE_IMAGE, *service.command)
        started.append(service)
    for service in started:
        wait_for(
            f"{service.name} at {service.url}",
            _answers(service.url),
            timeout=START_TIMEOUT_S,
            evidence=lambda name=service.name: docker("logs", "--tail", "20", name, check=False),  # type: ignore[misc]
        )
        say(f"{service.name} answers at {service.url}")
