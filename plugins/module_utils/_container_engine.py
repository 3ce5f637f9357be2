# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What the container modules need from Docker, and Docker itself through Debian's python3-docker (5.0.3).

The rest of the collection sees the protocol C(Engine) only, so that plans and swaps are tested without Docker.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

try:
    import docker
    import docker.auth
    import docker.errors
    import docker.types
    import docker.utils
    import requests.exceptions
except ImportError as exc:
    IMPORT_ERROR: ImportError | None = exc
else:
    IMPORT_ERROR = None

# Seconds that Docker may take to answer; a stop gets its own time on top. Creating from a large image takes its time.
_ANSWER = 120
# An archive of 20 GB is written to the engine's own disk before the first byte of it comes, and read to the last before it says a word.
_ARCHIVE = 3600
# What was killed may take so long to be gone, and is looked at in between.
_DYING, _LOOK = 60.0, 1.0
# On throw-away containers, so that a later run finds those that an interrupted one left.
RUN_LABEL = "dgx.spark.run"


class EngineError(Exception):
    """Docker refused or failed; the message says at what."""


class EngineUnavailable(EngineError):
    """Docker, or what talks to it, is not there; the message names the remedy."""


class EngineTimeout(EngineError):
    """A container did not end in time."""


@dataclass(frozen=True)
class LocalImage:
    """An image that the engine has. C(digests) are those of the repositories it came from (C(sha256:…))."""

    id: str
    digests: tuple[str, ...]
    architecture: str
    entrypoint: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegistryImage:
    """What a registry has under a name. C(digest) is that of the whole image (for all C(architectures), by Docker's names)."""

    digest: str
    architectures: tuple[str, ...]


@dataclass(frozen=True)
class RegistryAccess:
    """How the engine reaches the registry of an image: what it asks in which order, through which proxies, with which login."""

    repository: str  # by the registry's name of it
    endpoints: tuple[str, ...]  # http addresses, mirrors first
    proxies: Mapping[str, str] = field(default_factory=dict)
    login: tuple[str, str] | None = field(default=None, repr=False)  # user and password


@dataclass(frozen=True)
class Container:
    """A container as the engine sees it. C(status) is Docker's (created, running, restarting, exited, …)."""

    name: str
    id: str
    image_id: str
    status: str
    exit_code: int = 0
    error: str = ""
    started_at: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    restart_policy: str = "no"
    stop_timeout: int = 10

    @property
    def running(self) -> bool:
        """Does it hold the port and the memory? One that crashes again and again does."""
        return self.status in ("running", "restarting", "paused")

    @property
    def was_started(self) -> bool:
        return self.started_at is not None


@dataclass(frozen=True)
class Published:
    """A port of the host that a running container holds. C(address) is empty or 0.0.0.0 for all of them."""

    container: str
    address: str
    port: int


@dataclass(frozen=True)
class StoredImage:
    """An image in the engine's store. C(names) are its tags, then its C(REPOSITORY@DIGEST); C(size) is in bytes, shared layers included."""

    id: str
    names: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Use:
    """What a container, running or not, is made of. C(mounts) are paths of the host."""

    container: str
    image_id: str
    mounts: tuple[str, ...]


@dataclass(frozen=True)
class Creation:
    """What to create. C(mounts) are (file or directory of the host, path in the container), all read-only; C(shm_size) is in bytes.

    An empty C(entrypoint) is the image's own.
    """

    image: str
    entrypoint: Sequence[str]
    command: Sequence[str]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    mounts: Sequence[tuple[str, str]]
    bind: str
    port: int
    container_port: int
    gpus: str
    ipc: str
    shm_size: int
    stop_timeout: int
    log_max_size: str
    log_max_files: int


@dataclass(frozen=True)
class Ended:
    """How a throw-away container ended, and what it said."""

    exit_code: int
    output: str


