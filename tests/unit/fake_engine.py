# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A Docker engine in memory: unique names, ports that collide at start, starts that fail, and a run that is killed at any step."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from ansible_collections.dgx.spark.plugins.module_utils._container_engine import (
    Container,
    Creation,
    Ended,
    EngineError,
    LocalImage,
    Published,
    RegistryAccess,
    RegistryImage,
    StoredImage,
    Use,
)


class Killed(BaseException):
    """The module's process was killed."""


@dataclass
class FakeEngine:
    """C(images) by name and by id; C(contents) is what a look into an image finds, by id."""

    images: dict[str, LocalImage] = field(default_factory=dict)
    contents: dict[str, dict[str, str | None]] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    creations: dict[str, Creation] = field(default_factory=dict)  # by container id
    ports: dict[str, tuple[str, int]] = field(default_factory=dict)  # by container id
    refuse_start: Callable[[Container, Creation | None], str | None] = lambda container, creation: None
    refuse_create: str | None = None
    refuse_pull: str | None = None
    refuse_rename: str | None = None
    kill_at: int | None = None
    deeds: list[str] = field(default_factory=list)
    looks: int = 0
    registry: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # the events of a pull by reference; the last has the vLLM
    endpoint: str = ""  # of the registry
    archive: bytes = b""  # what save gives
    stacks: dict[str, Sequence[str]] = field(default_factory=dict)  # the layers of its images, plain, by id
    loaded: list[str] = field(default_factory=list)  # the parts of the archives that were loaded
    tags: dict[str, str] = field(default_factory=dict)  # what the registry has under a name now: a digest
    _ids: itertools.count[int] = field(default_factory=itertools.count)

    # What the test says about the world

    def add_image(self, name: str, vllm: str | None, digest: str | None = None) -> str:
        image_id = f"sha256:{len(self.contents):064x}"
        image = LocalImage(image_id, (digest,) if digest else (), "arm64")
        self.images |= {name: image, image_id: image}
        if digest:
            self.images[f"{name.partition(':')[0]}@{digest}"] = image
        path = "/usr/local/lib/python3.12/dist-packages/vllm" if vllm else None
        self.contents[image_id] = {"vllm_version": vllm, "vllm_path": path, "python": "3.12.11"}
        return image_id

    def add_container(self, name: str, status: str = "running", port: int | None = None, restart_policy: str = "no") -> Container:
        """One that somebody else made."""
        made = Container(
            name, f"c{next(self._ids)}", "sha256:foreign", status, started_at="2026-04-05T10:00:00Z", restart_policy=restart_policy
        )
        self.containers[name] = made
        if port:
            self.ports[made.id] = ("0.0.0.0", port)
        return made

    def crash(self, name: str, code: int = 1) -> None:
        self.containers[name] = replace(self.containers[name], status="exited", exit_code=code)

    def reboot(self) -> None:
        """Containers end, and all that have a restart policy come back, as with the policy always: the worst that Docker can do."""
        for name, container in self.containers.items():
            if container.running:
                self.containers[name] = replace(container, status="exited", exit_code=255)
        for name, container in self.containers.items():
            port = self.ports.get(container.id)
            if container.restart_policy != "no" and not any(port and held.port == port[1] for held in self.published()):
                self.containers[name] = replace(container, status="running", started_at="2026-11-24T00:00:00Z")

    def states(self) -> dict[str, str]:
        return {name: container.status for name, container in sorted(self.containers.items())}

    # The protocol

    def image(self, reference: str) -> LocalImage | None:
        return self.images.get(reference)

    def stored_images(self) -> list[StoredImage]:
        named: dict[str, list[str]] = {}
        for name, image in self.images.items():
            named.setdefault(image.id, []).extend([] if name == image.id else [name])
        return [StoredImage(image_id, tuple(names), 20_000_000_000) for image_id, names in named.items()]

    def remove_image(self, image: StoredImage) -> None:
        self._deed(f"remove image {image.id}")
        if any(container.image_id == image.id for container in self.containers.values()):
            raise EngineError(f"Docker refused to remove image {image.id}: conflict: a container uses it")
        self.images = {name: local for name, local in self.images.items() if local.id != image.id}

    def uses(self) -> list[Use]:
        return [
            Use(name, container.image_id, tuple(source for source, _target in self.creations[container.id].mounts))
            if container.id in self.creations
            else Use(name, container.image_id, ())
            for name, container in self.containers.items()
        ]

    def pull(self, reference: str) -> Iterator[Mapping[str, Any]]:
        self._deed(f"pull {reference}")
        if self.refuse_pull:
            raise EngineError(f"Docker refused to pull {reference}: {self.refuse_pull}")
        if reference not in self.registry:
            yield {"error": f"manifest for {reference} not found: manifest unknown"}
            return
        *events, last = self.registry[reference]
        yield from events
        name, _at, digest = reference.partition("@")
        self.add_image(name, last["vllm"], digest or None)

    def registry_image(self, reference: str) -> RegistryImage:
        if reference not in self.tags:
            raise EngineError(f"Docker refused to ask the registry for {reference}: manifest unknown")
        return RegistryImage(self.tags[reference], ("amd64", "arm64"))

    def registry_access(self, repository: str) -> RegistryAccess:
        return RegistryAccess(repository, (self.endpoint,))

    def size(self, reference: str) -> int:
        return 20_000

    def layers(self) -> list[Sequence[str]]:
        return list(self.stacks.values())

    def root(self) -> str:
        return "/"

    def tag(self, image_id: str, name: str) -> None:
        self._deed(f"tag {name}")
        self.images[name] = self.images[image_id]

    def save(self, name: str) -> Iterator[bytes]:
        self._deed(f"save {name}")
        yield from (self.archive[:10], self.archive[10:])

    def load(self, archive: BinaryIO) -> Iterator[Mapping[str, Any]]:
        """As Docker's own store: an image is called by the sha256 of its configuration, and a layer that is there may lack."""
        self._deed("load")
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            entry = json.load(tar.extractfile("manifest.json") or io.BytesIO())[0]
            config = tar.extractfile(entry["Config"])
            content = config.read() if config else b""
            image_id = f"sha256:{hashlib.sha256(content).hexdigest()}"
            plain = json.loads(content)["rootfs"]["diff_ids"]
            self.loaded += tar.getnames()
            for number, name in enumerate(entry["Layers"]):
                if name not in tar.getnames() and plain[: number + 1] not in [list(stack[: number + 1]) for stack in self.stacks.values()]:
                    yield {"error": f"open /var/lib/docker/tmp/docker-import-1/{name}: no such file or directory"}
                    return
        self.stacks[image_id] = plain
        self.images |= {name: LocalImage(image_id, (), "arm64") for name in (*entry["RepoTags"], image_id)}
        self.contents[image_id] = {"vllm_version": "0.19.1", "vllm_path": "/vllm", "python": "3.12.11"}
        yield {"stream": f"Loaded image: {entry['RepoTags'][0]}"}

    def container(self, name: str) -> Container | None:
        return self.containers.get(name)

    def published(self) -> list[Published]:
        return [
            Published(name, *self.ports[container.id])
            for name, container in self.containers.items()
            if container.running and container.id in self.ports
        ]

    def create(self, name: str, creation: Creation) -> None:
        self._deed(f"create {name}")
        if self.refuse_create:
            raise EngineError(f"Docker refused to create {name}: {self.refuse_create}")
        self._is_free(name)
        image = self.images[creation.image]
        made = Container(name, f"c{next(self._ids)}", image.id, "created", labels=dict(creation.labels), stop_timeout=creation.stop_timeout)
        self.containers[name] = made
        self.creations[made.id] = creation
        self.ports[made.id] = (creation.bind, creation.port)

    def start(self, name: str, restart_policy: str) -> None:
        self.set_restart_policy(name, restart_policy)
        self._deed(f"start {name}")
        container = self._there(name)
        if container.running:
            return
        why = self.refuse_start(container, self.creations.get(container.id))
        port = self.ports.get(container.id)
        if port and any(held.port == port[1] for held in self.published()):
            why = f"Bind for 0.0.0.0:{port[1]} failed: port is already allocated"
        if why:
            raise EngineError(f"Docker refused to start {name}: {why}")
        self.containers[name] = replace(container, status="running", started_at=f"2026-11-23T00:00:{len(self.deeds):02}Z", exit_code=0)

    def stop(self, name: str, timeout: int) -> None:
        self._deed(f"stop {name} {timeout}")
        container = self._there(name)
        if container.running:
            self.containers[name] = replace(container, status="exited", exit_code=0)

    def set_restart_policy(self, name: str, restart_policy: str) -> None:
        self._deed(f"restart {restart_policy} {name}")
        self.containers[name] = replace(self._there(name), restart_policy=restart_policy)

    def rename(self, name: str, new_name: str) -> None:
        self._deed(f"rename {name} {new_name}")
        if self.refuse_rename:
            raise EngineError(f"Docker refused to rename {name} to {new_name}: {self.refuse_rename}")
        self._is_free(new_name)
        container = self._there(name)
        del self.containers[name]
        self.containers[new_name] = replace(container, name=new_name)

    def remove(self, name: str) -> None:
        self._deed(f"remove {name}")
        container = self.containers.get(name)
        if container is None:
            return
        if container.running:
            raise EngineError(f"Docker refused to remove {name}: You cannot remove a running container")
        del self.containers[name]

    def run(self, image_id: str, argv: Sequence[str], timeout: int) -> Ended:
        self.looks += 1
        assert argv[:2] == ["python3", "-c"]
        return Ended(0, "a warning\nLOOK " + json.dumps(self.contents[image_id]) + "\n")

    def _deed(self, deed: str) -> None:
        if self.kill_at is not None and len(self.deeds) >= self.kill_at:
            raise Killed
        self.deeds.append(deed)

    def _there(self, name: str) -> Container:
        if name not in self.containers:
            raise EngineError(f"No such container: {name}")
        return self.containers[name]

    def _is_free(self, name: str) -> None:
        if name in self.containers:
            raise EngineError(f'Conflict. The container name "/{name}" is already in use')
