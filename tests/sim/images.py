# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's images: built once per content of their inputs, and pushed to the lab's registry under their real names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

from sim.names import (
    BASE_IMAGE,
    BOX_IMAGE,
    CACHE,
    CPU_IMAGE,
    INPUTS_LABEL,
    LABEL,
    PUSH_TO,
    REGISTRY_STORAGE,
    SCRIPTED_IMAGES,
    SERVICE_IMAGE,
    SIM,
    SMOKE_IMAGE,
    TINY_GEMMA4,
)
from sim.shell import LabError, as_root, docker, run, say, stream

SUITE = "bookworm"
GIVEN_MIRROR = os.environ.get("SIM_DEBIAN_MIRROR", "")
# Where a registry is reachable this can be debian:bookworm; left out, the base comes from Debian's packages.
GIVEN_BASE = os.environ.get("SIM_BASE_IMAGE", "")
BASE_PACKAGES = "python3,ca-certificates"
STATE = CACHE / "images.json"
CPU_FOLDER = SIM / "vllm_cpu"
SCRIPTED_FOLDER = SIM / "vllm_scripted"
# Passed to builds only when this machine needs them; Docker keeps these arguments out of the image.
PROXY_ARGS = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True)
class Image:
    """One image: how its inputs hash, how it is built, and the name that the registry serves it under (or none)."""

    tag: str
    inputs: str
    build: Callable[[], None]
    served_as: str = ""


