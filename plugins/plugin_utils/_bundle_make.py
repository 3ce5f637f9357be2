# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Make a bundle: what it lacks, and the last step, in which every file is compared with the lock and SHA256SUMS is written."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _archive
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._image import loaded_name
from ansible_collections.dgx.spark.plugins.module_utils._locked import locked_files
from ansible_collections.dgx.spark.plugins.module_utils._manifest import RepoFile
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError, architecture, follow
from ansible_collections.dgx.spark.plugins.module_utils._pace import amount
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import digests, existing
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import (
    ABOUT,
    ARCHIVE,
    LOCK,
    PACKAGES,
    README,
    SUMS,
    About,
    BundleError,
    about_from,
    image_folder,
    model_folder,
    read_documents,
    sha256_of,
)
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import CHECKPOINTS, Document

ROOM_FOR_PACKAGES = 500_000_000  # bytes; they have a tenth of it
TEXT = """\
A bundle of the Ansible collection dgx.spark: all bytes of a deployment, for boxes without a network.

For:      {release}, {machine}
Recipes:  {recipes}

See that it is whole:   cd {name} && sha256sum --quiet -c SHA256SUMS
Deploy from it:         ansible-playbook playbooks/gemma4.yml -i INVENTORY -e supply_source=bundle -e bundle_dir=PATH_OF_THIS_DIRECTORY

The controller needs ansible-core, the collection and SSH to the boxes. The boxes need no registry, no Hub and no apt repository.
What is deployed is what gemma4.lock.yml says; every box compares every byte with it before it uses it.
The sha256 of SHA256SUMS stands for all of it: write it down where you made the bundle, and compare it where you use it.
"""


@dataclass(frozen=True)
class Image:
    """An image that belongs into a bundle: its name, its digest, and the bytes that its archive takes."""

    name: str
    digest: str
    size: int

    @property
    def archive(self) -> str:
        return f"{image_folder(self.digest)}/{ARCHIVE}"


@dataclass(frozen=True)
class Wanted:
    """What belongs into a bundle for one recipe. C(extra) are images that the lock does not name."""

    recipe: str
    lock: Document
    lock_text: str
    machine: str
    release: str
    image: Image
    extra: tuple[Image, ...]
    requested: tuple[str, ...]

    @property
    def images(self) -> tuple[Image, ...]:
        return (self.image, *self.extra)

    @property
    def weights(self) -> dict[str, RepoFile]:
        """Path in the bundle → file of the repository."""
        return _weights(self.lock["recipes"][self.recipe])

    def checkpoint_of(self, name: str) -> str:
        """C(model) or C(draft): to which checkpoint a path of C(weights) belongs."""
        entry = self.lock["recipes"][self.recipe]
        return next(key for key in CHECKPOINTS if key in entry and name.startswith(f"{_folder(entry[key])}/"))


@dataclass(frozen=True)
class Lack:
    """What a bundle lacks: paths of weights, images by name, and whether the packages; C(reasons) are one sentence each."""

    weights: tuple[str, ...]
    images: tuple[Image, ...]
    packages: bool
    reasons: tuple[str, ...]
    room: int  # bytes


def lack(path: Path, wanted: Wanted, before: About | None) -> Lack:
    """Compare a directory with what is wanted, by names and sizes. Raises BundleError when it is for something else, OSError."""
    if before and (before.machine, before.release) != (wanted.machine, wanted.release):
        raise BundleError(
            f"{path} is a bundle for {before.release} on {before.machine}, this box has {wanted.release} on {wanted.machine}: choose"
            " another directory (bundle_dir)"
        )
    weights = tuple(name for name, file in wanted.weights.items() if not _has(path / name, file.size))
    images = tuple(image for image in wanted.images if not _complete(path / image.archive))
    packages = before is None or before.requested != wanted.requested or not _has_packages(path, before)
    reasons = [f"{name} is missing" for name in weights]
    reasons += [f"the image {image.name} is missing" for image in images]
    reasons += ["the packages are missing, or others are asked"] if packages else []
    if not reasons:
        reasons += [] if (path / SUMS).is_file() and before and wanted.recipe in before.recipes else [f"{SUMS} is missing"]
        reasons += [] if _text(path / LOCK) == wanted.lock_text else ["the lock is another one"]
        reasons += (
            []
            if not before or dict(before.images) == {image.name: image.digest for image in wanted.extra}
            else ["the images beside the recipes' are others"]
        )
    room = sum(_rest(path / name, wanted.weights[name].size) for name in weights) + sum(image.size for image in images)
    return Lack(weights, images, packages, tuple(reasons), room + (ROOM_FOR_PACKAGES if packages else 0))


