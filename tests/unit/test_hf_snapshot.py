# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The box's half of hf_snapshot by itself; playbooks run both halves in tests/integration."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, manifest_from
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Present, marker_text
from ansible_collections.dgx.spark.plugins.modules import hf_snapshot
from unit.run_module import run_module

REPO = "org/model"


def manifest(dest: Path) -> dict[str, Any]:
    file = {"path": "x.bin", "size": 10**18, "sha256": "a" * 64, "git_sha1": None}
    return {"repo": REPO, "revision": "main", "commit": "c" * 40, "files": [file], "dest": str(dest)}


def test_no_room_is_refused_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "dest"
    told: dict[str, Any] = {"manifest": manifest(dest), "addresses": json.dumps({"x.bin": {"url": "http://127.0.0.1:9/x"}})}
    result = run_module(hf_snapshot.main, capsys, repo=REPO, dest=str(dest), **told)
    assert result["failed"]
    assert re.search(rf"1000000000\.0 GB must still be fetched to {dest}, but only \S+ [GM]B are free on {tmp_path}", result["msg"])
    assert not dest.exists()


def test_without_aria2_the_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = manifest(tmp_path)
    told["files"][0]["size"] = 5
    addresses = json.dumps({"x.bin": {"url": "http://127.0.0.1:9/x"}})
    result = run_module(hf_snapshot.main, capsys, repo=REPO, dest=str(tmp_path / "d"), manifest=told, addresses=addresses)
    assert result["failed"]
    assert "aria2c is not installed on this box: install the package aria2 (apt install aria2)" in result["msg"]


def test_it_waits_for_a_run_that_an_interrupted_controller_left_and_has_nothing_to_do_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "d"
    dest.mkdir()
    told = manifest(dest)
    told["files"][0] |= {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    handle = os.open(dest, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)

    def meanwhile(seconds: float) -> None:
        """The other run ends while this one sleeps."""
        (dest / "x.bin").write_bytes(b"weights")
        present = {"x.bin": Present.of((dest / "x.bin").stat(), told["files"][0]["sha256"])}
        (dest / MARKER).write_text(marker_text(manifest_from(told), present))
        os.close(handle)

    monkeypatch.setattr(time, "sleep", meanwhile)
    progress = tmp_path / "progress"
    result = run_module(hf_snapshot.main, capsys, repo=REPO, dest=str(dest), manifest=told, progress_file=str(progress))
    assert "failed" not in result, result
    assert (result["changed"], "needed" in result) == (False, False)
    assert progress.read_text() == f"waiting for another run that fetches into {dest}, 0 bytes are there"


def test_by_itself_it_knows_only_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(hf_snapshot.main, capsys, repo=REPO, dest=str(tmp_path))
    assert result["failed"]
    assert f"org/model at main is not in {tmp_path} (there is no readable .dgx-spark-snapshot.json" in result["msg"]


def from_bundle(dest: Path) -> dict[str, Any]:
    """What the action half says of a bundle whose only file has this content."""
    told = manifest(dest)
    told["files"][0] |= {"size": 7, "sha256": hashlib.sha256(b"weights").hexdigest()}
    return {"repo": REPO, "dest": str(dest), "bundle": "/media/disk/bundle", "manifest": told}


def test_from_a_bundle_it_says_where_the_parts_go_and_puts_in_place_what_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "d"
    asked = run_module(hf_snapshot.main, capsys, check=True, **from_bundle(dest))
    assert (asked["needed"], "parts" in asked, dest.exists()) == (["x.bin"], False, False)

    part = Path(run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"]["x.bin"]["path"])
    part.write_bytes(b"wei")
    assert run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"] == {"x.bin": {"path": str(part), "have": 3}}
    part.write_bytes(b"weights")
    ready = run_module(hf_snapshot.main, capsys, **from_bundle(dest))
    assert (ready["needed"], ready["parts"]) == (["x.bin"], {})
    done = run_module(hf_snapshot.main, capsys, **from_bundle(dest), addresses='{"x.bin": {}}')
    assert (done["changed"], (dest / "x.bin").read_bytes(), part.exists()) == (True, b"weights", False)
    assert not run_module(hf_snapshot.main, capsys, **from_bundle(dest))["changed"]


def test_from_a_bundle_wrong_bytes_are_refused_and_brought_again_the_next_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "d"
    part = Path(run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"]["x.bin"]["path"])
    part.write_bytes(b"Weights")
    result = run_module(hf_snapshot.main, capsys, **from_bundle(dest), addresses='{"x.bin": {}}')
    assert result["failed"]
    assert "x.bin came wrong from the controller" in result["msg"]
    assert not (dest / "x.bin").exists()
    assert run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"]["x.bin"]["have"] == 0


def test_from_a_bundle_a_part_of_aria2_is_begun_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "d"
    part = Path(run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"]["x.bin"]["path"])
    part.write_bytes(b"we\0\0\0ts")  # it has the whole length, and holes
    Path(f"{part}.aria2").write_bytes(b"record")
    assert run_module(hf_snapshot.main, capsys, **from_bundle(dest))["parts"]["x.bin"]["have"] == 0
    assert not part.exists()


def test_from_a_bundle_what_a_neighbour_has_is_linked_and_not_brought(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neighbour, dest = tmp_path / "a", tmp_path / "b"
    neighbour.mkdir()
    (neighbour / "x.bin").write_bytes(b"weights")
    told = from_bundle(neighbour)
    done = run_module(hf_snapshot.main, capsys, **told)
    assert done["changed"]
    answer = run_module(hf_snapshot.main, capsys, **from_bundle(dest))
    assert (answer["needed"], answer["parts"]) == (["x.bin"], {})
    run_module(hf_snapshot.main, capsys, **from_bundle(dest), addresses='{"x.bin": {}}')
    assert (dest / "x.bin").stat().st_ino == (neighbour / "x.bin").stat().st_ino
