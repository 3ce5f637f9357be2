# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils._recipe import SCHEMA, RecipeError, decode_limit_tok_s, load, paths

RECIPES = sorted((Path(__file__).parents[2] / "roles/recipe/vars").glob("*.yml"))
ARTICLE = yaml.safe_load((Path(__file__).parents[2] / "roles/recipe/vars/gemma4-26b-a4b-nvfp4.yml").read_text())


def article() -> dict[str, Any]:
    return copy.deepcopy(ARTICLE)


def ollama() -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((RECIPES[0].parent / "gemma4-26b-ollama.yml").read_text())
    return raw


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_named_after_its_file(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    recipe = load(raw, "/srv/models", raw.get("engine", "vllm"))
    assert recipe["name"] == path.stem
    # Ollama keeps its models itself.
    assert recipe["model"].get("path") == (f"/srv/models/{path.stem}/main" if recipe["engine"] == "vllm" else None)


def test_ollamas_side_of_the_comparison_is_the_articles() -> None:
    recipe = load(ollama(), "/srv/models", "ollama")
    assert (recipe["served_model_name"], recipe["model"]) == ("gemma4:26b", {"size_gb": 17, "quantization": "Q4_K_M"})


def test_a_recipe_for_ollama_is_not_deployed() -> None:
    with pytest.raises(RecipeError, match=r"^gemma4-26b-ollama: its engine is ollama, which .* and nothing deploys: choose one for vLLM"):
        load(ollama(), "/srv/models")


def test_a_recipe_for_vllm_is_no_other_side_of_a_comparison() -> None:
    with pytest.raises(RecipeError, match=r"^gemma4-26b-a4b-nvfp4: its engine is vllm, .* choose one with 'engine: ollama'"):
        load(article(), "/srv/models", "ollama")


def test_a_recipe_for_ollama_has_nothing_of_vllm() -> None:
    raw = ollama() | {"args": {"max-model-len": 1}}
    del raw["model"]["quantization"]
    with pytest.raises(RecipeError, match=r"args is not a key of a recipe; model\.quantization is missing"):
        load(raw, "/srv/models", "ollama")


@pytest.mark.parametrize("engine", ["vllm", "ollama"])
def test_an_unknown_engine_names_those_that_are_known(engine: str) -> None:
    with pytest.raises(RecipeError, match=r"engine must be one of vllm, ollama, it is 'olama' \(did you mean ollama\?\)"):
        load(article() | {"engine": "olama"}, "/srv/models", engine)


def test_the_default_recipe_is_the_article() -> None:
    recipe = load(article(), "/srv/models/")
    assert recipe["args"] == {
        "quantization": "modelopt",
        "kv-cache-dtype": "fp8",
        "max-model-len": 131072,
        "gpu-memory-utilization": 0.85,
        "moe-backend": "marlin",
        "reasoning-parser": "gemma4",
        "enable-auto-tool-choice": True,
        "tool-call-parser": "gemma4",  # the article's pythonic loses every tool call
    }
    assert recipe["image"]["name"] == "vllm/vllm-openai:gemma4-cu130"
    assert recipe["container"] == {
        "name": "gemma4-nvfp4",
        "port": 8002,
        "gpus": "all",
        "ipc": "host",
        "shm_size": "64gb",
        "memory_gib": None,
        "env": {},
    }
    workload = recipe["throughput"]
    assert workload["sequential"] == {"runs": 5, "tokens": 800}
    assert workload["long"] == {"tokens": 1633}
    assert workload["parallel"] == {"requests": 3, "tokens": 500}


def test_the_limit_of_the_article_is_83_tok_s() -> None:
    assert decode_limit_tok_s(load(article(), "/x")) == pytest.approx(83.2, abs=0.1)


def test_a_recipe_that_does_not_say_its_bytes_has_no_limit() -> None:
    raw = article()
    del raw["decode_bytes"]
    assert decode_limit_tok_s(load(raw, "/x")) is None


def test_a_misspelt_key_names_the_key_that_was_meant() -> None:
    raw = article()
    raw["model"]["revison"] = raw["model"].pop("revision")
    with pytest.raises(RecipeError, match=r"model\.revison is not a key of a recipe \(did you mean revision\?\)"):
        load(raw, "/x")


def test_all_problems_are_named_at_once() -> None:
    raw = article()
    raw["thrughput"] = raw.pop("throughput")
    del raw["image"]["name"]
    raw["container"]["port"] = "8002"
    raw["container"]["gpus"] = "al"
    with pytest.raises(RecipeError) as caught:
        load(raw, "/x")
    for text in (
        "did you mean throughput?",
        "image.name is missing",
        "container.port must be a whole number, it is '8002'",
        "did you mean all?",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--moe-backend", r"did you mean moe-backend\?"),
        ("moe_backend", r"did you mean moe-backend\?"),
        ("port", "set by the collection itself"),
        ("api-key", "set by the collection itself"),
    ],
)
def test_a_flag_that_is_not_vllms_own_name_is_refused(flag: str, text: str) -> None:
    raw = article()
    raw["args"][flag] = "x"
    with pytest.raises(RecipeError, match=text):
        load(raw, "/x")