def check_room(path: Path, lacking: Lack) -> None:
    """Raises BundleError before anything was fetched, OSError."""
    free = shutil.disk_usage(existing(str(path.absolute()))).free
    if lacking.room > free:
        raise BundleError(
            f"the bundle needs {amount(lacking.room)} more in {path}, and {amount(free)} are free: make room there, or choose another"
            " directory (bundle_dir). Nothing was fetched"
        )


def read_about(path: Path) -> About | None:
    """What an earlier run wrote of a bundle; None when there was none. Raises BundleError, OSError."""
    text = _text(path / ABOUT)
    return about_from(text, str(path / ABOUT)) if text else None


def begin(path: Path, wanted: Wanted, before: About | None) -> None:
    """From here on the directory is no bundle, until finish has made it one. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path / SUMS)
    if before is None:
        # Says at least which system it is for, so that nobody goes on with it for another one.
        _write(path / ABOUT, About(wanted.machine, wanted.release, (), {}, {}, {}).to_json())


def write_documents(path: Path, image: Image, documents: Mapping[str, str]) -> None:
    """Raises OSError."""
    folder = (path / image.archive).parent
    folder.mkdir(parents=True, exist_ok=True)
    for digest, text in documents.items():
        _write(folder / f"{digest.partition(':')[2]}.json", text)


def forget_packages(path: Path) -> None:
    """Packages are of one resolution, or none are there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path / PACKAGES)


def finish(path: Path, wanted: Wanted, before: About | None, tell: Callable[[str, int], None] = lambda path, count: None) -> str:
    """Compare every file with the lock, remove what belongs to nothing, write what describes it, and SHA256SUMS last.

    What is wrong is removed, so that the next run fetches it again. Returns what has changed of the description, empty when nothing has.
    Raises BundleError, OSError.
    """
    entries = {name: wanted.lock["recipes"][name] for name in sorted({wanted.recipe, *_kept(path, wanted, before)})}
    sums: dict[str, str] = {}
    wrong: dict[str, str] = {}  # path of what is removed → why
    recipes: dict[str, tuple[str, ...]] = {}
    for name, entry in entries.items():
        image = Image(entry["image"]["name"], entry["image"]["digest"], 0)
        recipes[name] = (*_weights(entry), *_image_files(path, image))
        for file_path, file in _weights(entry).items():
            found = digests(str(path / file_path), file.git_sha1 is not None, functools.partial(tell, file_path))
            sums[file_path] = found.sha256
            if not found.match(file):
                wrong[file_path] = "it is not the file of the lock"
        _look_at_image(path, image, wanted.machine, sums, wrong, tell)
    for image in wanted.extra:
        _look_at_image(path, image, wanted.machine, sums, wrong, tell)
    sums |= {f"{PACKAGES}/{file.name}": sha256_of(file) for file in sorted((path / PACKAGES).iterdir())}
    if bad := _wrong_packages(path, sums):
        wrong[PACKAGES] = f"{bad[0]} is not what its index says"
    if wrong:
        _remove(path, wrong)
        why = "; ".join(f"{name}: {reason}" for name, reason in wrong.items())
        raise BundleError(f"{path} is no bundle: {why}. It was removed; run again, it is fetched again")
    files = {name: (path / name).stat().st_size for name in sorted(sums)}
    about = About(wanted.machine, wanted.release, wanted.requested, {image.name: image.digest for image in wanted.extra}, recipes, files)
    _remove_others(path, set(sums))
    listed = ", ".join(about.recipes)
    texts = {
        LOCK: wanted.lock_text,
        ABOUT: about.to_json(),
        README: TEXT.format(release=about.release, machine=about.machine, recipes=listed, name=path.absolute().name),
    }
    for name, text in texts.items():
        if _text(path / name) != text:
            _write(path / name, text)
        sums[name] = sha256_of(path / name)
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(sums.items()))
    if _text(path / SUMS) == listing:
        return ""
    _write(path / SUMS, listing)
    return listing


