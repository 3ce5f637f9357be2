# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What an image contains: vLLM's version and where it is installed, read from the image itself, because a tag does not tell.

One throw-away container per image id; the answer is kept on the box, as the bytes of an image id never change.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Engine, LocalImage
from ansible_collections.dgx.spark.plugins.module_utils._loaded import is_proven, proven_digest
from ansible_collections.dgx.spark.plugins.module_utils._versions import VersionError, satisfies

CACHE_DIR = "/var/lib/dgx-spark/images"
_SCHEMA = 1
_LOOK_TIMEOUT = 90

# Importing vllm takes long and needs a GPU in some builds: ask the package's metadata, or read its _version.py.
_LOOK = r"""
import importlib.metadata as metadata, importlib.util, json, os, platform, re, sys
sys.path = [entry for entry in sys.path if entry]  # not the working directory: the vllm command does not see it either
spec = importlib.util.find_spec("vllm")
path = os.path.dirname(spec.origin) if spec and spec.origin else None
version = None
if path:
    try:
        version = metadata.version("vllm")
    except metadata.PackageNotFoundError:
        try:
            with open(os.path.join(path, "_version.py")) as file:
                found = re.search(r"^(?:__version__|version)\b.*?['\"]([^'\"]+)['\"]", file.read(), re.M)
            version = found and found.group(1)
        except OSError:
            pass
print("LOOK " + json.dumps({"vllm_version": version, "vllm_path": path, "python": platform.python_version()}))
"""


class ImageError(Exception):
    """The image is not usable for what is asked; the message names cause and remedy."""


class ImageMissing(ImageError):
    """The image is not on the box (or not in the bytes that are asked)."""


@dataclass(frozen=True)
class Contents:
    """What lies in an image. Without vLLM, C(vllm_version) and C(vllm_path) are None; without Python, C(python) is."""

    vllm_version: str | None
    vllm_path: str | None
    python: str | None


@dataclass(frozen=True)
class ImageInfo:
    """A local image and its contents. C(reference) is a name by which the engine finds these very bytes.

    C(digest) is None for an image that came neither from a registry nor in an archive that was proven to have it.
    """

    name: str
    reference: str
    id: str
    digest: str | None
    architecture: str
    vllm_version: str | None
    vllm_path: str | None
    python: str | None
    entrypoint: tuple[str, ...] = ()


def split_digest(reference: str) -> tuple[str, str | None]:
    """C(name:tag@sha256:…) as (C(name:tag), C(sha256:…)); without a digest the second is None."""
    name, at, digest = reference.partition("@")
    return name, digest if at else None


def pinned(reference: str) -> str:
    """The reference by which a registry is asked: by its digest where it has one, for a tag beside it may mean something else by now."""
    name, digest = split_digest(reference)
    return f"{repository(name)}@{digest}" if digest else name


def loaded_name(name: str, digest: str) -> str:
    """The tag under which an image comes in an archive: Docker keeps no digest of it, and the recipe's tag may be another one's here."""
    return f"{repository(name)}:{digest.replace(':', '-', 1)}"


def find(engine: Engine, reference: str, digest: str | None = None) -> tuple[LocalImage, str]:
    """The local image of a reference, checked against its digest when it has one or C(digest) is given; and a name that leads to it.

    Raises ImageMissing when the box does not have it or has other bytes under that name.
    """
    name, own = split_digest(reference)
    if own and digest and own != digest:
        raise ImageError(f"image {name} is asked with two digests, {own} and {digest}: give one")
    wanted = own or digest
    if wanted is None:
        local = engine.image(name)
        if local is None:
            raise ImageMissing(f"image {name} is not on the box: pull it with 'docker pull {name}'")
        return local, name
    # A tag beside a digest is only for the reader: the digest counts, and the tag may mean something else by now.
    local = engine.image(name)
    if local is not None and wanted in local.digests:
        return local, name
    by_digest = pinned(f"{name}@{wanted}")
    local_by_digest = engine.image(by_digest)
    if local_by_digest is not None:
        return local_by_digest, by_digest
    own_tag = loaded_name(name, wanted)
    loaded = engine.image(own_tag)
    if loaded is not None and is_proven(wanted, loaded.id):
        return loaded, own_tag
    have = f" (it has {', '.join(local.digests) or 'one without a digest'} under that name)" if local else ""
    raise ImageMissing(f"image {name} with digest {wanted} is not on the box{have}: pull it with 'docker pull {by_digest}'")


