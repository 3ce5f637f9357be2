# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""A bundle: one directory with all bytes of a deployment, for boxes without a network.

gemma4.lock.yml              the lock that it was made for
bundle.json                  what else is in it: for which system, which file belongs to what, how long each is
models/OWNER/NAME/COMMIT/…   weights
images/DIGEST/image.tar      an archive of `docker save`, and beside it the documents that lead from the digest to its content
packages/                    the distribution's packages with all that they depend on, and an index of them
SHA256SUMS                   of all of these, for `sha256sum -c`; written last, so a bundle without it is none yet
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError, check_path
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import Document, LockError, parse

SCHEMA = 1
LOCK, ABOUT, SUMS, README = "gemma4.lock.yml", "bundle.json", "SHA256SUMS", "README.txt"
PACKAGES = "packages"
ARCHIVE = "image.tar"
REMEDY = "Copy the bundle again, or make it anew with playbooks/bundle.yml"
SHOWN = 5  # files that an error names


class BundleError(Exception):
    """A bundle cannot be used, or not for this. The message names the file or the recipe, and the remedy."""


@dataclass(frozen=True)
class About:
    """What bundle.json says. C(machine) is the kernel's name of the architecture, C(release) the distribution's id and version."""

    machine: str
    release: str
    requested: tuple[str, ...]  # packages
    images: Mapping[str, str]  # other than the recipes': name → digest
    recipes: Mapping[str, tuple[str, ...]]  # name → paths of what it needs beside what all need
    files: Mapping[str, int]  # path → bytes

    def to_json(self) -> str:
        document = {
            "schema": SCHEMA,
            "machine": self.machine,
            "release": self.release,
            "requested": list(self.requested),
            "images": dict(self.images),
            "recipes": {name: sorted(paths) for name, paths in self.recipes.items()},
            "files": dict(self.files),
        }
        return json.dumps(document, indent=1, sort_keys=True) + "\n"

    def shared(self) -> list[str]:
        """Paths of what every recipe needs."""
        own = {path for paths in self.recipes.values() for path in paths}
        return sorted(self.files.keys() - own)


def about_from(text: str, where: str) -> About:
    """Raises BundleError."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema is {document['schema']!r}")
        files = {str(path): int(size) for path, size in document["files"].items()}
        for path in files:
            check_path(path)
        recipes = {str(name): tuple(paths) for name, paths in document["recipes"].items()}
        return About(document["machine"], document["release"], tuple(document["requested"]), document["images"], recipes, files)
    except (ValueError, KeyError, TypeError, AttributeError, SnapshotError) as exc:
        raise BundleError(f"{where} cannot be understood ({exc}). {REMEDY}") from exc


class Bundle:
    """A bundle that is complete by its names and sizes."""

    def __init__(self, path: Path, about: About, lock: Document, sums: Mapping[str, str]) -> None:
        self.path, self.about, self.lock, self.sums = path, about, lock, sums

    @property
    def fingerprint(self) -> str:
        """One sha256 that stands for all bytes of the bundle."""
        return hashlib.sha256((self.path / SUMS).read_bytes()).hexdigest()

    def need(self, recipe: str) -> list[str]:
        """The paths of what a box needs for a recipe. Raises BundleError."""
        if recipe not in self.about.recipes:
            known = ", ".join(sorted(self.about.recipes)) or "none"
            raise BundleError(f"the bundle {self.path} has nothing for the recipe {recipe} (it has: {known}). {REMEDY}")
        return sorted({*self.about.recipes[recipe], *self.about.shared()})

    def verify(self, paths: Iterable[str], tell: Callable[[str, int], None] = lambda path, count: None) -> None:
        """Read files and compare them with SHA256SUMS; C(tell) hears of bytes. Raises BundleError, which names what is broken, OSError."""
        broken = [path for path in sorted(set(paths)) if sha256_of(self.path / path, functools.partial(tell, path)) != self.sums[path]]
        if broken:
            raise BundleError(f"the bundle {self.path} is broken: {_listed(broken)} {_is(broken)} not what {SUMS} says. {REMEDY}")

    def packages(self) -> dict[str, str]:
        """Name → sha256 of the packages' files, their index among them."""
        return {path.partition("/")[2]: self.sums[path] for path in self.about.files if path.startswith(f"{PACKAGES}/")}

    def digest(self, image: str) -> str:
        """The digest of an image that is no recipe's. Raises BundleError."""
        if image not in self.about.images:
            known = ", ".join(sorted(self.about.images)) or "none"
            raise BundleError(f"the bundle {self.path} has no image {image} (beside the recipes' it has: {known}). {REMEDY}")
        return self.about.images[image]

    def documents(self, digest: str) -> dict[str, str]:
        """Digest → text of what leads from a digest to the content of its archive. Raises BundleError, OSError."""
        if f"{image_folder(digest)}/{ARCHIVE}" not in self.about.files:
            raise BundleError(f"the bundle {self.path} has no image {digest}. {REMEDY}")
        return read_documents(self.path / image_folder(digest))

    def archives(self) -> list[str]:
        """The sha256 of all archives."""
        return [self.sums[path] for path in self.about.files if path.endswith(f"/{ARCHIVE}")]

    def archive(self, digest: str) -> Path:
        return self.path / image_folder(digest) / ARCHIVE