def _weights(entry: Mapping[str, Any]) -> dict[str, RepoFile]:
    """Path in a bundle → file of the repository, of a lock's entry."""
    checkpoints = [entry[key] for key in CHECKPOINTS if key in entry]
    return {f"{_folder(checkpoint)}/{file.path}": file for checkpoint in checkpoints for file in locked_files(checkpoint["files"])}


def _folder(checkpoint: Mapping[str, Any]) -> str:
    return model_folder(checkpoint["repo"], checkpoint["commit"])


def _image_files(path: Path, image: Image) -> list[str]:
    folder = image_folder(image.digest)
    return [image.archive, *(f"{folder}/{file.name}" for file in sorted((path / folder).glob("*.json")))]


def _look_at_image(
    path: Path, image: Image, machine: str, sums: dict[str, str], wrong: dict[str, str], tell: Callable[[str, int], None]
) -> None:
    """Adds the image's files to C(sums), and what is wrong with it to C(wrong). Raises OSError."""
    sums |= {name: sha256_of(path / name, functools.partial(tell, name)) for name in _image_files(path, image)}
    try:
        chain = follow(image.digest, read_documents(path / image_folder(image.digest)), architecture(machine))
        _archive.check(str(path / image.archive), chain, loaded_name(image.name, image.digest))
    except (ChainError, _archive.ArchiveError) as exc:
        wrong[image_folder(image.digest)] = f"{image.name} is not {image.digest} ({exc})"


def _wrong_packages(path: Path, sums: Mapping[str, str]) -> list[str]:
    """Packages that are not what their index says."""
    index, listed = _text(path / PACKAGES / "Packages"), {}
    for entry in index.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in entry.splitlines() if not line.startswith(" "))
        if "Filename" in fields:
            listed[f"{PACKAGES}/{fields['Filename'].removeprefix('./')}"] = fields.get("SHA256")
    have = {name: sha256 for name, sha256 in sums.items() if name.startswith(f"{PACKAGES}/") and name.endswith(".deb")}
    return sorted(name for name in have.keys() | listed.keys() if have.get(name) != listed.get(name))


def _kept(path: Path, wanted: Wanted, before: About | None) -> list[str]:
    """Other recipes of the bundle that the lock still has, and whose files are all there."""
    known = [name for name in (before.recipes if before else ()) if name in wanted.lock["recipes"]]
    entries = {name: wanted.lock["recipes"][name] for name in known}
    return [
        name
        for name, entry in entries.items()
        if all(_has(path / file_path, file.size) for file_path, file in _weights(entry).items())
        and _complete(path / image_folder(entry["image"]["digest"]) / ARCHIVE)
    ]


def _remove(path: Path, names: Iterable[str]) -> None:
    """Raises OSError."""
    for name in names:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            os.unlink(path / name)


def _remove_others(path: Path, keep: set[str]) -> None:
    """Files below the directories of a bundle that are none of it, and what this leaves empty."""
    for top in ("models", "images", PACKAGES):
        for folder, folders, names in os.walk(path / top, topdown=False):
            for name in names:
                if str((Path(folder) / name).relative_to(path)) not in keep:
                    os.unlink(Path(folder) / name)
            for name in folders:
                with contextlib.suppress(OSError):
                    os.rmdir(Path(folder) / name)


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _complete(archive: Path) -> bool:
    """Is an archive there, and the documents beside it?"""
    return archive.is_file() and any(archive.parent.glob("*.json"))


def _has_packages(path: Path, before: About) -> bool:
    """Are all the packages there that an earlier run listed?"""
    listed = {name: size for name, size in before.files.items() if name.startswith(f"{PACKAGES}/")}
    return bool(listed) and all(_has(path / name, size) for name, size in listed.items())


def _rest(path: Path, size: int) -> int:
    part = path.with_name(f"{path.name}.part")
    return size - (part.stat().st_size if part.is_file() else 0)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    replace_file(str(path), text, mode=0o644)
