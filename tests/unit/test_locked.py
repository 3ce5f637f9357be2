# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A snapshot held against a lock, and snapshots beside it that have the same bytes already: on real files, without a Hub."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._locked import fingerprint, require_locked
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, PARTIAL, SnapshotError, manifest_from
from ansible_collections.dgx.spark.plugins.module_utils._neighbours import count_in, find
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import make_plan, read_marker
from ansible_collections.dgx.spark.plugins.modules import hf_snapshot
from unit.run_module import run_module

REPO, COMMIT, OTHER = "org/model", "1" * 40, "2" * 40
FILES = {"model.safetensors": b"weights" * 1000, "config.json": b"{}\n", "sub/tokenizer.json": b"[1]\n"}


def entry(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def manifest(files: dict[str, bytes], commit: str = COMMIT, revision: str | None = None) -> dict[str, Any]:
    listed = [{"path": path, "git_sha1": None, **entry(content)} for path, content in files.items()]
    return {"repo": REPO, "revision": revision or commit, "commit": commit, "files": listed}


def lock(files: dict[str, bytes], commit: str = COMMIT) -> dict[str, Any]:
    return {"commit": commit, "files": {path: entry(content) for path, content in files.items()}}


# --- the comparison


def test_the_bytes_of_the_lock_are_accepted() -> None:
    require_locked(manifest_from(manifest(FILES)), lock(FILES), "https://mirror")


def test_another_commit_is_refused_with_both() -> None:
    with pytest.raises(SnapshotError, match=f"https://mirror has {REPO} at commit {OTHER}, the lock demands {COMMIT}"):
        require_locked(manifest_from(manifest(FILES, OTHER)), lock(FILES), "https://mirror")


def test_other_bytes_under_the_same_commit_are_refused_with_file_and_both_hashes() -> None:
    other = {**FILES, "config.json": b"{ }"}
    with pytest.raises(SnapshotError) as error:
        require_locked(manifest_from(manifest(other)), lock(FILES), "https://mirror")
    assert f"https://mirror has other bytes under commit {COMMIT} of {REPO} than the lock" in str(error.value)
    there, wanted = (entry(content)["sha256"] for content in (b"{ }", FILES["config.json"]))
    assert f"config.json is sha256 {there} (3 bytes) there, sha256 {wanted} (3 bytes) in the lock" in str(error.value)
    assert "take another endpoint (model_endpoint)" in str(error.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({**FILES, "new.py": b""}, "new.py is not in the lock"),
        ({path: FILES[path] for path in FILES if path != "config.json"}, "config.json is in the lock only"),
        ({f"{n}": b"x" for n in range(9)}, "0 is not in the lock; 1 is not in the lock; 2 is not in the lock and 9 more"),
    ],
)
def test_files_too_many_or_too_few_are_refused(files: dict[str, bytes], words: str) -> None:
    with pytest.raises(SnapshotError, match=words):
        require_locked(manifest_from(manifest(files)), lock(FILES), "https://mirror")


def test_a_fingerprint_is_of_paths_sizes_and_hashes_in_any_order() -> None:
    files = manifest_from(manifest(FILES)).files
    assert fingerprint(files) == fingerprint(reversed(files))
    assert fingerprint(files) != fingerprint(files[1:])
    assert fingerprint(files) != fingerprint(manifest_from(manifest({**FILES, "config.json": b"{ }"})).files)
    assert fingerprint(files) != fingerprint(manifest_from(manifest({path + "x": content for path, content in FILES.items()})).files)


# --- the module