def open_bundle(path: Path) -> Bundle:
    """The bundle in a directory; no file's content is read but those that describe it. Raises BundleError, OSError."""
    if not path.is_dir():
        raise BundleError(f"there is no bundle at {path}: set bundle_dir, or make it with playbooks/bundle.yml on a connected machine")
    if not (path / SUMS).is_file():
        raise BundleError(f"{path} is no complete bundle ({SUMS}, which is written last, is not there). {REMEDY}")
    sums = read_sums(path)
    # What the rest is judged by comes first.
    for name in (ABOUT, LOCK):
        if not (path / name).is_file():
            raise BundleError(f"the bundle {path} lacks {name}. {REMEDY}")
        if sha256_of(path / name) != sums.get(name):
            raise BundleError(f"the bundle {path} is broken: {name} is not what {SUMS} says. {REMEDY}")
    about = about_from((path / ABOUT).read_text(encoding="utf-8"), str(path / ABOUT))
    lacking = [name for name in sorted(about.files) if name not in sums or not (path / name).is_file()]
    if lacking:
        raise BundleError(f"the bundle {path} lacks {_listed(lacking)}. {REMEDY}")
    wrong = [name for name, size in sorted(about.files.items()) if (path / name).stat().st_size != size]
    if wrong:
        raise BundleError(f"the bundle {path} is broken: {_listed(wrong)} {_has(wrong)} another size than {ABOUT} says. {REMEDY}")
    try:
        lock = parse((path / LOCK).read_text(encoding="utf-8"), str(path / LOCK))
    except LockError as exc:
        raise BundleError(str(exc)) from exc
    return Bundle(path, about, lock, sums)


def read_sums(path: Path) -> dict[str, str]:
    """Path → sha256 of a bundle's SHA256SUMS. Raises OSError."""
    lines = (path / SUMS).read_text(encoding="utf-8").splitlines()
    return {name: sha256 for sha256, _space, name in (line.partition("  ") for line in lines) if name}


def read_documents(folder: Path) -> dict[str, str]:
    """Digest → text of the registry's documents beside an archive. Raises OSError."""
    return {f"sha256:{file.stem}": file.read_bytes().decode("utf-8", "replace") for file in sorted(folder.glob("*.json"))}


def differences(bundle: Bundle, lock: Document, where: str) -> str | None:
    """Why a bundle was not made for another lock, that of the inventory; None when both say the same of what they both have."""
    both = sorted(bundle.about.recipes.keys() & lock["recipes"].keys())
    other = [name for name in both if bundle.lock["recipes"][name] != lock["recipes"][name]]
    if other or bundle.lock["toolkit"] != lock["toolkit"]:
        what = _listed(other) if other else "the container toolkit"
        return (
            f"the bundle {bundle.path} was made for another lock than {where}: they differ in {what}. Make the bundle anew for this lock,"
            f" or take the bundle's ({LOCK})"
        )
    return None


def model_folder(repo: str, commit: str) -> str:
    return f"models/{repo}/{commit}"


def image_folder(digest: str) -> str:
    return f"images/{digest.partition(':')[2]}"


def sha256_of(path: Path, count: Callable[[int], None] = lambda read: None) -> str:
    """Raises OSError."""
    sha256 = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(1024 * 1024):
            sha256.update(block)
            count(len(block))
    return sha256.hexdigest()


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _has(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"