class Engine(Protocol):
    """What is asked of Docker. Every method may raise EngineError."""

    def image(self, reference: str) -> LocalImage | None:
        """The local image of a name, a name@digest or an id."""

    def stored_images(self) -> list[StoredImage]:
        """All images."""

    def remove_image(self, image: StoredImage) -> None:
        """Remove an image with all its names; Docker refuses when a container uses it."""

    def pull(self, reference: str) -> Iterator[Mapping[str, Any]]:
        """Pull an image: Docker's events while it comes. A layer that is there already is not fetched."""

    def registry_image(self, reference: str) -> RegistryImage:
        """What the registry has under a name now; nothing is pulled. The engine asks as it would for a pull: its mirrors, its login."""

    def registry_access(self, repository: str) -> RegistryAccess:
        """How the registry of a repository (a name without tag and digest) is asked for what the engine's API does not give."""

    def size(self, reference: str) -> int:
        """Bytes of a local image's layers, unpacked; an archive of it has about as many."""

    def layers(self) -> list[Sequence[str]]:
        """The layers of every local image, plain and from the lowest on: those an archive that is loaded may lack."""

    def root(self) -> str:
        """The directory of the engine's data."""

    def tag(self, image_id: str, name: str) -> None:
        """Give a local image one more name."""

    def save(self, name: str) -> Iterator[bytes]:
        """The archive of a local image, which has it under this name."""

    def load(self, archive: BinaryIO) -> Iterator[Mapping[str, Any]]:
        """Load an archive: Docker's events while it does."""

    def container(self, name: str) -> Container | None: ...

    def uses(self) -> list[Use]:
        """What all containers are made of."""

    def published(self) -> list[Published]:
        """The host's TCP ports that running containers hold."""

    def create(self, name: str, creation: Creation) -> None:
        """Create without starting. Its restart policy is no: some engines start created containers when the box boots."""

    def start(self, name: str, restart_policy: str) -> None:
        """Set the restart policy, then start; a running container only gets the policy."""

    def stop(self, name: str, timeout: int) -> None:
        """Ask it to end, wait at most C(timeout) seconds, then kill. A container that does not run is left alone."""

    def set_restart_policy(self, name: str, restart_policy: str) -> None: ...

    def rename(self, name: str, new_name: str) -> None: ...

    def remove(self, name: str) -> None:
        """Remove a container that does not run, and its anonymous volumes. None of that name is fine."""

    def run(self, image_id: str, argv: Sequence[str], timeout: int) -> Ended:
        """Run a program in a throw-away container without network and GPU, for at most C(timeout) seconds."""


