# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lock: made of what was resolved, written, read, compared, and held against a recipe."""

from __future__ import annotations

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils._locked import fingerprint, locked_files
from ansible_collections.dgx.spark.plugins.module_utils._recipe import load
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import LockError, parse, render
from ansible_collections.dgx.spark.plugins.plugin_utils._lock_apply import hold
from ansible_collections.dgx.spark.plugins.plugin_utils._lock_build import build

ARTICLE = yaml.safe_load((Path(__file__).parents[2] / "roles/recipe/vars/gemma4-26b-a4b-nvfp4.yml").read_text())
NAME, IMAGE, REPO = "gemma4-26b-a4b-nvfp4", "vllm/vllm-openai:gemma4-cu130", "bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4"
PATCH = "gemma4_patched.py"
OLD_DIGEST, NEW_DIGEST = ("sha256:" + letter * 64 for letter in "ab")
OLD_COMMIT, NEW_COMMIT = "1" * 40, "2" * 40
OLD_TEXT, NEW_TEXT = "import torch\nSCALE = 1\n", "import torch\nSCALE = 2\n"
PINS = {"nvidia-container-toolkit": "1.19.0-1", "libnvidia-container1": "1.19.0-1"}
PATH = "inventories/mine/gemma4.lock.yml"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def recipe(**overrides: Any) -> dict[str, Any]:
    return load(ARTICLE, "/srv/models", overrides=overrides)


def text_of(text: str) -> dict[str, str]:
    return {"sha256": sha256(text), "text": text}


