# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a directory has of a snapshot, and the plan that follows. Nothing is fetched here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _snapshot
from ansible_collections.dgx.spark.plugins.module_utils._manifest import (
    MARKER,
    PARTIAL,
    Manifest,
    RepoFile,
    SnapshotError,
    check_path,
    make_file,
    manifest_from,
    require,
)
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import (
    Present,
    check_room,
    digests,
    inside,
    make_plan,
    marker_text,
    partial_path,
    problem,
    read_marker,
)

CONTENTS = MappingProxyType({"config.json": b'{"a": 1}\n', "model.safetensors": b"weights" * 1000, "sub/notes.txt": b"notes\n"})


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listed(path: str, content: bytes) -> RepoFile:
    """A file as the Hub lists it."""
    if path.endswith(".safetensors"):
        return make_file(path, len(content), hashlib.sha256(content).hexdigest(), None)
    return make_file(path, len(content), None, git_sha1(content))


def manifest(contents: Mapping[str, bytes] = CONTENTS, **changed: str) -> Manifest:
    texts = {"repo": "o/r", "revision": "main", "commit": "c" * 40} | changed
    return Manifest(**texts, files=tuple(listed(path, content) for path, content in contents.items()))


def write(dest: Path, contents: Mapping[str, bytes] = CONTENTS) -> None:
    for path, content in contents.items():
        (dest / path).parent.mkdir(parents=True, exist_ok=True)
        (dest / path).write_bytes(content)


