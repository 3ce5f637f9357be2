# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module on this machine: it is no Spark, and everything that it lacks is a fact."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.modules.spark_info import disk, look, model

FREE_PORT = 1  # nothing listens on tcpmux


def params(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    base = {
        "container": "",
        "model_dir": str(tmp_path / "srv/models/x"),
        "evidence_dir": str(tmp_path),
        "ollama_url": f"http://127.0.0.1:{FREE_PORT}",
        "ports": [FREE_PORT],
    }
    return base | changed


def snapshot(directory: Path) -> Path:
    directory.mkdir(parents=True)
    weights = directory / "model.safetensors"
    weights.write_bytes(b"x" * 10)
    stat = weights.stat()
    entry = {"path": weights.name, "size": 10, "sha256": "a" * 64, "git_sha1": None, "mtime_ns": stat.st_mtime_ns}
    marker = {"schema": 1, "repo": "a/b", "revision": "main", "commit": "f" * 40, "files": [entry]}
    (directory / ".dgx-spark-snapshot.json").write_text(json.dumps(marker))
    return weights


def test_what_is_absent_is_a_fact(tmp_path: Path) -> None:
    found = look(params(tmp_path))
    assert found["model"] is None
    assert found["evidence"] is None
    assert found["ollama"]["running"] is False
    assert found["ports"] == {str(FREE_PORT): None}
    assert found["memory"]["total_gib"] > 0


def test_evidence_that_is_no_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{half")
    assert look(params(tmp_path, container="c"))["evidence"] is None
    (tmp_path / "c.json").write_text('{"verdict": "proven"}')
    assert look(params(tmp_path, container="c"))["evidence"] == {"verdict": "proven"}


def test_the_disk_is_that_of_the_nearest_parent_that_exists(tmp_path: Path) -> None:
    assert disk(str(tmp_path / "a/b/c"))["path"] == str(tmp_path)


def test_weights_as_they_were_verified_are_complete(tmp_path: Path) -> None:
    snapshot(tmp_path / "m")
    found = model(str(tmp_path / "m"))
    assert found is not None
    assert (found["complete"], found["problem"], found["bytes"], found["commit"]) == (True, None, 10, "f" * 40)


def test_weights_that_were_cut_or_touched_or_lost_are_not(tmp_path: Path) -> None:
    weights = snapshot(tmp_path / "m")
    os.utime(weights, ns=(1, 1))
    assert "was changed after it had been verified" in str((model(str(tmp_path / "m")) or {})["problem"])
    weights.write_bytes(b"x")
    assert "is 1 bytes long instead of 10" in str((model(str(tmp_path / "m")) or {})["problem"])
    weights.unlink()
    assert "is missing" in str((model(str(tmp_path / "m")) or {})["problem"])