def host(
    box: str = "spark-1",
    digest: str | None = OLD_DIGEST,
    version: str | None = "0.19.1.dev6",
    commit: str = OLD_COMMIT,
    patch: str = OLD_TEXT,
    since: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The variables of a box that resolved the article's recipe."""
    files = [
        {"path": "model.safetensors", "size": 16_000_000_000, "sha256": "c" * 64, "git_sha1": None},
        {"path": PATCH, "size": len(patch), "sha256": None, "git_sha1": hashlib.sha1(patch.encode()).hexdigest()},
    ]
    return {
        "inventory_hostname": box,
        "recipe_spec": recipe(),
        "container_toolkit_pins": PINS,
        "model_upstream": {
            "commit": commit,
            "files": files,
            "texts": {PATCH: text_of(patch)},
            "texts_since": {PATCH: text_of(since) if since else None},
        },
        "vllm_upstream": {
            "digest": digest,
            "image": {"vllm_version": version} if version else None,
            "on_box": digest,
            "registry_error": None,
        },
        **more,
    }


def quiet(box: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    """A box that left the resolving to another."""
    return {"inventory_hostname": box, "recipe_spec": spec or recipe(), "container_toolkit_pins": PINS}


@pytest.fixture
def lock() -> dict[str, Any]:
    return build([host()], None, keep=False)[0]


# --- making


def test_a_lock_has_every_byte_that_stands_behind_a_recipe(lock: dict[str, Any]) -> None:
    assert lock == {
        "schema": 1,
        "recipes": {
            NAME: {
                "image": {"name": IMAGE, "digest": OLD_DIGEST, "vllm_version": "0.19.1.dev6"},
                "model": {
                    "repo": REPO,
                    "revision": "main",
                    "commit": OLD_COMMIT,
                    "files": {
                        "model.safetensors": {"size": 16_000_000_000, "sha256": "c" * 64},
                        PATCH: {"size": len(OLD_TEXT), "git_sha1": hashlib.sha1(OLD_TEXT.encode()).hexdigest()},
                    },
                },
                "patches": {PATCH: sha256(OLD_TEXT)},
            }
        },
        "toolkit": PINS,
    }


def test_one_box_resolves_for_all_that_use_its_recipe() -> None:
    assert build([host(), quiet("spark-2")], None, keep=False)[0] == build([host()], None, keep=False)[0]


def test_boxes_that_use_one_recipe_for_different_things_are_named() -> None:
    other = recipe(image={"name": "vllm/vllm-openai:v0.19.1"})
    with pytest.raises(LockError) as error:
        build([host(), quiet("spark-2", other)], None, keep=False)
    assert f"spark-1 and spark-2 use the recipe {NAME} differently (image {IMAGE} and vllm/vllm-openai:v0.19.1)" in str(error.value)


def test_boxes_that_want_different_toolkits_are_named() -> None:
    with pytest.raises(LockError, match="spark-1 and spark-2 ask for different toolkits"):
        build([host(), {**quiet("spark-2"), "container_toolkit_pins": {"nvidia-container-toolkit": "1.18.0-1"}}], None, keep=False)


def test_a_recipe_that_nobody_resolved_is_an_error() -> None:
    with pytest.raises(LockError, match=f"nothing was resolved for {NAME}"):
        build([quiet("spark-1")], None, keep=False)


def test_a_run_over_a_part_of_the_boxes_keeps_the_other_recipes(lock: dict[str, Any]) -> None:
    old = copy.deepcopy(lock)
    old["recipes"]["other"] = old["recipes"][NAME]
    assert set(build([host()], old, keep=True)[0]["recipes"]) == {NAME, "other"}
    new, changes = build([host()], old, keep=False)
    assert set(new["recipes"]) == {NAME}
    assert changes == ["other: no box uses it any more"]


# --- the file


def test_what_is_written_is_read_again_and_is_the_same_text(lock: dict[str, Any]) -> None:
    text = render(lock)
    assert parse(text, PATH) == lock
    assert render(parse(text, PATH)) == text


def test_the_same_bytes_make_the_same_text_in_any_order(lock: dict[str, Any]) -> None:
    shuffled = host()
    shuffled["model_upstream"]["files"].reverse()
    shuffled["container_toolkit_pins"] = dict(reversed(PINS.items()))
    assert render(build([shuffled], None, keep=False)[0]) == render(lock)


def test_texts_that_are_more_than_texts_are_written_as_such(lock: dict[str, Any]) -> None:
    class Tagged(str):
        __slots__ = ()

    tagged = host()
    tagged["model_upstream"]["commit"] = Tagged(OLD_COMMIT)
    tagged["recipe_spec"]["name"] = Tagged(NAME)
    assert render(build([tagged], None, keep=False)[0]) == render(lock)


def test_a_file_is_one_line_and_the_header_says_how_to_renew(lock: dict[str, Any]) -> None:
    lines = render(lock).splitlines()
    assert f"        model.safetensors: {{size: 16000000000, sha256: {'c' * 64}}}" in lines
    assert any(line.startswith("#   renew:          ansible-playbook playbooks/lock.yml") for line in lines)


def test_an_inventory_with_a_lock_and_recipes_in_it_has_no_other_groups_and_warns_of_nothing(lock: dict[str, Any], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "hosts.yml").write_text("spark: {hosts: {spark-1: {}}}\n")
    (tmp_path / "gemma4.lock.yml").write_text(render(lock))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yml").write_text(yaml.safe_dump(ARTICLE))
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(tmp_path), "--graph"]
    environment = os.environ | {"ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["@all:", "|--@ungrouped:", "|--@spark:", "|", "|--spark-1"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda doc: doc.update(schema=2), "schema: 1 is missing"),
        (lambda doc: doc.pop("recipes"), "recipes must be a mapping"),
        (lambda doc: doc.update(toolkit=["x"]), "toolkit must be a mapping of packages to versions"),
        (lambda doc: doc["recipes"][NAME].pop("model"), f"recipes.{NAME} must have image, model and patches"),
        (lambda doc: doc["recipes"][NAME]["image"].update(digest="latest"), f"recipes.{NAME}.image.digest is 'latest'"),
        (lambda doc: doc["recipes"][NAME]["image"].update(digest=OLD_DIGEST + "0"), f"recipes.{NAME}.image.digest is '{OLD_DIGEST}0'"),
        (lambda doc: doc["recipes"][NAME]["image"].update(digest=None), f"recipes.{NAME}.image.digest is None"),
        (lambda doc: doc["recipes"][NAME]["model"].update(commit="main"), f"recipes.{NAME}.model.commit is 'main'"),
        (lambda doc: doc["recipes"][NAME]["patches"].update({PATCH: "00"}), f"recipes.{NAME}.patches.{PATCH} is '00'"),
        (lambda doc: doc["recipes"][NAME]["model"].update(files={}), "model.files must be a mapping"),
        (lambda doc: doc["recipes"][NAME]["model"]["files"].update({"../x": {"size": 1, "sha256": "c" * 64}}), "outside its directory"),
        (lambda doc: doc["recipes"][NAME]["model"]["files"].update({"x": {"size": 1}}), "there is no hash of x"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_with_the_remedy(lock: dict[str, Any], spoil: Any, words: str) -> None:
    spoil(lock)
    with pytest.raises(LockError) as error:
        parse(yaml.safe_dump(lock), PATH)
    assert words in str(error.value)
    assert PATH in str(error.value)
    assert "playbooks/lock.yml" in str(error.value)


def test_a_conflict_of_a_merge_is_no_yaml() -> None:
    with pytest.raises(LockError, match="is no YAML .*was it merged"):
        parse("<<<<<<< ours\na: [\n", PATH)


# --- what is newer


def test_nothing_newer_is_no_sentence(lock: dict[str, Any]) -> None:
    new, changes = build([host()], lock, keep=False)
    assert (new, changes) == (lock, [])


def test_a_first_lock_says_what_it_resolved() -> None:
    changes = build([host()], None, keep=False)[1]
    assert changes == [
        f"{NAME}: {IMAGE} is {OLD_DIGEST}, with vLLM 0.19.1.dev6",
        f"{NAME}: {REPO} at main is commit {OLD_COMMIT}, 2 files",
        f"{NAME}: the patch {PATCH} has sha256 {sha256(OLD_TEXT)}",
    ]


def test_a_tag_that_was_pushed_again_is_said_with_both_digests_and_versions(lock: dict[str, Any]) -> None:
    changes = build([host(digest=NEW_DIGEST, version="0.19.2")], lock, keep=False)[1]
    assert changes == [
        f"{NAME}: {IMAGE}: the tag was pushed again: {OLD_DIGEST} → {NEW_DIGEST}",
        f"{NAME}: vLLM in it: 0.19.1.dev6 → 0.19.2",
    ]


def test_in_check_mode_the_version_of_new_bytes_is_said_to_be_unknown_and_that_of_known_ones_is_kept(lock: dict[str, Any]) -> None:
    new, changes = build([host(digest=NEW_DIGEST, version=None)], lock, keep=False)
    assert "not known until lock.yml runs without --check" in changes[1]
    assert build([host(version=None)], lock, keep=False) == (lock, [])


def test_a_box_that_cannot_ask_yet_leaves_the_image_as_it_was_locked(lock: dict[str, Any]) -> None:
    virgin = host()
    del virgin["vllm_upstream"]
    sentence = f"{NAME}: what {IMAGE} means now is not known until lock.yml runs without --check: spark-1 cannot ask the registry yet"
    assert build([virgin], lock, keep=False) == (lock, [sentence])
    first, changes = build([virgin], None, keep=False)
    assert changes[-1] == sentence
    with pytest.raises(LockError, match="digest is None"):  # shown in check mode, never written
        parse(render(first), PATH)


def test_a_branch_that_moved_names_the_files_and_a_patch_is_shown_as_a_diff(lock: dict[str, Any]) -> None:
    moved = host(commit=NEW_COMMIT, patch=NEW_TEXT, since=OLD_TEXT)
    new, changes = build([moved], lock, keep=False)
    assert new["recipes"][NAME]["patches"] == {PATCH: sha256(NEW_TEXT)}
    assert changes[0] == f"{NAME}: {REPO} has moved: {OLD_COMMIT} → {NEW_COMMIT}; {PATCH} differs"
    assert changes[1].startswith(f"{NAME}: the patch {PATCH} differs: sha256 {sha256(OLD_TEXT)} → {sha256(NEW_TEXT)}. It is code")
    assert changes[1].splitlines()[1:] == [
        f"  --- a/{PATCH} (locked)",
        f"  +++ b/{PATCH} (now)",
        "  @@ -1,2 +1,2 @@",
        "   import torch",
        "  -SCALE = 1",
        "  +SCALE = 2",
    ]


def test_an_old_patch_that_cannot_be_had_or_is_another_makes_no_diff(lock: dict[str, Any]) -> None:
    for since in (None, "something else\n"):
        changes = build([host(commit=NEW_COMMIT, patch=NEW_TEXT, since=since)], lock, keep=False)[1]
        assert changes[1].endswith("\n  (the old text cannot be had any more, so there is no diff)")


def test_a_patch_cannot_hide_lines_from_a_terminal(lock: dict[str, Any]) -> None:
    changes = build([host(commit=NEW_COMMIT, patch="import torch\n\x1b[2Kevil()\n", since=OLD_TEXT)], lock, keep=False)[1]
    assert "\x1b" not in changes[1]
    assert r"+\x1b[2Kevil()" in changes[1]


def test_other_bytes_under_the_same_commit_are_an_alarm(lock: dict[str, Any]) -> None:
    changes = build([host(patch=NEW_TEXT, since=OLD_TEXT)], lock, keep=False)[1]
    assert f"{REPO} has other bytes under the same commit {OLD_COMMIT}: {PATCH} differs" in changes[0]


def test_a_registry_that_was_silent_and_a_box_with_other_bytes_are_said() -> None:
    silent = host()
    silent["vllm_upstream"]["registry_error"] = "no route to host"
    words = "the registry could not be asked (no route to host): the digest is that of the image on spark-1"
    assert words in build([silent], None, False)[1][-1]
    other = host()
    other["vllm_upstream"]["on_box"] = NEW_DIGEST
    assert build([other], None, False)[1][-1] == f"{NAME}: spark-1 has {NEW_DIGEST} under the name {IMAGE}, pulled at another time"


def test_a_newer_toolkit_is_said(lock: dict[str, Any]) -> None:
    newer = {package: "1.20.0-1" for package in PINS}
    changes = build([host(container_toolkit_pins=newer)], lock, keep=False)[1]
    assert changes == ["libnvidia-container1: 1.19.0-1 → 1.20.0-1", "nvidia-container-toolkit: 1.19.0-1 → 1.20.0-1"]


# --- holding a recipe to it


def test_a_recipe_that_is_held_names_bytes(lock: dict[str, Any]) -> None:
    held = hold(recipe(), lock, PATH)
    assert held["image"]["digest"] == OLD_DIGEST
    assert held["model"]["revision"] == OLD_COMMIT
    assert held["model"]["path"] == f"/srv/models/{NAME}/{OLD_COMMIT}"
    assert held["patches"][0]["sha256"] == sha256(OLD_TEXT)
    files = lock["recipes"][NAME]["model"]["files"]
    assert held["lock"] == {
        "file": PATH,
        "model": {"commit": OLD_COMMIT, "files": files, "fingerprint": fingerprint(locked_files(files))},
        "toolkit": PINS,
    }
    assert recipe()["lock"] == {}


def test_a_held_recipe_has_one_directory_whatever_its_revision_is_called(lock: dict[str, Any]) -> None:
    lock["recipes"][NAME]["model"]["revision"] = "refs/pr/1"
    held = hold(recipe(model={"revision": "refs/pr/1"}), lock, PATH)
    assert held["model"]["path"] == f"/srv/models/{NAME}/{OLD_COMMIT}"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"image": {"name": "vllm/vllm-openai:x"}}, f"the image that is asked is vllm/vllm-openai:x, the lock has {IMAGE}"),
        ({"image": {"digest": NEW_DIGEST}}, f"the digest that is asked is {NEW_DIGEST}, the lock has {OLD_DIGEST}"),
        ({"image": {"digest": ""}}, f"the digest that is asked is none (vllm_image_digest is empty), the lock has {OLD_DIGEST}"),
        ({"model": {"repo": "nvidia/other"}}, f"the repository that is asked is nvidia/other, the lock has {REPO}"),
        ({"model": {"revision": "v2"}}, "the revision that is asked is v2, the lock has main"),
        ({"patches": []}, f"the patches that are asked are none, the lock has {PATCH}"),
        (
            {"patches": [{"file": PATCH, "module": "vllm.x", "vllm_versions": "", "sha256": "0" * 64}]},
            f"the sha256 of {PATCH} that is asked is {'0' * 64}, the lock has {sha256(OLD_TEXT)}",
        ),
    ],
)
def test_what_contradicts_the_lock_is_refused_with_both_values_and_the_remedy(
    lock: dict[str, Any], overrides: dict[str, Any], words: str
) -> None:
    with pytest.raises(LockError) as error:
        hold(recipe(**overrides), lock, PATH)
    assert words in str(error.value)
    assert f"{PATH} was not written for this" in str(error.value)
    assert "renew the lock with playbooks/lock.yml, and the bundle that it lies in with playbooks/bundle.yml" in str(error.value)


