# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""docs/recipes.md: its example works, it names every recipe with the recipe's own numbers, and every key."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils import _preflight, _probes, _startup_expect
from ansible_collections.dgx.spark.plugins.module_utils._recipe import SCHEMA, RecipeError, decode_limit_tok_s, load, paths

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/recipes.md").read_text()
FLAT = " ".join(DOC.split())
RECIPES = sorted((ROOT / "roles/recipe/vars").glob("*.yml"))
FULL, BOUNDS, DRAFT = (yaml.safe_load(block) for block in re.findall(r"(?s)```yaml\n(.*?)```", DOC))
REFUSED_BELOW = yaml.safe_load((ROOT / "roles/preflight/defaults/main.yml").read_text())["preflight_decode_limit_tok_s_min"]


def example() -> dict[str, Any]:
    raw: dict[str, Any] = copy.deepcopy(FULL)
    return raw


def test_the_example_is_a_recipe_that_is_called_like_its_file() -> None:
    recipe = load(example(), "/srv/models")
    assert f"`inventories/mine/recipes/{recipe['name']}.yml`" in DOC
    assert f"-e recipe_name={recipe['name']}" in DOC
    limit = decode_limit_tok_s(recipe)
    assert limit is not None
    assert f"is {limit:.0f} tok/s" in FLAT
    assert limit > REFUSED_BELOW


def test_what_the_example_gets_in_the_end_is_a_recipe_too() -> None:
    recipe = load(example() | BOUNDS, "/srv/models")
    bounds, thresholds = recipe["startup"]["expect"]["model_memory_gib"], recipe["throughput"]["thresholds"]
    assert bounds["min"] < recipe["model"]["size_gb"] * 1e9 / 2**30 < bounds["max"]
    assert thresholds["decode_tok_s_min"] == pytest.approx(0.9 * 24.0)
    assert recipe["throughput"]["sequential"] == load(example(), "/x")["throughput"]["sequential"]


def test_the_draft_model_of_the_page_is_that_of_the_recipe() -> None:
    raw = yaml.safe_load((ROOT / "roles/recipe/vars/gemma4-26b-a4b-nvfp4-nvidia-mtp.yml").read_text())
    assert DRAFT["draft"].items() <= raw["draft"].items()
    assert DRAFT["args"]["speculative-config"] == raw["args"]["speculative-config"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_stands_in_the_table_with_its_own_numbers(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    recipe = load(raw, "/srv/models", raw.get("engine", "vllm"))
    (row,) = (line for line in DOC.splitlines() if line.startswith(f"| `{path.stem}` |"))
    size = recipe["model"]["size_gb"] + (recipe.get("draft") or {"size_gb": 0})["size_gb"]
    assert f"| {size:g} GB |" in row
    if recipe["engine"] == "ollama":
        assert recipe["served_model_name"] in row
        return
    assert f"| {recipe['image']['vllm_versions']} |" in row
    checkpoint = recipe["draft"] or recipe["model"]
    assert checkpoint["repo"] in row or path.stem == "gemma4-tiny-cpu"
    limit = decode_limit_tok_s(recipe)
    if limit:
        assert re.search(rf"\| {limit:.1f} (tok|steps)/s", row)
        assert ("refused" in row) == (limit < REFUSED_BELOW)
        thresholds = recipe["throughput"]["thresholds"]
        least = thresholds["decode_tok_s_min"]
        assert row.endswith(f"| {least:g} tok/s |" if least else f"| {thresholds['roofline_share_min']:g} of the limit |")


def test_every_key_is_explained() -> None:
    table = DOC[DOC.index("## Every key") :]
    assert [path for path in paths(SCHEMA) if f"`{path}`" not in table] == []
    assert [name for name in (*_startup_expect.KEYS, *_probes.NAMES) if f"`{name}`" not in table] == []


def test_defaults_are_the_schemas() -> None:
    table = DOC[DOC.index("## Every key") :]
    rows = re.findall(r"(?m)^\| `([a-z_]+)\.([a-z_]+)` \|.*\| (?:[A-Za-z/]+, )?`([^`…]+)` \|$", table)
    assert len(rows) > 10
    for section, key, default in rows:
        bare = example()
        bare.get(section, {}).pop(key, None)
        if section == "draft":
            bare |= {"draft": {"repo": "a/b", "size_gb": 1}, "args": {"speculative-config": {"method": "mtp"}}}
        filled = load(bare, "/srv/models")
        assert str(filled[section][key]).lower() == default, f"{section}.{key}"


def test_the_errors_that_the_page_shows_are_the_real_ones() -> None:
    raw = example()
    raw["model"]["revison"] = "main"
    raw["container"]["port"] = "8002"
    with pytest.raises(RecipeError) as caught:
        load(raw, "/srv/models")
    assert f"The recipe {caught.value}" in FLAT
    dense = load(yaml.safe_load((ROOT / "roles/recipe/vars/gemma4-31b-bf16.yml").read_text()), "/srv/models")
    (refusal,) = _preflight._arithmetic(dense, {"decode_limit_tok_s_min": REFUSED_BELOW})
    assert refusal in FLAT
