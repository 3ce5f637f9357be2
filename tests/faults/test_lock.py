# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lock on a real way through registry and Hub: written, held to, and what happens when upstream moves or a mirror lies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.box import ROOT, Box, Run, Served
from faults.test_way_back import changed
from sim import repos
from sim.hub import TOKEN, Snapshot
from sim.hub import Hub as OtherHub
from sim.names import HUB_REPOS, PUSH_TO, REGISTRY_STORAGE

NAME, REPO, PATCH = "lock-test", "lock/moving", "gemma4_patched.py"
TAG = "lock-test"
IMAGE = f"vllm/vllm-openai:{TAG}"
FIRST, SECOND = "vllm/vllm-openai:gemma4-cu130", "vllm/vllm-openai:v0.19.1"
MODELS = f"/srv/models/{NAME}"


class Upstream:
    """A tag and a repository of our own in the lab's registry and Hub, which can move; and a lock of them."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self.lock_file = folder / "gemma4.lock.yml"
        self.repo = HUB_REPOS / REPO
        recipe = yaml.safe_load((ROOT / "roles/recipe/vars/gemma4-26b-a4b-nvfp4.yml").read_text())
        recipe["name"], recipe["model"]["repo"], recipe["image"]["name"] = NAME, REPO, IMAGE
        (folder / f"{NAME}.yml").write_text(yaml.safe_dump(recipe))
        self.variables: dict[str, Any] = {"recipe_name": NAME, "recipe_dirs": [str(folder)], "lock_file": str(self.lock_file)}
        self.push(FIRST)
        repos.write(self.repo, repos.article())

    def play(self, playbook: str = "gemma4", arguments: Sequence[str] = (), **variables: Any) -> Run:
        return self.box.play(playbook, arguments=arguments, **{**self.variables, **variables})

    def push(self, image: str) -> None:
        name = f"{PUSH_TO}/{IMAGE}"
        for command in (["tag", image, name], ["push", "-q", name], ["rmi", name]):
            subprocess.run(["docker", *command], check=True, capture_output=True)

    def digest(self) -> str:
        """What the registry itself says of the tag."""
        kinds = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
        request = urllib.request.Request(f"http://{PUSH_TO}/v2/vllm/vllm-openai/manifests/{TAG}", headers={"Accept": kinds})
        with urllib.request.urlopen(request, timeout=5) as response:
            return str(response.headers["Docker-Content-Digest"])

    def commit(self) -> str:
        with urllib.request.urlopen(f"http://172.30.99.3:8080/api/models/{REPO}", timeout=5) as response:
            return str(json.load(response)["sha"])

    def patch(self, text: str) -> None:
        """Push another patch. The commit before stays on the Hub, as on the real one."""
        shutil.copytree(self.repo, self.repo.with_name(f"{self.repo.name}@before"), dirs_exist_ok=True)
        (self.repo / PATCH).write_text(text)

    def served_digests(self) -> list[str]:
        """Those of the image that the container runs from, whatever it is called on the box."""
        image = self.box.container()["Image"]
        found = json.loads(self.box.sh(f"docker image inspect -f '{{{{json .RepoDigests}}}}' {image}"))
        return sorted({name.partition("@")[2] for name in found})

    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.lock_file.read_text())["recipes"][NAME]
        return found

    def remove(self) -> None:
        self.box.sh(f"rm -rf {MODELS}")
        for path in self.repo.parent.glob("*"):
            shutil.rmtree(path)
        self.repo.parent.rmdir()
        shutil.rmtree(REGISTRY_STORAGE / "docker/registry/v2/repositories/vllm/vllm-openai/_manifests/tags" / TAG)


@pytest.fixture
def upstream(served: Served, tmp_path: Path) -> Iterator[Upstream]:
    """What is named by the recipe lies upstream; the box serves something else."""
    made = Upstream(served.box, tmp_path)
    yield made
    made.remove()


@pytest.fixture
def locked(upstream: Upstream) -> Upstream:
    run = upstream.play("lock")
    assert run.rc == 0, run.why
    return upstream


def test_a_lock_is_written_once_and_holds_no_secret(served: Served, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    check = upstream.play("lock", arguments=["--check", "--diff"])
    assert check.rc == 0, check.why
    # These bytes are on the box already, under another tag; so their vLLM is known without a pull.
    check.says(f"{IMAGE} is {upstream.digest()}, with vLLM 0.19.1.dev6+g6d4a8e6d2", upstream.commit())
    assert not upstream.lock_file.exists()

    first = upstream.play("lock", arguments=["-vvv"])
    assert first.rc == 0, first.why
    entry = upstream.entry()
    assert entry["image"] == {"name": IMAGE, "digest": upstream.digest(), "vllm_version": "0.19.1.dev6+g6d4a8e6d2"}
    assert entry["model"]["commit"] == upstream.commit()
    assert entry["patches"] == {PATCH: hashlib.sha256(repos.PATCH.encode()).hexdigest()}
    files = repos.article()
    assert {path: file["size"] for path, file in entry["model"]["files"].items()} == {path: len(data) for path, data in files.items()}
    weights = "model-00001-of-00002.safetensors"
    assert entry["model"]["files"][weights]["sha256"] == hashlib.sha256(files[weights]).hexdigest()

    text = upstream.lock_file.read_text()
    again = upstream.play("lock")
    assert (again.rc, changed(again), upstream.lock_file.read_text()) == (0, 0, text)
    again.says("Nothing: what is locked is what the registry and the Hub have.")
    assert TOKEN not in text + check.output + first.output + again.output
    served.still_serves()


@pytest.mark.long
def test_a_box_takes_up_a_lock_without_fetching_its_weights_again(upstream: Upstream) -> None:
    box = upstream.box
    unlocked = upstream.play()
    assert unlocked.rc == 0, unlocked.why
    unlocked.says(f"at commit {upstream.commit()}", f"{IMAGE} is {upstream.digest()}", "playbooks/lock.yml writes down these bytes")
    assert upstream.play("lock").rc == 0

    requests = urllib.request.Request("http://172.30.99.3:8080/_sim/requests", method="DELETE")
    urllib.request.urlopen(requests, timeout=5).close()
    taken = upstream.play()
    assert taken.rc == 0, taken.why
    taken.says(f"linked from {MODELS}/main")
    with urllib.request.urlopen("http://172.30.99.3:8080/_sim/requests", timeout=5) as response:
        assert [entry["path"] for entry in json.load(response) if entry["method"] == "GET" and "/api/" not in entry["path"]] == []
    spec = json.loads(box.container()["Config"]["Labels"]["dgx.spark.spec"])
    assert (spec["model"]["path"], spec["model"]["commit"]) == (f"{MODELS}/{upstream.commit()}", upstream.commit())
    assert box.sh(f"find {MODELS} -name '*.safetensors' -links 2 | wc -l") == "4"
    assert upstream.served_digests() == [upstream.digest()]

    again = upstream.play()
    assert (again.rc, changed(again)) == (0, 0), again.why
    again.says("current, nothing to do")


def test_what_moved_upstream_is_told_and_the_lock_still_brings_the_old_bytes(locked: Upstream) -> None:
    box, text, old = locked.box, locked.lock_file.read_text(), locked.entry()
    locked.push(SECOND)
    locked.patch(repos.PATCH.replace('"input_scale"', '"input_scale_2"'))
    assert locked.digest() != old["image"]["digest"]
    assert locked.commit() != old["model"]["commit"]

    news = locked.play("lock", arguments=["--check", "--diff"])
    assert news.rc == 0, news.why
    news.says(
        f"{IMAGE}: the tag was pushed again: {old['image']['digest']} → {locked.digest()}",
        "vLLM in it: 0.19.1.dev6+g6d4a8e6d2 → not known until lock.yml runs without --check",
        f"{REPO} has moved: {old['model']['commit']} → {locked.commit()}; {PATCH} differs",
        f"the patch {PATCH} differs: sha256 {old['patches'][PATCH]} → ",
        f"--- a/{PATCH} (locked)",
        '-SUFFIXES = ("weight", "weight_scale", "weight_scale_2", "input_scale")',
        '+SUFFIXES = ("weight", "weight_scale", "weight_scale_2", "input_scale_2")',
    )
    assert locked.lock_file.read_text() == text

    run = locked.play()
    assert run.rc == 0, run.why
    assert box.sh(f"sha256sum < {MODELS}/{old['model']['commit']}/{PATCH}").split()[0] == old["patches"][PATCH]
    assert locked.served_digests() == [old["image"]["digest"]]

    renewed = locked.play("lock", arguments=["--diff"])
    assert (renewed.rc, locked.entry()["image"]["vllm_version"]) == (0, "0.19.1"), renewed.why
    new = locked.play()
    assert new.rc == 0, new.why
    assert json.loads(box.container()["Config"]["Labels"]["dgx.spark.spec"])["model"]["commit"] == locked.commit()
    # Only what differs was fetched.
    assert box.sh(f"find {MODELS} -name '*.safetensors' -links 2 | wc -l") == "4"


def test_a_digest_that_the_registry_does_not_give_is_named_beside_the_one_it_has(served: Served, locked: Upstream) -> None:
    gone = "sha256:" + "0" * 64
    locked.lock_file.write_text(locked.lock_file.read_text().replace(locked.digest(), gone))
    run = locked.play()
    assert run.rc != 0
    run.says(f"{IMAGE}@{gone} was not pulled", f"Under {IMAGE} the registry has {locked.digest()} now")
    served.still_serves()


@pytest.mark.long
def test_a_mirror_with_other_bytes_under_the_same_commit_is_refused(served: Served, locked: Upstream, tmp_path: Path) -> None:
    evil = tmp_path / "mirror" / REPO
    shutil.copytree(locked.repo, evil)
    weights = "model-00002-of-00002.safetensors"
    (evil / weights).write_bytes(b"other weights")
    commit = locked.entry()["model"]["commit"]
    with OtherHub(tmp_path / "mirror") as mirror:
        honest = mirror.state.store.snapshots

        def lie(repo: str) -> list[Snapshot]:
            return [dataclasses.replace(snapshot, commit=commit) for snapshot in honest(repo)]

        mirror.state.store.snapshots = lie  # type: ignore[method-assign]
        run = locked.play(model_endpoint=mirror.url)
    assert run.rc != 0
    there, wanted = (hashlib.sha256((folder / weights).read_bytes()).hexdigest() for folder in (evil, locked.repo))
    run.says(f"{weights} is sha256 {there} (13 bytes) there, sha256 {wanted}", "take another endpoint (model_endpoint)")
    assert served.box.sh(f"find {MODELS} -name '*.safetensors' 2>/dev/null || true") == ""
    served.still_serves()


def test_a_lock_for_something_else_is_refused_with_both_names(served: Served, locked: Upstream) -> None:
    other = locked.play(vllm_image=SECOND)
    assert other.rc != 0
    other.says(f"the image that is asked is {SECOND}, the lock has {IMAGE}", "renew the lock with playbooks/lock.yml")
    lacks = served.box.play(lock_file=str(locked.lock_file))
    assert lacks.rc != 0
    lacks.says(f"{locked.lock_file} has no recipe gemma4-26b-a4b-nvfp4 (it has: {NAME})")
    toolkit = locked.play(container_toolkit_version="1.18.1")
    assert toolkit.rc != 0
    toolkit.says(f"{locked.lock_file} was not written for this: the container_toolkit_version that is asked is 1.18.1, the lock has 1.19.0")
    served.still_serves()


@pytest.mark.long
def test_what_is_restored_is_proven_although_the_lock_does_not_have_its_recipe(served: Served, locked: Upstream) -> None:
    run = locked.play(vllm_env={"SIM_SCENARIO": "cutlass-moe"})
    assert run.rc != 0
    run.says("VLLM_CUTLASS", "What served before was restored and answers again.")
    served.serves_again()