@dataclass
class State:
    """What was built and pushed from which inputs; kept between runs."""

    built: dict[str, dict[str, str]] = field(default_factory=dict)
    pushed: dict[str, str] = field(default_factory=dict)
    trained: str = ""

    @classmethod
    def load(cls) -> State:
        """The state of the last run, or an empty one."""
        try:
            known: dict[str, Any] = json.loads(STATE.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return cls()
        return cls(built=known.get("built", {}), pushed=known.get("pushed", {}), trained=known.get("trained", ""))

    def save(self) -> None:
        """Keep it, in one step."""
        STATE.parent.mkdir(parents=True, exist_ok=True)
        new = STATE.with_suffix(".new")
        new.write_text(json.dumps({"built": self.built, "pushed": self.pushed, "trained": self.trained}, indent=1))
        new.replace(STATE)


def digest(parts: Iterable[str | Path]) -> str:
    """A hash of texts and of files (their names, modes and bytes); a folder counts with all that is below it."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            hasher.update(part.encode() + b"\0")
            continue
        files = [part] if part.is_file() else sorted(p for p in part.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        for file in files:
            mode = "x" if os.access(file, os.X_OK) else "-"
            hasher.update(f"{file.relative_to(SIM)} {mode}\0".encode())
            hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


def image_ids() -> dict[str, str]:
    """Tag → id of all images of the engine."""
    lines = docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def _labels(inputs: str) -> list[str]:
    return ["--label", f"{LABEL}=image", "--label", f"{INPUTS_LABEL}={inputs}"]


def docker_build(tag: str, folder: Path, inputs: str, *, dockerfile: Path | None = None, args: dict[str, str]) -> None:
    """Build with the legacy builder: a plain engine has no other."""
    command = ["docker", "build", "-t", tag, *_labels(inputs)]
    if dockerfile:
        command += ["-f", str(dockerfile)]
    proxies = {name: os.environ[name] for name in PROXY_ARGS if os.environ.get(name)}
    for name, value in {**proxies, **args}.items():
        command += ["--build-arg", f"{name}={value}"]
    stream(f"image {tag}", [*command, str(folder)], timeout=1800, env={"DOCKER_BUILDKIT": "0"})


def mirror() -> str:
    """The URL of Debian's packages: the given one, else where this machine's apt takes them; "" where it knows none."""
    if GIVEN_MIRROR or not shutil.which("apt-get"):
        return GIVEN_MIRROR
    urls = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"], check=False).split()
    return next((url.rstrip("/") for url in urls if url.startswith(("http://", "https://"))), "")


def _build_base(inputs: str) -> None:
    if GIVEN_BASE:
        folder = SIM / "base"
        docker_build(BASE_IMAGE, folder, inputs, args={"BASE": GIVEN_BASE})
        return
    root = CACHE / "base"
    run(as_root(["rm", "-rf", str(root)]))
    root.parent.mkdir(parents=True, exist_ok=True)
    # Without a mirror debootstrap takes its own default.
    source = [url for url in [mirror()] if url]
    bootstrap = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(root), *source]
    # It leaves a sources.list with only the suite itself, whose Release file does not expire: the lab works on a machine with any clock.
    stream("base system from Debian's packages", as_root(bootstrap), timeout=1800)
    apt = 'Acquire::Languages "none";\nAcquire::GzipIndexes "true";\n'
    script = f"""set -e
rm -rf {root}/var/cache/apt/archives/*.deb {root}/var/lib/apt/lists/* {root}/var/log/*.log
printf %s '{apt}' > {root}/etc/apt/apt.conf.d/90lab
: > {root}/etc/resolv.conf
printf '' > {root}/etc/hostname
change() {{ printf -- "--change\\n%s\\n" "$1"; }}
tar --numeric-owner -C {root} -c . | docker import --change 'LABEL {LABEL}=image' --change 'LABEL {INPUTS_LABEL}={inputs}' \
  --change 'CMD ["/bin/bash"]' --change 'ENV PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - {BASE_IMAGE}
rm -rf {root}
"""
    stream("base image", as_root(["sh", "-c", script]), timeout=600)


def _cpu_tool(*args: str) -> list[str]:
    return [sys.executable, "-u", str(CPU_FOLDER / "build.py"), *args]


def base() -> Image:
    """The small base of all others."""
    # The packages are the same, whichever mirror apt takes them from.
    inputs = digest(["base 1", SUITE, BASE_PACKAGES, GIVEN_MIRROR, GIVEN_BASE])
    return Image(BASE_IMAGE, inputs, lambda: _build_base(inputs), SMOKE_IMAGE)


def _from_folder(tag: str, folder: Path, context: list[Path], args: dict[str, str], served_as: str = "") -> Image:
    inputs = digest([tag, base().inputs, json.dumps(args, sort_keys=True), folder, *context])

    def build() -> None:
        docker_build(tag, SIM if context else folder, inputs, dockerfile=folder / "Dockerfile", args={"BASE": BASE_IMAGE, **args})

    return Image(tag, inputs, build, served_as)


def box() -> Image:
    """The box."""
    return _from_folder(BOX_IMAGE, SIM / "box", [SIM / "ollama.py"], {})


def service() -> Image:
    """Registry, apt repository and Hub."""
    return _from_folder(SERVICE_IMAGE, SIM / "service", [SIM / "hub.py", SIM / "xet.py"], {})


def scripted() -> list[Image]:
    """The scripted vLLM, once per version."""
    return [_from_folder(tag, SCRIPTED_FOLDER, [], {"VLLM_VERSION": version}, tag) for tag, version in SCRIPTED_IMAGES.items()]


def cpu() -> Image:
    """The real vLLM for a CPU."""
    files = sorted(path for path in CPU_FOLDER.iterdir() if path.is_file() and not path.name.startswith("train"))
    command = _cpu_tool("build", BASE_IMAGE, CPU_IMAGE)
    return Image(
        CPU_IMAGE, digest([CPU_IMAGE, base().inputs, *files]), lambda: stream(f"image {CPU_IMAGE}", command, timeout=3600), CPU_IMAGE
    )


def build(image: Image, state: State) -> None:
    """Build the image unless the engine has it from the same inputs."""
    known = state.built.get(image.tag, {})
    if known.get("inputs") == image.inputs and image_ids().get(image.tag) == known.get("id"):
        return
    image.build()
    state.built[image.tag] = {"inputs": image.inputs, "id": image_ids()[image.tag]}
    state.save()
    if known and known["id"] != state.built[image.tag]["id"]:
        # The one before; a container that still runs from it keeps it.
        docker("rmi", known["id"], check=False)


def current(image: Image, state: State, ids: dict[str, str]) -> bool:
    """Is the image built (and pushed) from its present inputs?"""
    known = state.built.get(image.tag, {})
    is_built = known.get("inputs") == image.inputs and ids.get(image.tag) == known.get("id")
    return is_built and (not image.served_as or _is_pushed(image, state))


def _is_pushed(image: Image, state: State) -> bool:
    name, tag = image.served_as.rsplit(":", 1)
    link = REGISTRY_STORAGE / "docker/registry/v2/repositories" / name / "_manifests/tags" / tag / "current/link"
    return link.exists() and state.pushed.get(image.served_as) == state.built.get(image.tag, {}).get("id")


def push(image: Image, state: State) -> None:
    """Give the image to the lab's registry unless it has it. Raises LabError when the registry does not answer."""
    if not image.served_as or _is_pushed(image, state):
        return
    try:
        urllib.request.urlopen(f"http://{PUSH_TO}/v2/", timeout=10).close()
    except (URLError, OSError) as error:
        raise LabError(f"the lab's registry does not answer at {PUSH_TO} ({error}): see `docker logs spark-sim-registry`") from error
    name = f"{PUSH_TO}/{image.served_as}"
    docker("tag", image.tag, name)
    stream(f"push {image.served_as}", ["docker", "push", name], timeout=1200)
    docker("rmi", name)
    state.pushed[image.served_as] = state.built[image.tag]["id"]
    state.save()


def train(state: State) -> None:
    """Train the tiny model into the cache, unless it is there from the same recipe."""
    inputs = digest(sorted(p for p in CPU_FOLDER.glob("train*") if p.is_file()))
    if (TINY_GEMMA4 / "model.safetensors").exists() and state.trained == inputs:
        return
    stream("training the tiny Gemma 4", _cpu_tool("train", CPU_IMAGE, str(TINY_GEMMA4)), timeout=3600)
    state.trained = inputs
    state.save()


def remove_all() -> None:
    """Remove the lab's images from the engine, stages of builds included."""
    # What failed builds have left.
    leftovers = docker("ps", "-aq", "--filter", f"label={LABEL}=image", "--filter", "status=exited").split()
    if leftovers:
        docker("rm", "-v", *leftovers)
    tags = [BASE_IMAGE, BOX_IMAGE, SERVICE_IMAGE, CPU_IMAGE, *SCRIPTED_IMAGES]
    present = [tag for tag in tags if tag in image_ids()]
    if present:
        say(f"removing {len(present)} images")
        docker("rmi", "-f", *present, timeout=300)
    docker("image", "prune", "-f", "--filter", f"label={LABEL}=image", timeout=300)


def every() -> list[Image]:
    """All images."""
    return [base(), service(), box(), *scripted(), cpu()]
