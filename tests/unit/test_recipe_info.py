# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""recipe_info as a user runs it: files of the controller, and no box is reached."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OURS = ROOT / "roles/recipe/vars"
ARTICLE = "gemma4-26b-a4b-nvfp4"


def look(work: Path, *more: str, **options: Any) -> dict[str, Any]:
    """What the module returns for a box that cannot be reached."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_LOCAL_TEMP": str(work), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible")), "all", "-i", "nowhere.invalid,", "-m", "dgx.spark.recipe_info"]
    asked = {"dirs": [str(work), str(OURS)], "models_root": "/srv/models", **options}
    done = subprocess.run(
        [*command, "-a", json.dumps(asked), *more], capture_output=True, text=True, env=environment, cwd=work, timeout=60, check=False
    )
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(found[1])
    return result


def article(**changes: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load((OURS / f"{ARTICLE}.yml").read_text()), **changes})


def test_a_recipe_is_found_and_completed_and_what_is_wanted_instead_counts(tmp_path: Path) -> None:
    result = look(tmp_path, "--check", name=ARTICLE, overrides={"image": {"name": "mine:1", "digest": None}})
    assert result["changed"] is False
    assert result["recipe"]["model"]["path"] == f"/srv/models/{ARTICLE}/main"
    assert (result["recipe"]["image"]["name"], result["recipe"]["lock"]) == ("mine:1", {})


def test_the_first_directory_counts_and_values_may_be_templates(tmp_path: Path) -> None:
    text = article(summary="served by {{ inventory_hostname }}")
    (tmp_path / f"{ARTICLE}.yml").write_text(text)
    assert look(tmp_path, name=ARTICLE)["recipe"]["summary"] == "served by nowhere.invalid"


def test_an_encrypted_recipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "mine.yml").write_text(article(name="mine"))
    vault = [str(Path(sys.executable).with_name("ansible-vault")), "encrypt", "--vault-password-file", "password", "mine.yml"]
    subprocess.run(vault, cwd=tmp_path, check=True, capture_output=True)
    assert look(tmp_path, "--vault-password-file", "password", name="mine")["recipe"]["name"] == "mine"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nobody", "", [f"There is no recipe called nobody. Known are {ARTICLE}, ", "mine; they were looked for in "]),
        ("mine", article(name="yours"), ["mine.yml calls itself yours: write 'name: mine' in it, or rename it."]),
        ("mine", article(name="mine", imgae={}), ["The recipe mine: imgae is not a key of a recipe (did you mean image?)"]),
        ("mine", "- a list\n", ["mine.yml is no recipe: it must be a mapping"]),
        ("mine", "a: [\n", ["mine.yml cannot be read", "YAML parsing failed"]),
    ],
)
def test_what_is_no_recipe_is_refused_with_the_cause(tmp_path: Path, name: str, content: str, words: list[str]) -> None:
    (tmp_path / "mine.yml").write_text(content)
    result = look(tmp_path, name=name)
    assert "recipe" not in result
    assert [word for word in words if word not in result["msg"]] == [], result["msg"]


def test_a_recipe_for_the_other_engine_is_refused(tmp_path: Path) -> None:
    assert look(tmp_path, name="gemma4-26b-ollama", engine="ollama")["recipe"]["name"] == "gemma4-26b-ollama"
    assert "its engine is ollama" in look(tmp_path, name="gemma4-26b-ollama")["msg"]


def test_a_lock_that_is_there_holds_the_recipe(tmp_path: Path) -> None:
    lock_file = tmp_path / "gemma4.lock.yml"
    assert look(tmp_path, name=ARTICLE, lock_file=str(lock_file))["recipe"]["lock"] == {}
    lock_file.write_text("no lock\n")
    result = look(tmp_path, name=ARTICLE, lock_file=str(lock_file))
    assert "recipe" not in result
    assert str(lock_file) in result["msg"]
