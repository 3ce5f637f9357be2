# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Make a lock of what was resolved on the boxes, and say in words what differs from the one before."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._lock import CHECKPOINTS, SCHEMA, Document, LockError

DIFF_LINES = 200  # of a patch
NAMED = 6  # files that a sentence names
UNKNOWN = "not known until lock.yml runs without --check"


@dataclass(frozen=True)
class Resolved:
    """One recipe: its entry in the lock, and what a sentence about it needs beside that."""

    entry: Document
    box: str  # that asked
    asked: bool  # false on a box that cannot talk to Docker yet, in check mode
    registry_error: str | None
    on_box: str | None  # the digest that the box has under the image's name
    texts: Mapping[str, Mapping[str, str]]  # of patches, now
    texts_since: Mapping[str, Mapping[str, str] | None]  # and as the old lock has them


def build(hosts: Sequence[Mapping[str, Any]], old: Document | None, keep: bool) -> tuple[Document, list[str]]:
    """The lock, and one sentence (or a sentence and a diff) for each thing that changed.

    C(hosts) are the variables of the boxes, of which this reads inventory_hostname, recipe_spec and container_toolkit_pins, and of one box
    for each recipe vllm_upstream, model_upstream and model_draft_upstream, which the roles vllm and model resolve. With C(keep), for a run
    that saw a part of the inventory only, recipes of the old lock that no box asked stay in it. Raises LockError when boxes contradict each
    other.
    """
    asked: dict[str, tuple[str, Any]] = {}
    resolved: dict[str, Resolved] = {}
    toolkit: tuple[str, dict[str, str]] | None = None
    for host in hosts:
        box, recipe = host["inventory_hostname"], host["recipe_spec"]
        first_box, first = asked.setdefault(recipe["name"], (box, _asked(recipe)))
        if first != _asked(recipe):
            raise LockError(
                f"{first_box} and {box} use the recipe {recipe['name']} differently ({_difference(first, _asked(recipe))}): a lock has one"
                " set of bytes for a recipe, so give one of them a recipe of its own name (recipes/ beside the inventory)"
            )
        pins = host["container_toolkit_pins"]
        if toolkit and toolkit[1] != pins:
            raise LockError(
                f"{toolkit[0]} and {box} ask for different toolkits ({toolkit[1]} and {pins}): set container_toolkit_version for all of"
                " them"
            )
        toolkit = toolkit or (box, pins)
        if "model_upstream" in host:
            resolved[recipe["name"]] = _resolve(host, ((old or {}).get("recipes") or {}).get(recipe["name"]))
    if missing := sorted(asked.keys() - resolved.keys()):
        raise LockError(f"nothing was resolved for {', '.join(missing)}: the box that was to ask failed, see above")
    before = dict((old or {}).get("recipes") or {})
    recipes = {name: entry for name, entry in before.items() if keep and name not in resolved}
    recipes |= {name: found.entry for name, found in resolved.items()}
    new = {"schema": SCHEMA, "recipes": recipes, "toolkit": dict(toolkit[1] if toolkit else {})}
    return new, list(_changes(old, new, resolved))


def _asked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    image, model, draft = recipe["image"], recipe["model"], recipe["draft"] or {}
    return {
        "image": image["name"],
        "digest": image["digest"] or None,
        "repository": model["repo"],
        "revision": model["revision"],
        "draft repository": draft.get("repo"),
        "draft revision": draft.get("revision"),
        "patches": sorted(patch["file"] for patch in recipe["patches"]),
    }


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {one[key]} and {other[key]}" for key in one if one[key] != other[key])


def _resolve(host: Mapping[str, Any], old: Mapping[str, Any] | None) -> Resolved:
    recipe, model, found = host["recipe_spec"], host["model_upstream"], host.get("vllm_upstream") or {}
    digest, image = found.get("digest"), found.get("image")
    version = image["vllm_version"] if image else None
    if version is None and old and digest and old["image"]["digest"] == digest:
        version = old["image"].get("vllm_version")  # the same bytes have the same version
    image_entry = {"name": recipe["image"]["name"], "digest": digest, "vllm_version": version}
    if digest is None and old and old["image"]["name"] == image_entry["name"]:
        image_entry = dict(old["image"])
    entry = {
        "image": image_entry,
        "model": _checkpoint(recipe["model"], model),
        **({"draft": _checkpoint(recipe["draft"], host["model_draft_upstream"])} if recipe["draft"] else {}),
        "patches": {patch["file"]: model["texts"][patch["file"]]["sha256"] for patch in recipe["patches"]},
    }
    return Resolved(
        entry=entry,
        box=host["inventory_hostname"],
        asked=digest is not None,
        registry_error=found.get("registry_error"),
        on_box=found.get("on_box"),
        texts=model["texts"],
        texts_since=model.get("texts_since") or {},
    )


def _checkpoint(asked: Mapping[str, Any], found: Mapping[str, Any]) -> Document:
    """A repository as a lock has it. C(found) is what hf_snapshot_info returned."""
    files = {file["path"]: {key: file[key] for key in ("size", "sha256", "git_sha1") if file[key] is not None} for file in found["files"]}
    return {"repo": asked["repo"], "revision": asked["revision"], "commit": found["commit"], "files": files}