def test_a_patch_without_its_vllm_versions_is_refused() -> None:
    raw = article()
    del raw["patches"][0]["vllm_versions"]
    with pytest.raises(RecipeError, match=r"patches\[0\]\.vllm_versions is missing"):
        load(raw, "/x")


@pytest.mark.parametrize(
    ("expect", "text"),
    [
        ({"moe_backed": "marlin"}, r"startup\.expect: moe_backed is nothing that can be expected \(did you mean moe_backend\?\)"),
        ({"kv_cache_tokens": {"min": 1}}, r"startup\.expect: kv_cache_tokens needs vllm_version"),
    ],
)
def test_expectations_that_no_log_can_meet_are_refused_before_anything_is_deployed(expect: dict[str, Any], text: str) -> None:
    raw = article()
    raw["startup"]["expect"] = expect
    with pytest.raises(RecipeError, match=text):
        load(raw, "/x")


def test_a_recipe_that_names_no_probes_asks_those_that_need_no_eyes() -> None:
    raw = article()
    assert "image" in load(raw, "/x")["probes"]
    del raw["probes"]
    assert "image" not in load(raw, "/x")["probes"]


def test_true_is_no_number() -> None:
    raw = article()
    raw["throughput"]["warmup"] = True
    with pytest.raises(RecipeError, match=r"throughput\.warmup must be a whole number"):
        load(raw, "/x")


def test_the_file_that_was_read_is_not_changed() -> None:
    raw = article()
    load(raw, "/x")
    assert raw == ARTICLE


def test_what_is_wanted_instead_counts_and_moves_the_directory() -> None:
    recipe = load(
        article(), "/srv/models", overrides={"model": {"revision": "v2", "repo": None}, "image": {"name": "x:1"}, "patches": None}
    )
    assert (recipe["model"]["revision"], recipe["model"]["repo"]) == ("v2", ARTICLE["model"]["repo"])
    assert recipe["model"]["path"] == "/srv/models/gemma4-26b-a4b-nvfp4/v2"
    assert recipe["image"]["name"] == "x:1"
    assert len(recipe["patches"]) == 1
    assert load(article(), "/srv/models", overrides={"patches": []})["patches"] == []


def test_what_is_wanted_instead_is_checked_like_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"model\.revison is not a key of a recipe"):
        load(article(), "/x", overrides={"model": {"revison": "v2"}})


# --- a draft model


def drafting(**changed: Any) -> dict[str, Any]:
    """The article with a draft model that something uses."""
    raw = article()
    raw["draft"] = {"repo": "google/draft", "size_gb": 0.9} | changed
    raw["args"]["speculative-config"] = {"method": "mtp", "num_speculative_tokens": 2}
    return raw


