# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a lock is: the bytes that stand behind each recipe, as a file that people read, compare and commit.

The same bytes make the same text: everything is sorted, and nothing in it says when or by whom it was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from ansible_collections.dgx.spark.plugins.module_utils._locked import locked_files
from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError

SCHEMA = 1
# What of a recipe lies on the Hub: every recipe has a model, some have a draft model.
CHECKPOINTS = ("model", "draft")
RENEW = "renew it with playbooks/lock.yml"
HEADER = """\
# What playbooks/gemma4.yml deploys with this inventory, down to the bytes: with this file a box gets exactly these, or the run fails.
# Written by playbooks/lock.yml of the collection dgx.spark. Keep it in version control; take it away, and tags and branches count again.
#   what is newer:  ansible-playbook playbooks/lock.yml -i INVENTORY --check --diff
#   renew:          ansible-playbook playbooks/lock.yml -i INVENTORY
#   go back:        bring the older file back, and deploy
---
"""

_NAME = re.compile(r"\S+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Document = dict[str, Any]


class LockError(ValueError):
    """A lock cannot be used, or not for this. The message names cause and remedy."""


class _Line(dict[str, Any]):
    """A mapping that is written on one line, so that a file that changed is one line of a diff."""


class _Dumper(yaml.SafeDumper):
    """YAML with one line a file."""


_Dumper.add_representer(_Line, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True))


def render(document: Document) -> str:
    """The file's text."""
    # Ansible's texts remember where they come from; YAML's writer wants plain ones.
    document = json.loads(json.dumps(document))
    recipes = {}
    for name, entry in document["recipes"].items():
        recipes[name] = dict(entry)
        for key in CHECKPOINTS:
            if key in entry:
                files = {path: _Line(sorted(file.items(), reverse=True)) for path, file in entry[key]["files"].items()}
                recipes[name][key] = {**entry[key], "files": files}
    return HEADER + yaml.dump({**document, "recipes": recipes}, Dumper=_Dumper, width=1000, allow_unicode=True)


def parse(text: str, path: str) -> Document:
    """The lock in a file's text, checked. C(path) is for the error. Raises LockError with all problems at once."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise LockError(f"{path} is no YAML ({' '.join(str(exc).split())}): mend it (was it merged?), or {RENEW}") from exc
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise LockError(f"{path} is no lock of this version of the collection (schema: {SCHEMA} is missing): {RENEW}")
    problems = list(_problems(document))
    if problems:
        raise LockError(f"{path} is not usable: {'; '.join(problems)}. Mend it, or {RENEW}")
    return document


def _problems(document: Mapping[str, Any]) -> Iterable[str]:
    recipes, toolkit = document.get("recipes"), document.get("toolkit")
    if not isinstance(recipes, dict):
        yield "recipes must be a mapping"
        recipes = {}
    if not isinstance(toolkit, dict) or not all(isinstance(version, str) for version in toolkit.values()):
        yield "toolkit must be a mapping of packages to versions"
    for name, entry in recipes.items():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(part), dict) for part in ("image", "model", "patches")):
            yield f"recipes.{name} must have image, model and patches"
            continue
        yield from (f"recipes.{name}.{problem}" for problem in _entry_problems(entry))


def _entry_problems(entry: Mapping[str, Any]) -> Iterable[str]:
    image, patches = entry["image"], entry["patches"]
    yield from _wrong(
        ("image.name", image.get("name"), _NAME),
        ("image.digest", image.get("digest"), _DIGEST),
        *((f"patches.{file}", sha256, _SHA256) for file, sha256 in patches.items()),
    )
    for key in CHECKPOINTS:
        if key in entry:
            yield from _checkpoint_problems(key, entry[key])


def _checkpoint_problems(key: str, checkpoint: Any) -> Iterable[str]:
    if not isinstance(checkpoint, dict):
        yield f"{key} must be a mapping"
        return
    forms = {"repo": _NAME, "revision": _NAME, "commit": _COMMIT}
    yield from _wrong(*((f"{key}.{name}", checkpoint.get(name), form) for name, form in forms.items()))
    files = checkpoint.get("files")
    if not isinstance(files, dict) or not files or not all(isinstance(file, dict) for file in files.values()):
        yield f"{key}.files must be a mapping of paths to size and hash"
        return
    try:
        locked_files(files)
    except SnapshotError as exc:
        yield f"{key}.files: {exc}"


def _wrong(*values: tuple[str, Any, re.Pattern[str]]) -> Iterable[str]:
    """Values that have not their form."""
    return (f"{where} is {value!r}" for where, value, form in values if not isinstance(value, str) or not form.fullmatch(value))
