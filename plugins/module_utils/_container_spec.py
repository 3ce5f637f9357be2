# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a vLLM container is: the spec that a user writes, the resolved spec that its label keeps, and what is created from it.

The resolved spec names bytes: the image's id, the commit of the model and of its draft model, and each patch's sha256. Two containers are
the same when their resolved specs are. It holds no secret: environment values and the API key are in it as salted hashes only.

The key itself goes from a file of the box (_key_files.py) to vLLM's environment inside the container, past everything that Docker shows.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _vllm_guard
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Creation
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageInfo
from ansible_collections.dgx.spark.plugins.module_utils._key_files import guard_id
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import problem, read_marker
from ansible_collections.dgx.spark.plugins.module_utils._versions import VersionError, satisfies

SCHEMA = 1
CONTAINER_PORT = 8000
SPEC_LABEL = "dgx.spark.spec"
DIGEST_LABEL = "dgx.spark.spec_digest"
VERSION_LABEL = "dgx.spark.vllm_version"
RECIPE_LABEL = "dgx.spark.recipe"
# What the module passes itself; a second one among the args would contradict it.
RESERVED_ARGS = ("model", "served-model-name", "host", "port", "api-key")
SPECULATION = "speculative-config"
TO_BE_STAGED = "(to be staged)"

# vLLM has the flag since then, and without it cuts off who is being answered when it is told to stop.
SHUTDOWN_FLAG, SHUTDOWN_VERSIONS = "shutdown-timeout", ">=0.19.1"
# What it needs to end after the last answer. Docker kills it when its own time is over.
TEARDOWN_S = 15

