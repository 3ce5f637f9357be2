# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""run_record as a user runs it: files on the controller, and no box is reached."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def record(work: Path, *more: str, **options: Any) -> dict[str, Any]:
    """What the module returns for a box that cannot be reached."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_LOCAL_TEMP": str(work), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible")), "all", "-i", "nowhere.invalid,", "-m", "dgx.spark.run_record"]
    done = subprocess.run(
        [*command, "-a", json.dumps(options), *more], capture_output=True, text=True, env=environment, cwd=work, timeout=60, check=False
    )
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(found[1])
    return result


def test_text_is_kept_as_it_is_and_all_else_as_json_in_a_directory_that_it_makes(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "run"
    result = record(tmp_path, dir=str(folder), files={"index.html": "<p>ü</p>", "boxes.json": [{"b": 1, "a": "ü"}]})
    assert result["changed"] is False
    assert result["paths"] == [str(folder / "index.html"), str(folder / "boxes.json")]
    assert (folder / "index.html").read_text() == "<p>ü</p>"
    assert (folder / "boxes.json").read_text() == '[\n    {\n        "a": "ü",\n        "b": 1\n    }\n]\n'
    assert (folder / "index.html").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in folder.iterdir()) == ["boxes.json", "index.html"]


def test_check_mode_writes_nothing_and_says_what_it_would(tmp_path: Path) -> None:
    folder = tmp_path / "reports"
    result = record(tmp_path, "--check", dir=str(folder), files={"a.json": {}})
    assert result["paths"] == [str(folder / "a.json")]
    assert not folder.exists()


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    for content in ("a long old text", "new"):
        record(tmp_path, dir=str(tmp_path), files={"a.txt": content})
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    result = record(tmp_path, dir=str(tmp_path / "in"), files={"../out.txt": "x"})
    assert "'../out.txt' is no plain name of a file" in result["msg"]
    assert not (tmp_path / "out.txt").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = record(tmp_path, dir=str(tmp_path / "file" / "in"), files={"a": "x"})
    assert "Cannot keep the record of this run on the controller" in result["msg"]
    assert str(tmp_path / "file") in result["msg"]


def test_an_option_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "missing required arguments: files" in record(tmp_path, dir=str(tmp_path))["msg"]