def _changes(old: Document | None, new: Document, resolved: Mapping[str, Resolved]) -> Iterable[str]:
    before = (old or {}).get("recipes") or {}
    for name in sorted(before.keys() | new["recipes"].keys()):
        if name not in new["recipes"]:
            yield f"{name}: no box uses it any more"
        elif name in resolved:
            sentences = _first(resolved[name].entry) if name not in before else _moved(before[name], resolved[name])
            yield from (f"{name}: {sentence}" for sentence in [*sentences, *_remarks(resolved[name])])
    was, now = (old or {}).get("toolkit") or {}, new["toolkit"]
    for package in sorted(was.keys() | now.keys()):
        if old and was.get(package) != now.get(package):
            yield f"{package}: {was.get(package) or 'none'} → {now.get(package) or 'none'}"


def _first(entry: Document) -> Iterable[str]:
    image = entry["image"]
    if image["digest"]:
        yield f"{image['name']} is {image['digest']}, with vLLM {image['vllm_version'] or UNKNOWN}"
    for model in (entry[key] for key in CHECKPOINTS if key in entry):
        yield f"{model['repo']} at {model['revision']} is commit {model['commit']}, {len(model['files'])} files"
    yield from (f"the patch {file} has sha256 {sha256}" for file, sha256 in sorted(entry["patches"].items()))


def _moved(old: Document, found: Resolved) -> Iterable[str]:
    new = found.entry
    yield from _image_moved(old["image"], new["image"])
    yield from _model_moved(old["model"], new["model"])
    was_draft, draft = old.get("draft"), new.get("draft")
    if was_draft and draft:
        yield from _model_moved(was_draft, draft, " of the draft model")
    elif was_draft or draft:
        yield f"the draft model is {draft['repo'] if draft else 'none'}, it was {was_draft['repo'] if was_draft else 'none'}"
    for file in sorted(old["patches"].keys() | new["patches"].keys()):
        was, now = old["patches"].get(file), new["patches"].get(file)
        if was is None or now is None:
            yield f"the patch {file} is {'new' if was is None else 'no part of the recipe any more'}"
        elif was != now:
            yield f"the patch {file} differs: sha256 {was} → {now}. It is code that runs in the server:\n{_patch_diff(file, was, found)}"


def _image_moved(old: Document, new: Document) -> Iterable[str]:
    if old["name"] != new["name"]:
        yield f"the image is {new['name']}, it was {old['name']}"
    if old["digest"] == new["digest"]:
        return
    deed = "the tag was pushed again" if old["name"] == new["name"] else "its digest"
    if not new["digest"]:
        return
    yield f"{new['name']}: {deed}: {old['digest']} → {new['digest']}"
    if old.get("vllm_version") != new["vllm_version"]:
        yield f"vLLM in it: {old.get('vllm_version') or 'not known'} → {new['vllm_version'] or UNKNOWN}"


def _model_moved(old: Document, new: Document, of: str = "") -> Iterable[str]:
    for key, what in (("repo", "repository"), ("revision", "revision")):
        if old[key] != new[key]:
            yield f"the {what}{of} is {new[key]}, it was {old[key]}"
    paths = sorted(old["files"].keys() | new["files"].keys())
    differ = [path for path in paths if old["files"].get(path) != new["files"].get(path)]
    more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
    files = f"{', '.join(differ[:NAMED])}{more} differ{'s' if len(differ) == 1 else ''}" if differ else "no file differs"
    if old["commit"] != new["commit"]:
        yield f"{new['repo']} has moved: {old['commit']} → {new['commit']}; {files}"
    elif differ:
        yield (
            f"{new['repo']} has other bytes under the same commit {new['commit']}: {files}. A commit never changes: take this lock only"
            " when you know why (model_endpoint names who was asked)"
        )


def _patch_diff(file: str, was: str, found: Resolved) -> str:
    since, now = found.texts_since.get(file), found.texts[file]
    if since is None or since["sha256"] != was:
        return "  (the old text cannot be had any more, so there is no diff)"
    lines = list(
        difflib.unified_diff(since["text"].splitlines(), now["text"].splitlines(), f"a/{file} (locked)", f"b/{file} (now)", lineterm="")
    )
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"… {len(lines) - DIFF_LINES} more lines"]
    return "\n".join(f"  {_visible(line)}" for line in lines)


def _visible(line: str) -> str:
    """Somebody else's text, without what a terminal would obey instead of show."""
    return "".join(letter if letter.isprintable() or letter == "\t" else f"\\x{ord(letter):02x}" for letter in line)


def _remarks(found: Resolved) -> Iterable[str]:
    name, digest = found.entry["image"]["name"], found.entry["image"]["digest"]
    if not found.asked:
        yield f"what {name} means now is {UNKNOWN}: {found.box} cannot ask the registry yet"
    elif found.registry_error:
        yield f"the registry could not be asked ({found.registry_error}): the digest is that of the image on {found.box}"
    elif found.on_box and found.on_box != digest:
        yield f"{found.box} has {found.on_box} under the name {name}, pulled at another time"
