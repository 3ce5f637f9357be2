# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What may go from a box and what stays: the plan on made-up boxes, the directories on a real disk."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _leftovers
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import StoredImage, Use
from ansible_collections.dgx.spark.plugins.module_utils._fetch import remove_file
from ansible_collections.dgx.spark.plugins.module_utils._leftovers import Found, find_snapshots, make_plan, remove_snapshot
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, PARTIAL, Manifest, SnapshotError, make_file
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Present, marker_text

ROOT = "/srv/models"
REPOSITORY = "vllm/vllm-openai"
SERVES = Use("gemma4-nvfp4", "sha256:new", (f"{ROOT}/gemma4/v2", f"{ROOT}/gemma4/v2/gemma4_patched.py"))
BEFORE = Use("gemma4-nvfp4-previous", "sha256:old", (f"{ROOT}/gemma4/v1",))


def found(name: str, busy: bool = False) -> Found:
    return Found(f"{ROOT}/{name}", f"org/{name}", 16_500_000_000, busy)


def image(name: str, *names: str) -> StoredImage:
    return StoredImage(f"sha256:{name}", names, 20_000_000_000)


def removed(*snapshots: Found, uses: tuple[Use, ...] = (SERVES, BEFORE), model_dirs: tuple[str, ...] = ()) -> list[str]:
    return [item.name.removeprefix(f"{ROOT}/") for item in make_plan(snapshots, [], uses, model_dirs).remove]


def test_what_serves_and_what_a_rollback_needs_stays() -> None:
    plan = make_plan([found("gemma4/v2"), found("gemma4/v1"), found("gemma4/v0")], [], [SERVES, BEFORE])
    assert [item.name for item in plan.remove] == [f"{ROOT}/gemma4/v0"]
    assert [item.why for item in plan.keep] == ["container gemma4-nvfp4 uses it", "container gemma4-nvfp4-previous uses it"]
    shared = make_plan([found("gemma4/v1")], [], [BEFORE, Use("gemma4-nvfp4", "sha256:new", (f"{ROOT}/gemma4/v1",))])
    assert [item.why for item in shared.keep] == ["containers gemma4-nvfp4, gemma4-nvfp4-previous use it"]
    assert plan.size == 16_500_000_000
    assert plan.remove[0].line() == f"16.5 GB: snapshot {ROOT}/gemma4/v0 (org/gemma4/v0): nothing uses it"


@pytest.mark.parametrize("mount", [ROOT, "/srv", f"{ROOT}/a", f"{ROOT}/a/main", f"{ROOT}/a/main/config.json", "/"])
def test_a_mount_of_a_directory_above_it_or_of_one_of_its_files_keeps_a_snapshot(mount: str) -> None:
    assert removed(found("a/main"), uses=(Use("any", "sha256:x", (mount,)),)) == []


def test_a_mount_of_a_neighbour_with_a_longer_name_does_not() -> None:
    assert removed(found("a/main"), uses=(Use("any", "sha256:x", (f"{ROOT}/a/main2",)),)) == ["a/main"]


def test_what_is_asked_for_or_being_fetched_stays_without_a_container() -> None:
    assert removed(found("a"), found("b", busy=True), found("c"), uses=(), model_dirs=(f"{ROOT}/a",)) == ["c"]


def test_a_mount_by_a_link_keeps_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    uses = [Use("any", "sha256:x", (str(tmp_path / "link"),))]
    assert make_plan([Found(str(tmp_path / "real"), "x", 1)], [], uses).remove == ()