class DockerEngine:
    """The Docker engine that the environment names (usually the socket), any from 20.10 on."""

    def __init__(self) -> None:
        if IMPORT_ERROR is not None:
            raise EngineUnavailable(
                f"Python cannot talk to Docker ({IMPORT_ERROR}): install the distribution's package with 'apt install python3-docker'"
            ) from IMPORT_ERROR
        try:
            # auto: new engines refuse the old API version that the library would ask for.
            self._api = docker.from_env(version="auto", timeout=_ANSWER).api
        except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
            raise EngineUnavailable(
                f"Docker does not answer ({exc}): see 'systemctl status docker' and 'journalctl -u docker', start it with"
                " 'systemctl start docker'"
            ) from exc

    def image(self, reference: str) -> LocalImage | None:
        with _refused(f"look at image {reference}"):
            try:
                found = self._api.inspect_image(reference)
            except docker.errors.NotFound:
                return None
        digests = tuple(entry.partition("@")[2] for entry in found.get("RepoDigests") or [])
        entrypoint = tuple((found.get("Config") or {}).get("Entrypoint") or ())
        return LocalImage(id=found["Id"], digests=digests, architecture=found.get("Architecture") or "", entrypoint=entrypoint)

    def stored_images(self) -> list[StoredImage]:
        with _refused("list the images"):
            found = self._api.images()
        return [
            StoredImage(entry["Id"], tuple(_named([*(entry.get("RepoTags") or []), *(entry.get("RepoDigests") or [])])), entry["Size"])
            for entry in found
        ]

    def remove_image(self, image: StoredImage) -> None:
        tags = [name for name in image.names if "@" not in name]
        with _refused(f"remove image {image.id}"):
            # By its id Docker would want force for an image with several names, and with force it looks less closely.
            for name in tags or [image.id]:
                with contextlib.suppress(docker.errors.NotFound):
                    self._api.remove_image(name)
            if tags and self.image(image.id) is not None:
                with contextlib.suppress(docker.errors.NotFound):
                    self._api.remove_image(image.id)

    def pull(self, reference: str) -> Iterator[Mapping[str, Any]]:
        repository, tag = docker.utils.parse_repository_tag(reference)
        with _refused(f"pull {reference}"):
            yield from self._api.pull(repository, tag=tag or "latest", stream=True, decode=True)

    def registry_image(self, reference: str) -> RegistryImage:
        with _refused(f"ask the registry for {reference}"):
            found = self._api.inspect_distribution(reference)
        # What accompanies an image, such as its provenance, is listed as one for an unknown machine.
        architectures = {entry.get("architecture") or "unknown" for entry in found.get("Platforms") or []} - {"unknown"}
        return RegistryImage(found["Descriptor"]["digest"], tuple(sorted(architectures)))

    def registry_access(self, repository: str) -> RegistryAccess:
        with _refused(f"say how it reaches the registry of {repository}"):
            info = self._api.info()
            host, path = docker.auth.resolve_repository_name(repository)
            login = docker.auth.load_config().resolve_authconfig(host) or {}
        known = ((info.get("RegistryConfig") or {}).get("IndexConfigs") or {}).get(host) or {}
        plain = known.get("Secure") is False or host.partition(":")[0] in ("localhost", "127.0.0.1")
        official = host == docker.auth.INDEX_NAME
        own = "https://registry-1.docker.io" if official else f"{'http' if plain else 'https'}://{host}"
        mirrors = tuple(str(mirror).rstrip("/") for mirror in known.get("Mirrors") or [])
        proxies = {kind: info[key] for kind, key in (("http", "HttpProxy"), ("https", "HttpsProxy")) if info.get(key)}
        name, password = login.get("Username") or login.get("username"), login.get("Password") or login.get("password")
        return RegistryAccess(
            repository=f"library/{path}" if official and "/" not in path else path,
            endpoints=(*mirrors, own),
            proxies=proxies,
            login=(name, password) if name and password else None,
        )

    def size(self, reference: str) -> int:
        with _refused(f"look at image {reference}"):
            return int(self._api.inspect_image(reference)["Size"])

    def layers(self) -> list[Sequence[str]]:
        with _refused("say of which layers its images are"):
            # containerd's store wants every layer of an archive, and keeps them as they came.
            if any(name == "driver-type" for name, _value in self._api.info().get("DriverStatus") or []):
                return []
            found: list[Sequence[str]] = []
            for entry in self._api.images():
                with contextlib.suppress(docker.errors.NotFound):
                    found.append(self._api.inspect_image(entry["Id"]).get("RootFS", {}).get("Layers") or [])
            return found

    def root(self) -> str:
        with _refused("say where its data lie"):
            return str(self._api.info()["DockerRootDir"])

    def tag(self, image_id: str, name: str) -> None:
        repository, tag = docker.utils.parse_repository_tag(name)
        with _refused(f"give image {image_id} the name {name}"):
            self._api.tag(image_id, repository, tag)

    def save(self, name: str) -> Iterator[bytes]:
        with _refused(f"save image {name}"), self._patient():
            yield from self._api.get_image(name, chunk_size=1024 * 1024)

    def load(self, archive: BinaryIO) -> Iterator[Mapping[str, Any]]:
        with _refused("load an archive"), self._patient():
            yield from self._api.load_image(archive, quiet=False)

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        """Wait longer for an answer."""
        self._api.timeout = _ARCHIVE
        try:
            yield
        finally:
            self._api.timeout = _ANSWER

    def container(self, name: str) -> Container | None:
        with _refused(f"look at {name}"):
            try:
                found = self._api.inspect_container(name)
            except docker.errors.NotFound:
                return None
        if found["Name"] != f"/{name}":
            return None  # the name is the beginning of another one's id
        state, config = found["State"], found["Config"]
        started = state.get("StartedAt") or ""
        return Container(
            name=name,
            id=found["Id"],
            image_id=found["Image"],
            status=state["Status"],
            exit_code=state.get("ExitCode") or 0,
            error=state.get("Error") or "",
            started_at=None if started.startswith("0001-") or not started else started,
            labels=config.get("Labels") or {},
            restart_policy=(found["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no",
            stop_timeout=config.get("StopTimeout") or 10,
        )

    def uses(self) -> list[Use]:
        with _refused("list the containers"):
            containers = self._api.containers(all=True)
        return [
            Use(
                container=entry["Names"][0].lstrip("/") if entry.get("Names") else entry["Id"][:12],
                image_id=entry["ImageID"],
                mounts=tuple(mount["Source"] for mount in entry.get("Mounts") or [] if mount.get("Source")),
            )
            for entry in containers
        ]

    def published(self) -> list[Published]:
        with _refused("list the containers"):
            containers = self._api.containers()
        return [
            Published(container=entry["Names"][0].lstrip("/"), address=port.get("IP") or "", port=port["PublicPort"])
            for entry in containers
            for port in entry.get("Ports") or []
            if port.get("PublicPort") and port.get("Type") == "tcp"
        ]

    def create(self, name: str, creation: Creation) -> None:
        gpu = docker.types.DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])
        with _refused(f"create {name}"):
            self._api.create_container(
                image=creation.image,
                name=name,
                entrypoint=list(creation.entrypoint) or None,
                command=list(creation.command),
                environment=dict(creation.environment),
                labels=dict(creation.labels),
                ports=[creation.container_port],
                stop_timeout=creation.stop_timeout,
                host_config=self._api.create_host_config(
                    device_requests=[gpu] if creation.gpus == "all" else None,
                    ipc_mode=creation.ipc,
                    shm_size=creation.shm_size,
                    port_bindings={creation.container_port: (creation.bind, creation.port)},
                    # Mounts and not binds: a missing file is refused instead of made as a directory.
                    mounts=[
                        docker.types.Mount(target=target, source=source, type="bind", read_only=True) for source, target in creation.mounts
                    ],
                    restart_policy={"Name": "no"},
                    log_config=docker.types.LogConfig(
                        type="json-file", config={"max-size": creation.log_max_size, "max-file": str(creation.log_max_files)}
                    ),
                ),
            )

    def start(self, name: str, restart_policy: str) -> None:
        self.set_restart_policy(name, restart_policy)
        with _refused(f"start {name}"):
            found = self.container(name)
            if found is not None and found.status == "paused":
                self._api.unpause(name)
            else:
                self._api.start(name)

    def stop(self, name: str, timeout: int) -> None:
        with _refused(f"stop {name}"):
            try:
                self._api.stop(name, timeout=timeout)
            except docker.errors.APIError:
                # Docker gives up on what does not end at once when it is killed: its driver may hold it for a while.
                if not self._ends_within(name, _DYING):
                    raise

    def _ends_within(self, name: str, seconds: float) -> bool:
        """Does a container end by itself in that time?"""
        end = time.monotonic() + seconds
        while self._api.inspect_container(name)["State"]["Running"]:
            if time.monotonic() >= end:
                return False
            time.sleep(_LOOK)
        return True

    def set_restart_policy(self, name: str, restart_policy: str) -> None:
        with _refused(f"set the restart policy of {name}"):
            policy: Any = {"Name": restart_policy}
            self._api.update_container(name, restart_policy=policy)

    def rename(self, name: str, new_name: str) -> None:
        with _refused(f"rename {name} to {new_name}"):
            self._api.rename(name, new_name)

    def remove(self, name: str) -> None:
        with _refused(f"remove {name}"), contextlib.suppress(docker.errors.NotFound):
            self._api.remove_container(name, v=True)

    def run(self, image_id: str, argv: Sequence[str], timeout: int) -> Ended:
        self._sweep()
        with _refused(f"run {argv[0]} in image {image_id}"):
            made = self._api.create_container(
                image=image_id,
                entrypoint=argv[0],
                command=list(argv[1:]),
                # Where the nvidia runtime is the default one, it would want a working GPU for this too.
                environment={"NVIDIA_VISIBLE_DEVICES": "void"},
                labels={RUN_LABEL: "1"},
                host_config=self._api.create_host_config(
                    network_mode="none", cap_drop=["ALL"], log_config=docker.types.LogConfig(type="json-file")
                ),
            )["Id"]
            try:
                self._api.start(made)
                code = self._api.wait(made, timeout=timeout)["StatusCode"]
                output = self._api.logs(made).decode("utf-8", "replace")
            except docker.errors.APIError as exc:
                if "executable file not found" not in str(exc):
                    raise
                return Ended(exit_code=127, output=_because(exc))  # as a shell says it
            except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectionError) as exc:
                raise EngineTimeout(f"{argv[0]} in image {image_id} did not end within {timeout} s") from exc
            finally:
                self._api.remove_container(made, force=True, v=True)
        return Ended(exit_code=code, output=output)

    def _sweep(self) -> None:
        """Remove what interrupted runs left behind; a young one may belong to somebody who is at it."""
        with _refused("list the containers"):
            for left in self._api.containers(all=True, filters={"label": RUN_LABEL, "status": ["created", "exited"]}):
                if left["Created"] < time.time() - 600:
                    with contextlib.suppress(docker.errors.NotFound):
                        self._api.remove_container(left["Id"], v=True)


def _named(names: Sequence[str]) -> Iterator[str]:
    """Names without those that say that there is none."""
    return (name for name in names if not name.startswith("<none>"))


@contextlib.contextmanager
def _refused(deed: str) -> Iterator[None]:
    """Turn the library's errors into ours, with what was to be done."""
    try:
        yield
    except docker.errors.APIError as exc:
        raise EngineError(f"Docker refused to {deed}: {_because(exc)}") from exc
    except (docker.errors.DockerException, requests.exceptions.RequestException) as exc:
        raise EngineError(f"Docker failed to {deed}: {exc}; see 'systemctl status docker'") from exc


def _because(exc: Any) -> str:
    """Docker's own words, and what to do where they are known."""
    words = str(exc.explanation or exc).strip().rstrip(".")
    if "could not select device driver" in words:
        return f"{words}. Install the NVIDIA container toolkit and restart Docker: role container_toolkit does both"
    return words
