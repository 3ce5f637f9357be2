# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a box that failed says of it: playbooks/tasks/failed.yml behind tasks that fail, each in its own way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNTOUCHED = "Nothing that serves was touched."


def why(tmp_path: Path, task: dict[str, Any]) -> str:
    """The reason and the effect that the report gets when this task has failed."""
    kept = {"dest": f"{tmp_path}/why.json", "content": "{{ [rollout_why, rollout_effect] | to_json }}"}
    rescue = [
        {"ansible.builtin.include_tasks": str(ROOT / "playbooks/tasks/failed.yml"), "vars": {"failed_effect": UNTOUCHED}},
        {"ansible.builtin.assert": {"that": "groups.spark_stop == ['localhost']"}},
        {"ansible.builtin.copy": kept},
    ]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"block": [{"name": "Bring the image", **task}], "rescue": rescue}]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(tmp_path / "play.yml"), "-i", "localhost,", "-c", "local"]
    environment = os.environ | {"NO_COLOR": "1", "ANSIBLE_HOME": str(tmp_path)}
    variables = json.dumps({"ansible_python_interpreter": sys.executable})
    done = subprocess.run([*command, "-e", variables], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(filter(None, json.loads((tmp_path / "why.json").read_text())))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"ansible.builtin.fail": {"msg": "The disk is full"}}, f"The disk is full. {UNTOUCHED}"),
        ({"ansible.builtin.fail": {"msg": "Is the disk full?\n"}}, f"Is the disk full? {UNTOUCHED}"),
        ({"ansible.builtin.fail": {"msg": f"The disk is full. {UNTOUCHED}"}}, f"The disk is full. {UNTOUCHED}"),
    ],
)
def test_what_failed_is_said_once_and_in_sentences(tmp_path: Path, task: dict[str, Any], expected: str) -> None:
    assert why(tmp_path, task) == expected


def test_what_nobody_has_foreseen_names_its_task(tmp_path: Path) -> None:
    said = why(tmp_path, {"ansible.builtin.set_fact": {"image": "{{ '{' | from_json }}"}})
    assert said.startswith("Bring the image: ")
    assert "Task failed" not in said
    assert said.endswith(UNTOUCHED)