@pytest.mark.parametrize(
    "overrides", [{"model": {"revision": OLD_COMMIT}}, {"image": {"digest": OLD_DIGEST}}, {"model": {"revision": "main", "repo": REPO}}]
)
def test_what_says_the_same_is_fine(lock: dict[str, Any], overrides: dict[str, Any]) -> None:
    assert hold(recipe(**overrides), lock, PATH) == hold(recipe(), lock, PATH)


def test_another_toolkit_is_refused_and_the_same_is_fine(lock: dict[str, Any]) -> None:
    assert hold(recipe(), lock, PATH, "1.19.0") == hold(recipe(), lock, PATH)
    with pytest.raises(LockError, match="the container_toolkit_version that is asked is 1.18.1, the lock has 1.19.0"):
        hold(recipe(), lock, PATH, "1.18.1")
    assert hold(recipe(), {**lock, "toolkit": {}}, PATH, "1.18.1")["lock"]["toolkit"] == {}


def test_a_recipe_that_the_lock_lacks_is_refused_with_those_it_has(lock: dict[str, Any]) -> None:
    lock["recipes"] = {"other": lock["recipes"][NAME]}
    with pytest.raises(LockError, match=rf"has no recipe {NAME} \(it has: other\). .*renew the lock"):
        hold(recipe(), lock, PATH)