def repository(name: str) -> str:
    """The name without its tag and digest. A colon before the last slash belongs to a registry's port."""
    head, slash, tail = name.partition("@")[0].rpartition("/")
    return head + slash + tail.partition(":")[0]


def inspect(engine: Engine, reference: str, digest: str | None = None, keep: bool = True, cache_dir: str | None = None) -> ImageInfo:
    """The image and its contents; from the cache when it was looked into before. With C(keep) the answer is cached.

    Raises ImageMissing, ImageError, EngineError, and OSError when the cache cannot be written.
    """
    local, own_name = find(engine, reference, digest)
    path = _record(local.id, cache_dir)
    contents = _cached(path)
    if contents is None:
        contents = look(engine, local, reference)
        if keep:
            _store(path, contents)
    return ImageInfo(
        name=split_digest(reference)[0],
        reference=own_name,
        id=local.id,
        digest=split_digest(reference)[1] or digest or next(iter(local.digests), None) or proven_digest(local.id),
        architecture=local.architecture,
        entrypoint=local.entrypoint,
        **asdict(contents),
    )


def look(engine: Engine, image: LocalImage, reference: str) -> Contents:
    """Ask the image's own Python what it contains. Raises ImageError when it gives no answer."""
    ended = engine.run(image.id, ["python3", "-c", _LOOK], timeout=_LOOK_TIMEOUT)
    if ended.exit_code == 127:
        return Contents(None, None, None)
    answer = next((line for line in reversed(ended.output.splitlines()) if line.startswith("LOOK ")), None)
    if ended.exit_code != 0 or answer is None:
        raise ImageError(
            f"image {reference} ({image.architecture}) does not say what it contains: its python3 ended with code {ended.exit_code},"
            f" its last words: {ended.output.strip()[-400:] or 'none'}. Is it built for this machine?"
        )
    return Contents(**json.loads(answer[len("LOOK ") :]))


def looked_into(cache_dir: str | None = None) -> set[str]:
    """The ids of the images that were looked into on this box. Raises OSError when that cannot be read."""
    with contextlib.suppress(FileNotFoundError):
        return {f"sha256:{name.removesuffix('.json')}" for name in os.listdir(cache_dir or CACHE_DIR) if name.endswith(".json")}
    return set()


def forget(image_id: str, cache_dir: str | None = None) -> None:
    """What was seen in an image that is gone. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_record(image_id, cache_dir))


def _record(image_id: str, cache_dir: str | None) -> str:
    return os.path.join(cache_dir or CACHE_DIR, f"{image_id.partition(':')[2] or image_id}.json")


def _cached(path: str) -> Contents | None:
    try:
        with open(path, encoding="utf-8") as file:
            document: dict[str, Any] = json.load(file)
        if document.pop("schema") != _SCHEMA:
            return None
        return Contents(**document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # not there, or not ours: look again and write it anew


def _store(path: str, contents: Contents) -> None:
    """Root only: what this file says decides whether a patch is mounted."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    replace_file(path, json.dumps({"schema": _SCHEMA, **asdict(contents)}, indent=2) + "\n", mode=0o600)


def check_version(image: ImageInfo, wanted: str) -> None:
    """Does the image contain a vLLM in the range C(wanted)? Raises ImageError with what it contains."""
    if image.vllm_version is None:
        raise ImageError(f"image {image.name} contains no vLLM: take one that does, such as vllm/vllm-openai:gemma4-cu130")
    try:
        fits = satisfies(image.vllm_version, wanted)
    except VersionError as exc:
        raise ImageError(f"image {image.name}: {exc}") from exc
    if not fits:
        raise ImageError(
            f"image {image.name} contains vLLM {image.vllm_version}, the recipe needs {wanted}: choose another image (a tag does not tell"
            " its version), or change vllm_versions if you know that this one works"
        )
