# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a user may write wrong: refused with cause and remedy, and before anything that serves is touched where that can be known."""

from __future__ import annotations

from pathlib import Path

import yaml
from faults.box import ROOT, Served

ARTICLE = ROOT / "roles/recipe/vars/gemma4-26b-a4b-nvfp4.yml"


def test_an_unknown_recipe(served: Served) -> None:
    run = served.box.play(recipe_name="gemma4-26b")
    assert run.rc != 0
    run.says("There is no recipe called gemma4-26b.", "Known are gemma4-26b-a4b-nvfp4, gemma4-26b-a4b-nvfp4-nvidia, ")
    served.still_serves()


def test_a_recipe_for_ollama_is_not_deployed(served: Served) -> None:
    run = served.box.play(recipe_name="gemma4-26b-ollama")
    assert run.rc != 0
    run.says("The recipe gemma4-26b-ollama: its engine is ollama", "choose one for vLLM")
    served.still_serves()


def test_a_misspelt_key_of_a_recipe(served: Served, tmp_path: Path) -> None:
    recipe = yaml.safe_load(ARTICLE.read_text())
    recipe["name"] = "mine"
    recipe["model"]["revison"] = recipe["model"].pop("revision")
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(recipe))
    run = served.box.play(recipe_name="mine", recipe_dirs=[str(tmp_path)])
    assert run.rc != 0
    run.says("model.revison is not a key of a recipe (did you mean revision?)")
    served.still_serves()


def test_a_misspelt_flag(served: Served) -> None:
    run = served.box.play(vllm_extra_args={"moe-backnd": "marlin"})
    assert run.rc != 0
    run.says("unrecognized arguments: --moe-backnd", "What served before was restored and answers again.")
    served.serves_again()


def test_a_wrong_tag_is_refused_before_anything_stops(served: Served) -> None:
    run = served.box.play(vllm_image="vllm/vllm-openai:gemma4")
    assert run.rc != 0
    run.says("0.18.2", ">=0.19.0,<0.20")
    served.still_serves()


def test_a_patch_for_another_vllm_is_refused_before_anything_stops(served: Served) -> None:
    run = served.box.play(vllm_image="vllm/vllm-openai:v0.20.2", vllm_versions="")
    assert run.rc != 0
    run.says("gemma4_patched.py", "0.20.2")
    served.still_serves()


def test_a_patch_that_is_not_there(served: Served) -> None:
    patch = {"file": "nowhere.py", "module": "vllm.model_executor.models.gemma4", "vllm_versions": ">=0.19,<0.20", "sha256": None}
    run = served.box.play(vllm_patches=[patch])
    assert run.rc != 0
    run.says("nowhere.py")
    served.still_serves()


def test_a_dense_model_is_refused_with_the_arithmetic(served: Served) -> None:
    run = served.box.play(recipe_name="gemma4-31b-nvfp4", preflight_disk_gb=0)
    assert run.rc != 0
    run.says("31.7 GB / 273 GB/s = 116 ms", "preflight_force: true")
    served.still_serves()