def test_of_the_images_only_ours_are_judged_and_those_in_use_or_asked_for_stay() -> None:
    images = [
        image("new", f"{REPOSITORY}:gemma4-cu130"),
        image("old", f"{REPOSITORY}@sha256:1"),
        image("asked", f"{REPOSITORY}:v9"),
        image("tagged", f"docker.io/{REPOSITORY}:gemma4", f"{REPOSITORY}@sha256:2"),
        image("nameless"),
        image("seen"),
        image("foreign", "postgres:17"),
        image("alike", f"{REPOSITORY}-extra:1"),
    ]
    plan = make_plan([], images, [SERVES, BEFORE], asked=["sha256:asked"], repositories=[REPOSITORY], looked_into=["sha256:seen"])
    assert [item.name for item in plan.remove] == ["sha256:tagged", "sha256:seen"]
    assert [item.name for item in plan.keep] == ["sha256:new", "sha256:old", "sha256:asked"]
    assert plan.keep[2].why == "it is asked for"


# ---------------------------------------------------------------------------- directories
def complete(path: Path, *names: str) -> Path:
    """A snapshot as hf_snapshot leaves it."""
    files = []
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"w" * 8192)
        files.append(make_file(name, 8192, "a" * 64, None))
    present = {file.path: Present(8192, 1, "a" * 64) for file in files}
    (path / MARKER).write_text(marker_text(Manifest("org/m", "main", "c" * 40, tuple(files)), present))
    return path


def started(path: Path) -> Path:
    """A download that did not end."""
    (path / PARTIAL).mkdir(parents=True)
    (path / PARTIAL / ("a" * 64)).write_bytes(b"w" * 4096)
    return path


def test_snapshots_and_parts_are_found_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    complete(tmp_path / "gemma4" / "main", "x.safetensors", "sub/y.json")
    started(tmp_path / "gemma4" / "refs" / "pr" / "1")
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "weights.gguf").write_bytes(b"x" * 9000)
    (tmp_path / "link").symlink_to(tmp_path / "gemma4")
    first, second = find_snapshots(str(tmp_path))
    assert (first.path, first.size, first.busy) == (str(tmp_path / "gemma4" / "main"), 2 * 8192, False)
    assert first.what == "org/m at main, commit cccccccccccc"
    assert (second.path, second.size, second.what) == (str(tmp_path / "gemma4" / "refs" / "pr" / "1"), 4096, "a download that did not end")
    assert find_snapshots(str(tmp_path / "none")) == []


def test_a_directory_that_a_run_fetches_into_is_busy_and_is_not_removed(tmp_path: Path) -> None:
    dest = started(tmp_path / "m")
    handle = os.open(dest, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert find_snapshots(str(tmp_path))[0].busy
        with pytest.raises(SnapshotError, match="another run is fetching"):
            remove_snapshot(str(dest), str(tmp_path))
    finally:
        os.close(handle)
    assert (dest / PARTIAL).exists()


def test_a_snapshot_goes_with_the_directories_that_it_leaves_empty(tmp_path: Path) -> None:
    complete(tmp_path / "gemma4" / "v1", "x.safetensors", "sub/y.json")
    complete(tmp_path / "gemma4" / "v2", "x.safetensors")
    remove_snapshot(str(tmp_path / "gemma4" / "v1"), str(tmp_path))
    assert [path.name for path in (tmp_path / "gemma4").iterdir()] == ["v2"]
    remove_snapshot(str(tmp_path / "gemma4" / "v2"), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_other_files_stay_where_they_are(tmp_path: Path) -> None:
    dest = complete(started(tmp_path / "m"), "x.safetensors")
    (dest / "notes.txt").write_text("mine")
    remove_snapshot(str(dest), str(tmp_path))
    assert [path.name for path in dest.iterdir()] == ["notes.txt"]
    assert find_snapshots(str(tmp_path)) == []


def test_a_removal_that_is_interrupted_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = complete(tmp_path / "m", "a.safetensors", "b.safetensors")
    real = remove_file

    def interrupted(path: str, name: str) -> None:
        if name.startswith("b"):
            raise OSError("killed")
        real(path, name)

    monkeypatch.setattr(_leftovers, "remove_file", interrupted)
    with pytest.raises(OSError, match="killed"):
        remove_snapshot(str(dest), str(tmp_path))
    monkeypatch.undo()
    (left,) = find_snapshots(str(tmp_path))
    assert left.size == 8192
    remove_snapshot(left.path, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
