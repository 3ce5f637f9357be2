# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The numbers of the recipes that come with the collection: each has its source, and they agree with each other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils._recipe import decode_limit_tok_s, load
from ansible_collections.dgx.spark.plugins.module_utils._versions import satisfies

VARS = Path(__file__).parents[2] / "roles/recipe/vars"
DEPLOYED = [path for path in sorted(VARS.glob("*.yml")) if "engine: ollama" not in path.read_text()]
SPARK = [path for path in DEPLOYED if path.stem != "gemma4-tiny-cpu"]
# These name one source for all of their numbers at the top, instead of one beside each.
ONE_SOURCE = ("gemma4-26b-a4b-nvfp4", "gemma4-26b-ollama", "gemma4-tiny-cpu")
TAGGED = [path for path in SPARK if path.stem not in ONE_SOURCE]
# What is a fact about the world. The rest (timeouts, lengths of answers, ports) is a choice.
FACTS = re.compile(r"\b(size_gb|memory_gib|bandwidth_gb_s|\w+_memory_gib|num_speculative_tokens|\w+_min|\w+_max|weights_gb|kv_gb): ")
TAG = re.compile(r"\[([a-z]+)\]")


def recipe(path: Path) -> dict[str, Any]:
    return load(yaml.safe_load(path.read_text()), "/srv/models")


def head(text: str) -> str:
    """The comment at the top."""
    return text[: text.index("\nname: ")]


def by_name(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


@by_name(sorted(VARS.glob("*.yml")))
def test_every_recipe_says_at_its_top_where_its_numbers_are_from(path: Path) -> None:
    about = head(path.read_text())
    assert "http" in about or path.stem == "gemma4-tiny-cpu"
    tags = set(re.findall(r"(?m)^# \[([a-z]+)\]", about))
    assert bool(tags) == (path.stem not in ONE_SOURCE)


@by_name(TAGGED)
def test_every_number_that_is_a_fact_has_a_source_beside_it(path: Path) -> None:
    text = path.read_text()
    sources = set(re.findall(r"(?m)^# \[([a-z]+)\]", head(text)))
    lines = text[len(head(text)) :].splitlines()
    comment = ""  # the lines of comment above, and above the mapping that a fact is in
    for line in lines:
        content, mark, beside = line.partition("# ")
        assert set(TAG.findall(line)) <= sources, f"nothing at the top says what is meant: {line}"
        if not content.strip():
            comment = (comment + line) if mark else ""
        elif FACTS.search(content):
            assert TAG.search(comment + beside), f"no source: {line}"
        elif not content.rstrip().endswith(":"):
            comment = ""


@by_name(SPARK)
def test_a_model_must_be_as_large_in_memory_as_its_files(path: Path) -> None:
    spec = recipe(path)
    gib = sum(spec[key]["size_gb"] for key in ("model", "draft") if spec[key]) * 1e9 / 2**30
    bounds = spec["startup"]["expect"]["model_memory_gib"]
    assert bounds["min"] < gib < bounds["max"]
    assert bounds["max"] - bounds["min"] < 0.3 * gib


@by_name(SPARK)
def test_a_threshold_is_within_what_the_memory_allows(path: Path) -> None:
    spec = recipe(path)
    limit = decode_limit_tok_s(spec)
    assert limit is not None
    least = spec["throughput"]["thresholds"]["decode_tok_s_min"]
    if least is None:
        assert 0 < spec["throughput"]["thresholds"]["roofline_share_min"] < 0.84
    else:
        assert 0.5 * limit < least < limit


@by_name(SPARK)
def test_the_image_and_the_startup_log_must_have_the_same_vllm(path: Path) -> None:
    spec = recipe(path)
    assert spec["startup"]["expect"]["vllm_version"] == spec["image"]["vllm_versions"]
    tagged = re.search(r":v(\d+\.\d+\.\d+)", spec["image"]["name"])
    assert tagged is None or satisfies(tagged[1], spec["image"]["vllm_versions"])


def test_only_images_are_used_whose_entrypoint_is_vllms_own() -> None:
    assert {recipe(path)["image"]["name"].partition(":")[0] for path in SPARK} == {"vllm/vllm-openai"}


def test_the_recipe_with_a_draft_model_is_the_one_without_it_and_that() -> None:
    plain, drafting = (recipe(VARS / f"gemma4-26b-a4b-nvfp4-nvidia{suffix}.yml") for suffix in ("", "-mtp"))
    assert drafting["args"].pop("speculative-config")["method"] == "mtp"
    assert drafting["draft"]["repo"] == "google/gemma-4-26B-A4B-it-assistant"
    for key in ("args", "image", "container", "hardware", "patches", "probes", "decode_bytes", "served_model_name"):
        assert drafting[key] == plain[key], key
    assert drafting["model"] | {"path": ""} == plain["model"] | {"path": ""}


def test_the_nvidia_checkpoint_cannot_reach_the_articles_52_tok_s() -> None:
    limit = decode_limit_tok_s(recipe(VARS / "gemma4-26b-a4b-nvfp4-nvidia.yml"))
    assert limit == pytest.approx(48.2, abs=0.1)


def test_recipes_of_one_size_take_each_others_place() -> None:
    names = {path.stem: recipe(path)["container"]["name"] for path in SPARK}
    assert {name for stem, name in names.items() if "26b" in stem} == {"gemma4-nvfp4"}
    assert {name for stem, name in names.items() if "31b" in stem} == {"gemma4-31b"}