@pytest.fixture
def beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A complete snapshot of the branch main."""
    dest = tmp_path / "main"
    for path, content in FILES.items():
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        (dest / path).write_bytes(content)
    made = run_module(hf_snapshot.main, capsys, repo=REPO, dest=str(dest), manifest=manifest(FILES, revision="main"))
    assert (made["changed"], made["reasons"]) == (True, ["the files are right, but no marker says so yet"])
    return dest


def fetch(capsys: pytest.CaptureFixture[str], dest: Path, files: dict[str, bytes], commit: str = COMMIT, **more: Any) -> dict[str, Any]:
    """The module with addresses that answer nothing: what it has, it has not from there."""
    addresses = json.dumps({path: {"url": "http://127.0.0.1:9/x"} for path in files})
    options = {"repo": REPO, "revision": commit, "dest": str(dest), "manifest": manifest(files, commit), "addresses": addresses}
    return run_module(hf_snapshot.main, capsys, **{**options, **more})


def test_the_same_commit_beside_it_is_linked_and_verified_and_nothing_is_fetched(
    beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / COMMIT
    would = fetch(capsys, dest, FILES, check=True)
    assert not dest.exists()
    made = fetch(capsys, dest, FILES)
    assert made["reasons"] == would["reasons"] == [f"{path} is missing; {beside / path} is the same and is linked" for path in FILES]
    assert (made["changed"], made["bytes_fetched"]) == (True, 0)
    assert all(os.path.samefile(dest / path, beside / path) for path in FILES)
    assert not (dest / PARTIAL).exists()
    again = fetch(capsys, dest, FILES)
    assert (again["changed"], again["reasons"]) == (False, [])
    # The old directory may go, and is none the worse meanwhile.
    assert read_marker(str(beside)) is not None
    assert not fetch(capsys, beside, FILES, manifest=manifest(FILES, revision="main"))["changed"]


def test_what_is_linked_needs_no_room(beside: Path, tmp_path: Path) -> None:
    asked = manifest_from(manifest({**FILES, "new.bin": b"x" * 7}))
    plan = make_plan(str(tmp_path / COMMIT), asked, None)
    found = find(str(tmp_path / COMMIT), plan.fetch)
    assert plan.room == asked.size
    assert count_in(str(tmp_path / COMMIT), plan, found).room == 7


def test_a_neighbour_that_was_changed_after_it_was_verified_is_not_linked(
    beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(beside / "model.safetensors", ns=(1, 1))
    would = fetch(capsys, tmp_path / COMMIT, FILES, check=True)
    assert would["reasons"][0] == "model.safetensors is missing"
    assert "is linked" in would["reasons"][1]


def test_a_neighbour_that_lies_about_its_bytes_is_found_out(beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = beside / "model.safetensors"
    seen = path.stat()
    path.write_bytes(b"W" * seen.st_size)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    made = fetch(capsys, tmp_path / COMMIT, FILES, timeout=1)
    assert made["failed"]  # it was to be fetched after all, and nobody answers
    assert not (tmp_path / COMMIT / "model.safetensors").exists()
    assert not (tmp_path / COMMIT / MARKER).exists()


def test_a_part_that_aria2_has_begun_is_replaced_by_the_link_and_not_continued_in_it(
    beside: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dest = tmp_path / COMMIT
    part = dest / PARTIAL / hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    part.parent.mkdir(parents=True)
    part.write_bytes(b"w")
    Path(f"{part}.aria2").write_bytes(b"")
    assert fetch(capsys, dest, FILES)["bytes_fetched"] == 0
    assert (dest / "model.safetensors").read_bytes() == FILES["model.safetensors"]


def test_the_module_refuses_what_the_lock_does_not_have_before_a_byte_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = fetch(capsys, tmp_path / COMMIT, {**FILES, "config.json": b"{ }"}, lock=lock(FILES), endpoint="https://mirror.example")
    assert result["failed"]
    assert "https://mirror.example has other bytes under commit" in result["msg"]
    assert not (tmp_path / COMMIT).exists()


def test_without_the_hub_a_box_holds_what_it_has_against_the_lock(beside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"repo": REPO, "revision": COMMIT, "dest": str(beside)}
    assert not run_module(hf_snapshot.main, capsys, **options, lock=lock(FILES)).get("failed")
    result = run_module(hf_snapshot.main, capsys, **options, lock=lock({**FILES, "config.json": b"{ }"}))
    assert f"{beside} has other bytes under commit {COMMIT}" in result["msg"]