def test_a_draft_model_has_a_directory_of_its_own_that_no_revision_of_the_model_can_have() -> None:
    recipe = load(drafting(revision="v2"), "/srv/models")
    assert recipe["draft"]["path"] == "/srv/models/gemma4-26b-a4b-nvfp4.draft/v2"
    assert (recipe["draft"]["mount"], recipe["draft"]["files"]) == ("/models/draft", [])
    assert load(article(), "/srv/models")["draft"] is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: raw["args"].pop("speculative-config"), "draft needs args.speculative-config"),
        (
            lambda raw: raw["args"]["speculative-config"].update(model="a/b"),
            "args.speculative-config.model is set by the collection itself",
        ),
        (lambda raw: raw["args"].update({"speculative-config": '{"method": "mtp"}'}), "args.speculative-config must be a mapping"),
        (lambda raw: raw["draft"].update(mount="/models/gemma4"), "model.mount and draft.mount are both /models/gemma4"),
        (lambda raw: raw["draft"].update(mount="draft"), "draft.mount must be an absolute path, it is 'draft'"),
        (lambda raw: raw["draft"].pop("repo"), "draft.repo is missing"),
        (
            lambda raw: raw["draft"].update(quantization="BF16"),
            "draft.quantization is not a key of a recipe (did you mean model.quantization?)",
        ),
    ],
)
def test_a_draft_model_that_cannot_be_used_as_it_is_written_is_refused(spoil: Any, words: str) -> None:
    raw = drafting()
    spoil(raw)
    with pytest.raises(RecipeError) as caught:
        load(raw, "/x")
    assert words in str(caught.value)


def test_speculation_without_a_second_checkpoint_is_fine() -> None:
    raw = article()
    raw["args"]["speculative-config"] = {"method": "ngram", "num_speculative_tokens": 4}
    assert load(raw, "/x")["draft"] is None


# --- what else is found before anything is deployed


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: raw.update(repo="a/b"), "repo is not a key of a recipe (did you mean model.repo or draft.repo?)"),
        (lambda raw: raw["container"].update(timeout=9), "container.timeout is not a key of a recipe (did you mean startup.timeout?)"),
        (
            lambda raw: raw["throughput"].update(decode_tok_s_min=9),
            "throughput.decode_tok_s_min is not a key of a recipe (did you mean throughput.thresholds.decode_tok_s_min?)",
        ),
        (
            lambda raw: raw["throughput"]["thresholds"].update(decode_tok_min=9),
            "throughput.thresholds.decode_tok_min is not a key of a recipe (did you mean decode_tok_s_min?)",
        ),
        (
            lambda raw: raw["patches"][0].update(modul="x"),
            "patches[0].modul is not a key of a recipe (did you mean module?)",
        ),
        (lambda raw: raw["image"].update(vllm_versions="0.19 or so"), "image.vllm_versions: "),
        (lambda raw: raw["patches"][0].update(vllm_versions="~0.19"), "patches[0].vllm_versions: "),
        (lambda raw: raw["throughput"].pop("parallel"), "throughput.thresholds.aggregate_tok_s_min needs parallel"),
        (
            lambda raw: (raw["hardware"].update(bandwidth_gb_s=0), raw["throughput"]["thresholds"].update(roofline_share_min=0.6)),
            "throughput.thresholds.roofline_share_min needs roofline",
        ),
        (lambda raw: raw["model"].update(mount="models"), "model.mount must be an absolute path, it is 'models'"),
    ],
)
def test_what_would_fail_only_after_a_download_or_a_swap_is_refused_at_once(spoil: Any, words: str) -> None:
    raw = article()
    spoil(raw)
    with pytest.raises(RecipeError) as caught:
        load(raw, "/x")
    assert words in str(caught.value)


def test_a_key_of_a_recipe_for_vllm_is_not_suggested_for_one_for_ollama() -> None:
    with pytest.raises(RecipeError, match=r"repo is not a key of a recipe$"):
        load(ollama() | {"repo": "a/b"}, "/x", "ollama")


def test_every_key_has_a_path() -> None:
    found = paths(SCHEMA)
    assert len(found) == len(set(found))
    assert {"name", "model.repo", "draft.mount", "patches[].module", "throughput.thresholds.roofline_share_min"} <= set(found)