_HASH_ROUNDS = 20_000
_SIZE = re.compile(r"(\d+)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MODULE = re.compile(r"vllm(\.[A-Za-z_]\w*)+", re.ASCII)


class SpecError(ValueError):
    """The spec cannot be carried out; the message names cause and remedy."""


class NotStaged(SpecError):
    """Something that the spec names is not on the box yet, or is there in other bytes."""


@dataclass(frozen=True)
class Patch:
    """A file of the model's directory that replaces a Python module of vLLM, for the vLLM versions it was written for."""

    file: str
    module: str
    vllm_versions: str
    sha256: str | None


@dataclass(frozen=True)
class ContainerSpec:
    """The spec as a user writes it."""

    image: str
    digest: str | None
    vllm_versions: str
    model_path: str
    model_mount: str
    draft_path: str | None  # null without a draft model
    draft_mount: str
    served_model_name: str
    args: Mapping[str, Any]
    env: Mapping[str, str]
    bind: str
    port: int
    gpus: str
    ipc: str
    shm_size: str
    restart_policy: str
    stop_timeout: int
    log_max_size: str
    log_max_files: int
    patches: tuple[Patch, ...]

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> ContainerSpec:
        """From the module's C(spec) option. Raises SpecError for what the option's types cannot express."""
        values = dict(params)
        values["patches"] = tuple(Patch(**patch) for patch in params["patches"] or [])
        values["args"] = _clean_args(params["args"] or {})
        values["env"] = {str(key): _env_text(value) for key, value in (params["env"] or {}).items() if value is not None}
        spec = cls(**values)
        size_bytes(spec.shm_size)
        _check_speculation(spec.args.get(SPECULATION))
        if _vllm_guard.VARIABLE in spec.env:
            raise SpecError(f"env.{_vllm_guard.VARIABLE} would show the key to 'docker inspect': use the option api_key")
        if not (os.path.isabs(spec.model_path) and os.path.isabs(spec.model_mount)):
            raise SpecError(f"model_path ({spec.model_path}) and model_mount ({spec.model_mount}) must be absolute paths")
        if spec.draft_path and not (os.path.isabs(spec.draft_path) and os.path.isabs(spec.draft_mount)):
            raise SpecError(f"draft_path ({spec.draft_path}) and draft_mount ({spec.draft_mount}) must be absolute paths")
        for patch in spec.patches:
            _check_patch(patch)
        modules = [patch.module for patch in spec.patches]
        if twice := {module for module in modules if modules.count(module) > 1}:
            raise SpecError(f"two patches replace the module {', '.join(sorted(twice))}: keep one")
        return spec


@dataclass(frozen=True)
class Snapshot:
    """The model on the box: repository and commit, as the marker of a complete download says."""

    repo: str
    commit: str


def _clean_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """The args that say something: null, false and empty lists are left out."""
    for name in args:
        if name in RESERVED_ARGS:
            raise SpecError(f"args.{name} is set by the module itself: use the spec's own key for it (the API key is the option api_key)")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
            raise SpecError(f"args.{name} is not the name of a flag: write it as vLLM does, without the leading dashes")
    share = args.get("gpu-memory-utilization")
    if share is not None and not re.fullmatch(r"0?\.\d+|1(\.0*)?", str(share)):
        raise SpecError(f"args.gpu-memory-utilization is {share!r}: it is a share of the memory such as 0.85")
    return {name: value for name, value in args.items() if value is not None and value is not False and value != []}


def _check_speculation(speculation: Any) -> None:
    if speculation is not None and not isinstance(speculation, Mapping):
        raise SpecError(f"args.{SPECULATION} must be a mapping, it is {speculation!r}")
    if speculation and speculation.get("model") is not None:
        raise SpecError(f"args.{SPECULATION}.model is set by the module itself: use the spec's own keys draft_path and draft_mount")


def _env_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_patch(patch: Patch) -> None:
    if os.path.isabs(patch.file) or ".." in patch.file.split("/"):
        raise SpecError(f"the patch {patch.file} must be a file in the model's directory, named relative to it")
    if not _MODULE.fullmatch(patch.module):
        raise SpecError(f"the patch {patch.file} replaces {patch.module!r}, no module of vLLM such as vllm.model_executor.models.gemma4")


def size_bytes(text: str) -> int:
    """C(64gb), C(64g) or C(64GiB) in bytes, as Docker counts (1024). Raises SpecError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise SpecError(f"{text!r} is not a size like 64gb")
    return int(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " ")


def render_args(args: Mapping[str, Any]) -> list[str]:
    """vLLM's flags as an argv, sorted by name so that equal args are equal commands.

    true is the bare flag, null and false leave it out, a list repeats values behind one flag, a mapping is JSON.
    """
    argv: list[str] = []
    for name, value in sorted(_clean_args(args).items()):
        values = [_text(item) for item in (value if isinstance(value, list) else [value])]
        if value is True:
            argv.append(f"--{name}")
        elif len(values) == 1 and values[0].startswith("-"):
            argv.append(f"--{name}={values[0]}")  # alone it would read as the next flag
        else:
            argv += [f"--{name}", *values]
    return argv


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def read_snapshot(model_path: str) -> Snapshot:
    """What the model's directory contains, when every file that its marker lists is there as it was verified.

    Raises NotStaged when it is missing or incomplete.
    """
    marker = read_marker(model_path)
    wrong = problem(model_path, marker)
    if marker is None or wrong is not None:
        raise NotStaged(
            f"the model in {model_path} is missing or incomplete ({wrong}): bring it first (role model, or the module hf_snapshot)"
        )
    return Snapshot(marker.repo, marker.commit)


def patch_sha256(patch: Patch, model_path: str) -> str:
    """The sha256 of a patch's file. Raises NotStaged when it is missing or not the one that is asked."""
    path = os.path.join(model_path, patch.file)
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise NotStaged(
            f"the patch {path} cannot be read ({exc.strerror}): it comes with the model's repository; bring the model again, or take the"
            " patch out of the recipe"
        ) from exc
    if patch.sha256 and patch.sha256.lower() != found:
        raise NotStaged(
            f"the patch {path} has sha256 {found}, the recipe or its lock pins {patch.sha256}: see what changed, then pin the new one"
            " or bring the old"
        )
    return found


def check_patch_version(patch: Patch, image: ImageInfo) -> None:
    """Is the patch written for the vLLM in the image? A patch for another one breaks its start. Raises SpecError."""
    if image.vllm_version is None:
        return
    try:
        fits = satisfies(image.vllm_version, patch.vllm_versions)
    except VersionError as exc:
        raise SpecError(f"the patch {patch.file} with image {image.name}: {exc}") from exc
    if not fits:
        raise SpecError(
            f"the patch {patch.file} is for vLLM {patch.vllm_versions}, image {image.name} contains {image.vllm_version}: take"
            " the patch out of the recipe (patches: []) or choose an image that it is for"
        )


def patch_target(patch: Patch, image: ImageInfo) -> str | None:
    """Where the patched module lies in the image; None when the image contains no vLLM."""
    if image.vllm_path is None:
        return None
    return f"{image.vllm_path}/{'/'.join(patch.module.split('.')[1:])}.py"


def resolve(
    spec: ContainerSpec,
    image: ImageInfo | None,
    snapshot: Snapshot | None,
    patches: Sequence[str | None],
    api_key: str,
    salt: str | None,
    draft: Snapshot | None = None,
) -> dict[str, Any]:
    """The resolved spec. C(patches) are the sha256 of C(spec.patches); what is None is not on the box yet. A spec without a draft model
    has no key C(draft).

    C(salt) is that of the container it will be compared with: a new one would make equal secrets look different.
    """
    if not spec.env and not api_key:
        salt = None
    elif salt is None:
        salt = secrets.token_hex(8)
    return {
        "schema": SCHEMA,
        "image": {"id": image.id if image else TO_BE_STAGED, "vllm_version": image.vllm_version if image else TO_BE_STAGED},
        "model": _origin(spec.model_path, spec.model_mount, snapshot),
        **({"draft": _origin(spec.draft_path, spec.draft_mount, draft)} if spec.draft_path else {}),
        "served_model_name": spec.served_model_name,
        "args": dict(spec.args),
        "env": {name: _hashed(value, salt) for name, value in spec.env.items() if salt},
        # Left out without one: what was made before there were keys is what it was.
        **({"api_key": {"hash": _hashed(api_key, salt), "guard": guard_id()}} if api_key and salt else {}),
        "salt": salt,
        "bind": spec.bind,
        "port": spec.port,
        "gpus": spec.gpus,
        "ipc": spec.ipc,
        "shm_size": size_bytes(spec.shm_size),
        "restart_policy": spec.restart_policy,
        "stop_timeout": spec.stop_timeout,
        "log": {"max_size": spec.log_max_size, "max_files": spec.log_max_files},
        "patches": {
            patch.module: {
                "file": patch.file,
                "sha256": sha256 or TO_BE_STAGED,
                "target": patch_target(patch, image) if image else TO_BE_STAGED,
            }
            for patch, sha256 in zip(spec.patches, patches, strict=True)
        },
    }


def _origin(path: str, mount: str, snapshot: Snapshot | None) -> dict[str, str]:
    """Where a checkpoint lies, where the container sees it, and what it is."""
    return {
        "path": path,
        "mount": mount,
        "repo": snapshot.repo if snapshot else TO_BE_STAGED,
        "commit": snapshot.commit if snapshot else TO_BE_STAGED,
    }


def _hashed(value: str, salt: str) -> str:
    return hashlib.pbkdf2_hmac("sha256", value.encode(), salt.encode(), _HASH_ROUNDS).hex()[:32]


def canonical(resolved: Mapping[str, Any]) -> str:
    return json.dumps(resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(resolved: Mapping[str, Any]) -> str:
    """The sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical(resolved).encode()).hexdigest()


def stored(labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The resolved spec that a container was made from; None for a container that is not ours."""
    try:
        resolved = json.loads(labels[SPEC_LABEL])
    except (KeyError, ValueError):
        return None
    return resolved if isinstance(resolved, dict) and resolved.get("schema") == SCHEMA else None


def _shutdown(resolved: Mapping[str, Any]) -> dict[str, int]:
    """The flag by which vLLM lets running requests end within the time that Docker gives it; empty where there is no such time or flag.

    It follows from the resolved spec, so it is no part of it.
    """
    seconds, version = resolved["stop_timeout"] - TEARDOWN_S, resolved["image"]["vllm_version"]
    try:
        knows_it = version is not None and satisfies(version, SHUTDOWN_VERSIONS)
    except VersionError:
        knows_it = False
    return {SHUTDOWN_FLAG: seconds} if knows_it and seconds > 0 else {}


def creation(spec: ContainerSpec, resolved: Mapping[str, Any], image: ImageInfo, recipe: str, key_directory: str | None) -> Creation:
    """What to create for a spec that is resolved completely. The argv starts as in vLLM's own examples, then its flags by name.

    C(key_directory) is where the box keeps its key; None is a server that wants none.
    """
    mounts = [(spec.model_path, spec.model_mount)]
    args = dict(spec.args)
    if spec.draft_path:
        mounts.append((spec.draft_path, spec.draft_mount))
        if SPECULATION in args:
            args[SPECULATION] = {**args[SPECULATION], "model": spec.draft_mount}
    entrypoint: list[str] = []
    guard: list[str] = []
    if key_directory:
        mounts.append((key_directory, _vllm_guard.MOUNT))
        # An image of vLLM has python3, but perhaps no shell.
        entrypoint = ["python3", f"{_vllm_guard.MOUNT}/{_vllm_guard.GUARD_NAME}", *image.entrypoint]
        guard = ["--middleware", _vllm_guard.MIDDLEWARE]
    for patch in spec.patches:
        mounts.append((os.path.join(spec.model_path, patch.file), resolved["patches"][patch.module]["target"]))
    return Creation(
        image=image.reference,
        entrypoint=entrypoint,
        command=[
            "--model",
            spec.model_mount,
            "--served-model-name",
            spec.served_model_name,
            "--host",
            "0.0.0.0",
            "--port",
            str(CONTAINER_PORT),
            *guard,
            *render_args({**_shutdown(resolved), **args}),
        ],
        environment=dict(spec.env),
        labels={
            SPEC_LABEL: canonical(resolved),
            DIGEST_LABEL: digest(resolved),
            VERSION_LABEL: resolved["image"]["vllm_version"] or "",
            RECIPE_LABEL: recipe,
        },
        mounts=mounts,
        bind=spec.bind,
        port=spec.port,
        container_port=CONTAINER_PORT,
        gpus=spec.gpus,
        ipc=spec.ipc,
        shm_size=resolved["shm_size"],
        stop_timeout=spec.stop_timeout,
        log_max_size=spec.log_max_size,
        log_max_files=spec.log_max_files,
    )
