# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's half of bundle: it compares the directory with what is wanted, and takes from the box what it lacks."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils import _bundle_make as make
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import PACKAGES, BundleError, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle_make import Image, Lack, Wanted
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle_read import Reader
from ansible_collections.dgx.spark.plugins.plugin_utils._carry import CarryError
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import LockError, parse
from ansible_collections.dgx.spark.plugins.plugin_utils._long_task import Background

OPTIONS: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "lock_file": {"type": "str", "required": True},
    "recipe": {"type": "str", "required": True},
    "model_dir": {"type": "str", "required": True},
    "draft_dir": {"type": "str"},
    "images": {"type": "list", "elements": "str", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 7200},
}


class NoLock(BundleError):
    """There is no lock yet."""


class BoxError(Exception):
    """The box's half failed; its result says at what."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__(result.get("msg"))
        self.result = result


class ActionModule(Background):
    """See the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._args = self.validate_argument_spec(argument_spec=OPTIONS)[1]
        self._vars = task_vars or {}
        try:
            return self._make(Path(self._args["path"]))
        except BoxError as exc:
            return exc.result
        except (BundleError, CarryError, LockError, OSError) as exc:
            return {"failed": True, "msg": f"Cannot make the bundle: {exc}"}

    def _make(self, path: Path) -> dict[str, Any]:
        try:
            wanted = self._wanted()
        except (BoxError, NoLock) as exc:
            if not self._task.check_mode:
                raise
            # In check mode no lock was written, and nothing was brought to the box.
            return {"changed": True, "path": str(path), "reasons": [f"not all is there yet that it is made of: {exc}"], "fingerprint": ""}
        before = make.read_about(path)
        lacking = make.lack(path, wanted, before)
        result = {"changed": bool(lacking.reasons), "path": str(path), "reasons": list(lacking.reasons), "fingerprint": ""}
        if self._task.check_mode:
            return {**result, "size": sum(file.size for file in wanted.weights.values()), "diff": _diff(lacking, [])}
        if lacking.reasons:
            make.check_room(path, lacking)
            make.begin(path, wanted, before)
            self._fetch(path, wanted, lacking)
        total = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        news = make.finish(path, wanted, before, Reader(self._setting(self._vars), total).read)
        self._box({"name": "clean"})
        bundle = open_bundle(path)
        changed = bool(lacking.reasons) or bool(news)
        return {
            **result,
            "changed": changed,
            "size": sum(bundle.about.files.values()),
            "fingerprint": bundle.fingerprint,
            "diff": _diff(lacking, news.splitlines()),
        }

    def _wanted(self) -> Wanted:
        """What belongs into the bundle. Raises BundleError, LockError, BoxError, OSError."""
        args, lock_file = self._args, Path(self._args["lock_file"])
        if not lock_file.is_file():
            raise NoLock(f"there is no lock {lock_file}: write it with playbooks/lock.yml")
        text = lock_file.read_text(encoding="utf-8")
        lock = parse(text, str(lock_file))
        entry = lock["recipes"].get(args["recipe"])
        if entry is None:
            raise BundleError(f"{lock_file} has no recipe {args['recipe']}: renew it with playbooks/lock.yml")
        locked = f"{entry['image']['name']}@{entry['image']['digest']}"
        seen = self._box({"name": "look", "images": [locked, *args["images"]]})
        images = [Image(name.partition("@")[0], about["digest"], about["size"]) for name, about in seen["images"].items()]
        return Wanted(
            recipe=args["recipe"],
            lock=lock,
            lock_text=text,
            machine=seen["machine"],
            release=seen["release"],
            image=images[0],
            extra=tuple(images[1:]),
            requested=tuple(args["packages"]),
        )

    def _fetch(self, path: Path, wanted: Wanted, lacking: Lack) -> None:
        """Take from the box what lacks. Raises CarryError, BoxError, OSError."""
        archives = {}
        for image in lacking.images:
            make.write_documents(path, image, self._part("documents", image)["documents"])
            if not (path / image.archive).is_file():
                archives[image.archive] = self._part("archive", image)
        found = self._box({"name": "packages"}) if lacking.packages else {"files": {}}
        sizes = {name: wanted.weights[name].size for name in lacking.weights}
        total = sum(sizes.values()) + sum(archive["size"] for archive in archives.values()) + sum(found["files"].values())
        carrier = self.carrier(self._vars, total)
        for name, size in sizes.items():
            directory = self._args[f"{wanted.checkpoint_of(name)}_dir"]
            carrier.pull(posixpath.join(directory, wanted.weights[name].path), path / name, size)
        for name, archive in archives.items():
            carrier.pull(archive["path"], path / name, archive["size"])
        if lacking.packages:
            make.forget_packages(path)
        for name, size in found["files"].items():
            carrier.pull(posixpath.join(found["directory"], name), path / PACKAGES / name, size)

    def _part(self, name: str, image: Image) -> dict[str, Any]:
        return self._box({"name": name, "image": image.name, "digest": image.digest})

    def _box(self, part: dict[str, Any]) -> dict[str, Any]:
        """One part of the work of the box's half. Raises BoxError."""
        result = self.in_background({**self._args, "part": part}, self._vars, self._args["timeout"])
        if result.get("failed"):
            raise BoxError(result)
        return result


def _diff(lacking: Lack, listing: list[str]) -> dict[str, str]:
    return {"before": "", "after": "".join(f"{line}\n" for line in listing or lacking.reasons)}