def complete(dest: Path, of: Manifest | None = None) -> None:
    """Write a snapshot as a finished run leaves it."""
    write(dest)
    here = {}
    for path, content in CONTENTS.items():
        here[path] = Present.of((dest / path).stat(), hashlib.sha256(content).hexdigest())
    (dest / MARKER).write_text(marker_text(of or manifest(), here))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed."""
    seen: list[str] = []

    def spy(path: str, *options: Any) -> _snapshot.Digests:
        seen.append(os.path.basename(path))
        return digests(path, *options)

    monkeypatch.setattr(_snapshot, "digests", spy)
    return seen


def test_a_complete_snapshot_needs_nothing_and_is_not_read(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    plan = make_plan(str(tmp_path), manifest(), read_marker(str(tmp_path)))
    assert (plan.changed, plan.fetch, plan.remove, set(plan.keep)) == (False, (), (), set(CONTENTS))
    assert read == []


def test_an_empty_directory_needs_everything(tmp_path: Path) -> None:
    plan = make_plan(str(tmp_path / "none"), manifest(), None)
    assert plan.reasons == ("config.json is missing", "model.safetensors is missing", "sub/notes.txt is missing")
    assert (plan.size, plan.have) == (sum(map(len, CONTENTS.values())), 0)


def test_a_changed_file_is_found_by_its_time_and_judged_by_its_content(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"Weights" * 1000)
    plan = make_plan(str(tmp_path), manifest(), read_marker(str(tmp_path)))
    assert [file.path for file in plan.fetch] == ["model.safetensors"]
    assert "model.safetensors is not the file of main" in plan.reasons[0]
    assert read == ["model.safetensors"]


def test_a_file_that_was_only_touched_is_kept_and_the_marker_renewed(tmp_path: Path) -> None:
    complete(tmp_path)
    os.utime(tmp_path / "config.json", ns=(1, 1))
    plan = make_plan(str(tmp_path), manifest(), read_marker(str(tmp_path)))
    assert plan.fetch == ()
    assert plan.reasons == ("config.json is right, but the marker says so of another state of it",)


def test_a_copy_that_keeps_size_and_time_is_read_and_its_inode_remembered(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    weights = tmp_path / "model.safetensors"
    shutil.copy2(weights, tmp_path / "copy")
    os.replace(tmp_path / "copy", weights)
    marker = read_marker(str(tmp_path))
    assert problem(str(tmp_path), marker) == "model.safetensors was replaced after it had been verified"
    plan = make_plan(str(tmp_path), manifest(), marker)
    assert read == ["model.safetensors"]
    assert (plan.fetch, plan.reasons) == ((), ("model.safetensors is right, but the marker says so of another state of it",))
    assert plan.keep["model.safetensors"].inode == weights.stat().st_ino


def test_a_marker_without_inodes_still_counts(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    document = json.loads((tmp_path / MARKER).read_text())
    for entry in document["files"]:
        del entry["inode"]
    (tmp_path / MARKER).write_text(json.dumps(document))
    marker = read_marker(str(tmp_path))
    assert problem(str(tmp_path), marker) is None
    assert not make_plan(str(tmp_path), manifest(), marker).changed
    assert read == []


def test_full_verification_reads_all_and_finds_what_times_hide(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    before = (tmp_path / "config.json").stat()
    (tmp_path / "config.json").write_bytes(b'{"a": 2}\n')
    os.utime(tmp_path / "config.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    marker = read_marker(str(tmp_path))
    assert not make_plan(str(tmp_path), manifest(), marker).changed
    assert read == []
    assert [file.path for file in make_plan(str(tmp_path), manifest(), marker, full=True).fetch] == ["config.json"]
    assert sorted(read) == ["config.json", "model.safetensors", "notes.txt"]


def test_files_that_somebody_else_brought_are_read_and_kept(tmp_path: Path, read: list[str]) -> None:
    write(tmp_path)
    (tmp_path / "sub/notes.txt").write_bytes(b"wrong\n")
    plan = make_plan(str(tmp_path), manifest(), None)
    assert [file.path for file in plan.fetch] == ["sub/notes.txt"]
    assert plan.keep["model.safetensors"].sha256 == hashlib.sha256(CONTENTS["model.safetensors"]).hexdigest()
    # What a first plan has read, a second one does not read again.
    read.clear()
    again = make_plan(str(tmp_path), manifest(), None, verified=plan.keep)
    assert [file.path for file in again.fetch] == ["sub/notes.txt"]
    assert read == ["notes.txt"]


def test_only_the_markers_files_of_an_older_revision_go(tmp_path: Path) -> None:
    complete(tmp_path)
    (tmp_path / "mine.txt").write_text("the user's")
    newer = manifest({"config.json": CONTENTS["config.json"]}, commit="d" * 40)
    plan = make_plan(str(tmp_path), newer, read_marker(str(tmp_path)))
    assert plan.remove == ("model.safetensors", "sub/notes.txt")
    assert "the commit is " + "d" * 40 + ", it was " + "c" * 40 in plan.reasons


def test_the_same_commit_under_another_name_only_renews_the_marker(tmp_path: Path, read: list[str]) -> None:
    complete(tmp_path)
    plan = make_plan(str(tmp_path), manifest(revision="v1"), read_marker(str(tmp_path)))
    assert (plan.fetch, plan.reasons) == ((), ("the revision is v1, it was main",))
    assert read == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"repo":"o/r","revision":"m","commit":"c","files":[{"path":"../x"}]}'])
def test_a_marker_that_cannot_be_understood_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / MARKER).write_text(text)
    assert read_marker(str(tmp_path)) is None
    assert make_plan(str(tmp_path), manifest(), None).reasons == ("the files are right, but no marker says so yet",)


def test_the_marker_is_what_the_collection_agreed_on(tmp_path: Path) -> None:
    complete(tmp_path)
    document = json.loads((tmp_path / MARKER).read_text())
    assert {key: document[key] for key in ("schema", "repo", "revision", "commit")} == {
        "schema": 1,
        "repo": "o/r",
        "revision": "main",
        "commit": "c" * 40,
    }
    small, large = (next(entry for entry in document["files"] if entry["path"] == name) for name in ("config.json", "model.safetensors"))
    assert (large["git_sha1"], large["sha256"]) == (None, hashlib.sha256(CONTENTS["model.safetensors"]).hexdigest())
    # The Hub gives git's hash of a small file only; what was read here has its sha256 as well.
    assert small["git_sha1"] == git_sha1(CONTENTS["config.json"])
    assert small["sha256"] == hashlib.sha256(CONTENTS["config.json"]).hexdigest()
    assert small["mtime_ns"] == (tmp_path / "config.json").stat().st_mtime_ns


def test_a_problem_is_named_without_reading(tmp_path: Path, read: list[str]) -> None:
    assert "never completed" in str(problem(str(tmp_path), read_marker(str(tmp_path))))
    complete(tmp_path)
    assert problem(str(tmp_path), read_marker(str(tmp_path))) is None
    os.utime(tmp_path / "sub/notes.txt", ns=(1, 1))
    assert problem(str(tmp_path), read_marker(str(tmp_path))) == "sub/notes.txt was changed after it had been verified"
    os.truncate(tmp_path / "model.safetensors", 10)
    assert problem(str(tmp_path), read_marker(str(tmp_path))) == "model.safetensors is 10 bytes long instead of 7000"
    (tmp_path / "config.json").unlink()
    assert problem(str(tmp_path), read_marker(str(tmp_path))) == "config.json is missing"
    assert read == []


# ---------------------------------------------------------------------------- room
def part(dest: Path, path: str, count: int, record: bool = True) -> None:
    """A part that an earlier run left: C(count) bytes of it are on the disk, its length says nothing."""
    file = next(file for file in manifest().files if file.path == path)
    target = Path(partial_path(str(dest), file))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as stream:
        stream.write(b"w" * count)
        stream.truncate(file.size)
    if record:
        target.with_name(target.name + ".aria2").write_bytes(b"record")


def test_a_part_counts_with_what_the_disk_has_of_it(tmp_path: Path) -> None:
    contents = {"model.safetensors": bytes(10_000_000)}
    file = manifest(contents).files[0]
    target = Path(partial_path(str(tmp_path), file))
    target.parent.mkdir()
    with target.open("wb") as stream:
        stream.seek(9_000_000)
        stream.write(b"w" * 1_000_000)
        stream.flush()
        os.fsync(stream.fileno())
    target.with_name(target.name + ".aria2").touch()
    plan = make_plan(str(tmp_path), manifest(contents), None)
    assert 1_000_000 <= plan.have <= 1_010_000
    # Nobody knows what is written of a part without aria2's record, unless it is all of it.
    target.with_name(target.name + ".aria2").unlink()
    assert make_plan(str(tmp_path), manifest(contents), None).have == 10_000_000
    os.truncate(target, 9_999_999)
    assert make_plan(str(tmp_path), manifest(contents), None).have == 0


def test_no_room_is_said_with_need_and_free_and_path(tmp_path: Path) -> None:
    dest = tmp_path / "a" / "b"
    plan = make_plan(str(dest), manifest(), None)
    check_room(str(dest), plan, free=lambda path: plan.room)
    with pytest.raises(SnapshotError) as caught:
        check_room(str(dest), plan, free=lambda path: plan.room - 1)
    assert str(caught.value).startswith(f"7.0 kB must still be fetched to {dest}, but only 7.0 kB are free on {tmp_path}: make room")


def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    part(tmp_path, "model.safetensors", 7000, record=False)
    plan = make_plan(str(tmp_path), manifest(), None)
    assert plan.room == len(CONTENTS["config.json"]) + len(CONTENTS["sub/notes.txt"])
    # A part of another revision is removed first, so its room counts as free.
    stale = tmp_path / PARTIAL / ("f" * 64)
    stale.write_bytes(b"x" * 8192)
    check_room(str(tmp_path), plan, free=lambda path: 0)
    stale.unlink()
    with pytest.raises(SnapshotError, match="0 bytes are free"):
        check_room(str(tmp_path), plan, free=lambda path: 0)


# ---------------------------------------------------------------------------- what a repository may name
@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "", "a//b", ".", "a/..", "a\\b", "a\nb", "a\0b", None, 3, MARKER, f"{PARTIAL}/x", "tab\tname"],
)
def test_no_path_leaves_the_directory(path: Any) -> None:
    with pytest.raises(SnapshotError):
        check_path(path)


@pytest.mark.parametrize("path", ["a", "a/b.json", ".gitattributes", "..a", "a..", "with space.txt", "Übung.txt", "-n"])
def test_ordinary_paths_are_accepted(path: str) -> None:
    check_path(path)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest" / "sub").symlink_to("/etc")
    with pytest.raises(SnapshotError, match="sub in .*/dest is a link to /etc, outside of it"):
        inside(str(tmp_path / "dest"), "sub/passwd")
    # A link as the directory itself is the user's choice.
    (tmp_path / "link").symlink_to(tmp_path / "dest")
    assert inside(str(tmp_path / "link"), "x") == str(tmp_path / "dest" / "x")


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "a", "size": -1, "sha256": "a" * 64},
        {"path": "a", "size": "1", "sha256": "a" * 64},
        {"path": "a", "size": 1, "sha256": "A" * 64},
        {"path": "a", "size": 1, "sha256": "../x"},
        {"path": "a", "size": 1},
        {"path": "../a", "size": 1, "sha256": "a" * 64},
    ],
)
def test_a_manifest_is_checked(entry: dict[str, Any]) -> None:
    with pytest.raises(SnapshotError):
        manifest_from({"repo": "o/r", "revision": "main", "commit": "c", "files": [entry]})


def test_a_manifest_travels_as_json() -> None:
    assert manifest_from(json.loads(json.dumps(manifest().to_json()))) == manifest()


@pytest.mark.parametrize("document", [{}, {"files": []}, {"files": [3], "repo": "r", "revision": "m", "commit": "c"}, {"files": None}])
def test_what_is_no_manifest_is_said_to_be_none(document: dict[str, Any]) -> None:
    with pytest.raises(SnapshotError, match="no manifest"):
        manifest_from(document)


def test_patterns_must_match(tmp_path: Path) -> None:
    require(manifest().files, ["*.safetensors", "config.json", "sub/*.txt", "sub*"], "revision main")
    with pytest.raises(SnapshotError) as caught:
        require(manifest().files, ["gemma4_patched.py", "*.gguf", "config.json"], "revision main")
    assert str(caught.value).startswith("the repository has no gemma4_patched.py and no *.gguf at revision main")


def test_hashes_are_those_of_the_tools(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    found = digests(str(tmp_path / "x"))
    assert (found.sha256, found.git_sha1) == (hashlib.sha256(content).hexdigest(), git_sha1(content))
    assert digests(str(tmp_path / "x"), git=False).git_sha1 == ""