# --- a draft model


DRAFT = {"repo": "google/draft", "revision": "main", "size_gb": 0.9}
SPECULATION = {"method": "mtp", "num_speculative_tokens": 2}


def drafting(**changed: Any) -> dict[str, Any]:
    return load({**ARTICLE, "draft": DRAFT | changed, "args": {**ARTICLE["args"], "speculative-config": SPECULATION}}, "/srv/models")


def drafting_host(commit: str = "3" * 40) -> dict[str, Any]:
    files = [{"path": "model.safetensors", "size": 840_000_000, "sha256": "d" * 64, "git_sha1": None}]
    return host(recipe_spec=drafting(), model_draft_upstream={"commit": commit, "files": files})


def test_a_draft_model_is_locked_beside_the_model() -> None:
    document, changes = build([drafting_host()], None, keep=False)
    entry = document["recipes"][NAME]
    assert (entry["model"]["commit"], entry["draft"]["commit"]) == (OLD_COMMIT, "3" * 40)
    assert entry["draft"]["files"] == {"model.safetensors": {"size": 840_000_000, "sha256": "d" * 64}}
    assert f"{NAME}: google/draft at main is commit {'3' * 40}, 1 files" in changes
    assert parse(render(document), PATH) == document
    assert "      model.safetensors: {size: 840000000" in render(document).partition("draft:")[2]
    held = hold(drafting(), document, PATH)
    assert held["draft"]["revision"] == "3" * 40
    assert held["draft"]["path"] == f"/srv/models/{NAME}.draft/{'3' * 40}"
    assert held["lock"]["draft"]["fingerprint"] == fingerprint(locked_files(entry["draft"]["files"]))


