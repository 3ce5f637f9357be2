# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-6"]
MODEL = "/srv/models/gemma4-26b-a4b-nvfp4/main"
DRAFT = "/srv/models/gemma4-26b-a4b-nvfp4.draft/main"


@pytest.mark.parametrize(
    ("directory", "repo", "some"),
    [
        (MODEL, "bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4", {"config.json", "gemma4_patched.py"}),
        (DRAFT, "dgx-spark/draft", {"config.json", "model.safetensors"}),
    ],
)
def test_the_snapshot_is_complete_and_verified(host: Host, directory: str, repo: str, some: set[str]) -> None:
    marker = json.loads(host.file(f"{directory}/.dgx-spark-snapshot.json").content_string)
    assert marker["repo"] == repo
    assert len(marker["commit"]) == 40
    files = {entry["path"]: entry for entry in marker["files"]}
    assert some <= set(files)
    for path, entry in files.items():
        assert host.file(f"{directory}/{path}").size == entry["size"]
        if entry["sha256"]:
            assert host.file(f"{directory}/{path}").sha256sum == entry["sha256"]


def test_git_would_give_the_small_files_the_same_hash(host: Host) -> None:
    marker = json.loads(host.file(f"{MODEL}/.dgx-spark-snapshot.json").content_string)
    entry = next(entry for entry in marker["files"] if entry["path"] == "config.json")
    path = f"{MODEL}/config.json"
    found = host.check_output(f"(printf 'blob %d\\0' {entry['size']}; cat {path}) | sha1sum")
    assert found.split()[0] == entry["git_sha1"]


def test_nothing_half_fetched_is_left(host: Host) -> None:
    assert host.run(f"find {MODEL}/ {DRAFT}/ -name '*.aria2' -o -name '*partial*'").stdout == ""
