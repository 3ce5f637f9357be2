# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""hf_snapshot_info as a user runs it: on the controller, against the lab's Hub. No box is reached, and no token is shown."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sim.hub import GATED, TOKEN, Hub

ROOT = Path(__file__).resolve().parents[2]
REPO, PATCH = "org/model", "gemma4_patched.py"
OLD, NEW = b"print(1)\n", b"print(2)\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for repo, patch in ((REPO, OLD), (GATED, OLD)):
        folder = tmp_path / "hub" / repo
        folder.mkdir(parents=True)
        (folder / PATCH).write_bytes(patch)
        (folder / "model.safetensors").write_bytes(b"weights")
    with Hub(tmp_path / "hub") as running:
        yield running


def info(tmp_path: Path, hub: Hub, *more: str, **options: Any) -> tuple[dict[str, Any], str]:
    """What the module returns, and all that was printed."""
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not re.search("(?i)proxy|^HF_|^ANSIBLE_", name)}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_LOCAL_TEMP": str(work), "ANSIBLE_NOCOLOR": "1"}
    arguments = json.dumps({"repo": REPO, "endpoint": hub.url, **options})
    command = [str(Path(sys.executable).with_name("ansible")), "all", "-i", "nowhere.invalid,", "-m", "dgx.spark.hf_snapshot_info"]
    done = subprocess.run(
        [*command, "-a", arguments, *more], capture_output=True, text=True, env=environment, cwd=work, timeout=60, check=False
    )
    output = done.stdout + done.stderr
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, output
    result: dict[str, Any] = json.loads(found[1])
    return result, output


def test_it_says_what_a_branch_stands_for_without_reaching_a_box(hub: Hub, tmp_path: Path) -> None:
    result, _output = info(tmp_path, hub, "--check", texts=[PATCH])
    assert (result["changed"], result["commit"], result["revision"]) == (False, hub.commit(REPO), "main")
    assert result["files"] == [
        {"path": PATCH, "size": 9, "sha256": None, "git_sha1": hashlib.sha1(b"blob 9\0" + OLD).hexdigest()},
        {"path": "model.safetensors", "size": 7, "sha256": hashlib.sha256(b"weights").hexdigest(), "git_sha1": None},
    ]
    assert result["texts"] == {PATCH: {"sha256": hashlib.sha256(OLD).hexdigest(), "text": OLD.decode()}}
    assert result["texts_since"] == {}


def test_texts_of_an_earlier_commit_are_read_as_long_as_the_hub_has_it(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "hub" / REPO
    earlier = hub.commit(REPO)
    shutil.copytree(folder, folder.with_name("model@v1"))
    (folder / PATCH).write_bytes(NEW)
    result, _output = info(tmp_path, hub, texts=[PATCH], since=earlier)
    assert (result["texts"][PATCH]["text"], result["texts_since"][PATCH]["text"]) == (NEW.decode(), OLD.decode())

    shutil.rmtree(folder.with_name("model@v1"))
    gone, _output = info(tmp_path, hub, texts=[PATCH], since=earlier)
    assert gone["texts_since"] == {PATCH: None}


def test_a_token_is_used_and_not_shown(hub: Hub, tmp_path: Path) -> None:
    _refused, output = info(tmp_path, hub, repo=GATED, texts=[PATCH])
    assert "is gated: accept the conditions" in " ".join(output.split())
    result, output = info(tmp_path, hub, "-vvv", repo=GATED, token=TOKEN, texts=[PATCH])
    assert result["texts"][PATCH]["text"] == OLD.decode()
    assert TOKEN not in output