def test_a_draft_model_that_moved_or_came_or_went_is_said(lock: dict[str, Any]) -> None:
    first = build([drafting_host()], None, keep=False)[0]
    (moved,) = build([drafting_host("4" * 40)], first, keep=False)[1]
    assert moved == f"{NAME}: google/draft has moved: {'3' * 40} → {'4' * 40}; no file differs"
    assert build([drafting_host()], lock, keep=False)[1] == [f"{NAME}: the draft model is google/draft, it was none"]
    assert build([host()], first, keep=False)[1] == [f"{NAME}: the draft model is none, it was google/draft"]


def test_a_draft_model_that_the_lock_does_not_have_is_refused(lock: dict[str, Any]) -> None:
    with pytest.raises(LockError, match="the repository of the draft model that is asked is google/draft, the lock has none"):
        hold(drafting(), lock, PATH)
    first = build([drafting_host()], None, keep=False)[0]
    with pytest.raises(LockError, match="the repository of the draft model that is asked is none, the lock has google/draft"):
        hold(recipe(), first, PATH)
    with pytest.raises(LockError, match="the revision of the draft model that is asked is v2, the lock has main"):
        hold(drafting(revision="v2"), first, PATH)


def test_boxes_that_use_another_draft_model_are_named() -> None:
    with pytest.raises(LockError, match="draft repository google/draft and google/other"):
        build([drafting_host(), quiet("spark-2", drafting(repo="google/other"))], None, keep=False)


def test_what_is_wrong_with_a_locked_draft_model_is_named() -> None:
    document = build([drafting_host()], None, keep=False)[0]
    document["recipes"][NAME]["draft"]["commit"] = "main"
    with pytest.raises(LockError, match=rf"recipes\.{NAME}\.draft\.commit is 'main'"):
        parse(render(document), PATH)
