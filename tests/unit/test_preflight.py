# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils._preflight import problems, state
from ansible_collections.dgx.spark.plugins.module_utils._recipe import load

ROOT = Path(__file__).parents[2]
DEFAULTS = yaml.safe_load((ROOT / "roles/preflight/defaults/main.yml").read_text())
NAME = "gemma4-nvfp4"


def recipe(name: str = "gemma4-26b-a4b-nvfp4") -> dict[str, Any]:
    return load(yaml.safe_load((ROOT / f"roles/recipe/vars/{name}.yml").read_text()), "/srv/models")


def wanted(**changed: Any) -> dict[str, Any]:
    spec = recipe()
    base = {
        "architectures": spec["hardware"]["architectures"],
        "compute_capability": spec["hardware"]["compute_capability"],
        "memory_gib": spec["hardware"]["memory_gib"],
        "memory_share": spec["args"]["gpu-memory-utilization"],
        "disk_gb": None,
        "port": 8002,
        "container": NAME,
        "driver_refused": DEFAULTS["preflight_driver_refused"],
        "kernel_refused": DEFAULTS["preflight_kernel_refused"],
        "decode_limit_tok_s_min": DEFAULTS["preflight_decode_limit_tok_s_min"],
    }
    return base | changed


def container(**changed: Any) -> dict[str, Any]:
    return {"name": NAME, "id": "c1", "state": "running", "spec_digest": "d1"} | changed


def gb10(**changed: Any) -> dict[str, Any]:
    spark: dict[str, Any] = {
        "architecture": "aarch64",
        "kernel": "6.17.0-1032-nvidia",
        "memory": {"total_gib": 121.7, "available_gib": 117.0},
        "gpus": [{"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.142"}],
        "disk": {"path": "/srv", "free_gb": 900.0},
        "docker": {"running": True, "error": None},
        "containers": [],
        "ports": {"8002": None},
        "model": None,
        "evidence": None,
    }
    return copy.deepcopy(spark) | changed


def test_a_gb10_is_fit_for_the_article() -> None:
    assert problems(gb10(), recipe(), wanted()) == []


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"architecture": "x86_64"}, "the architecture is x86_64"),
        ({"kernel": "6.17.0-1008-nvidia"}, "kernel 6.17.0-1008-nvidia is known to panic"),
        ({"memory": {"total_gib": 31.0}}, "has 31.0 GiB of memory, the recipe needs 56"),
        ({"gpus": []}, "nvidia-smi shows no GPU"),
        ({"gpus": [{"name": "RTX", "compute_capability": "8.9", "driver_version": "580.1"}]}, "RTX has compute capability 8.9"),
        ({"gpus": [{"name": "GB10", "compute_capability": "12.1", "driver_version": "590.48"}]}, "driver 590.48 is refused"),
        ({"disk": {"path": "/srv", "free_gb": 3.0}}, "/srv has 3.0 GB free, 16.5 GB are needed"),
        ({"docker": {"running": False, "error": "Cannot connect"}}, r"Docker does not answer (Cannot connect)"),
        ({"ports": {"8002": {"process": "python3", "pid": 7, "container": None}}}, "port 8002 is taken by python3 (pid 7)"),
    ],
)
def test_each_unfitness_is_named(facts: dict[str, Any], text: str) -> None:
    found = problems(gb10(**facts), recipe(), wanted())
    assert len(found) == 1
    assert text in found[0]


@pytest.mark.parametrize(
    ("facts", "relaxed"),
    [
        ({"architecture": "x86_64"}, {"architectures": []}),
        ({"gpus": []}, {"compute_capability": ""}),
        ({"memory": {"total_gib": 31.0}}, {"memory_gib": 0}),
        ({"kernel": "6.17.0-1008-nvidia"}, {"kernel_refused": []}),
        ({"disk": {"path": "/srv", "free_gb": 3.0}}, {"disk_gb": 1}),
    ],
)
def test_each_requirement_can_be_relaxed(facts: dict[str, Any], relaxed: dict[str, Any]) -> None:
    assert problems(gb10(**facts), recipe(), wanted(**relaxed)) == []


def test_weights_that_are_there_need_no_room() -> None:
    model = {"complete": True, "repo": recipe()["model"]["repo"]}
    assert problems(gb10(disk={"path": "/srv", "free_gb": 3.0}, model=model), recipe(), wanted()) == []


def test_the_commit_that_lies_beside_under_another_name_needs_no_room_and_is_linked() -> None:
    spec = recipe()
    spec["model"]["revision"] = "c" * 40
    beside = {"path": "/srv/models/x/main", "repo": spec["model"]["repo"], "revision": "main", "commit": "c" * 40}
    small = gb10(disk={"path": "/srv", "free_gb": 3.0}, snapshots=[beside])
    assert problems(small, spec, wanted()) == []
    assert "linked from /srv/models/x/main" in state(small, spec, CREATE, NAME)["reasons"][1]
    other = gb10(disk={"path": "/srv", "free_gb": 3.0}, snapshots=[beside | {"commit": "d" * 40}])
    assert "16.5 GB are needed" in problems(other, spec, wanted())[0]
    assert "not on the box" in state(other, spec, CREATE, NAME)["reasons"][1]


def test_a_port_held_by_another_recipe_is_taken_and_the_remedy_names_it() -> None:
    facts = {
        "ports": {"8002": {"process": "docker-proxy", "pid": 9, "container": "gemma4-tiny"}},
        "containers": [container(name="gemma4-tiny", recipe="gemma4-tiny-cpu")],
    }
    (found,) = problems(gb10(**facts), recipe(), wanted())
    assert "taken by the container gemma4-tiny" in found
    assert "playbooks/remove.yml -e recipe_name=gemma4-tiny-cpu" in found


def test_a_port_held_by_the_container_that_is_replaced_is_free() -> None:
    facts = {"ports": {"8002": {"process": "docker-proxy", "pid": 9, "container": NAME}}, "containers": [container()]}
    assert problems(gb10(**facts), recipe(), wanted()) == []


def test_the_dense_31b_is_refused_with_the_arithmetic_unless_forced() -> None:
    dense = recipe("gemma4-31b-nvfp4")
    (found,) = problems(gb10(), dense, wanted(disk_gb=0))
    assert "31.7 GB / 273 GB/s = 116 ms" in found
    assert "cannot exceed 8.6 tok/s" in found
    assert problems(gb10(), dense, wanted(disk_gb=0, decode_limit_tok_s_min=0)) == []


def test_with_speculation_the_limit_is_one_of_steps() -> None:
    dense = recipe("gemma4-31b-nvfp4")
    dense["args"]["speculative-config"] = {"method": "mtp"}
    (found,) = problems(gb10(), dense, wanted(disk_gb=0))
    assert "reads 31.7 GB for every step" in found
    assert "cannot exceed 8.6 steps/s" in found
    assert "tok/s" not in found


def serving(**changed: Any) -> dict[str, Any]:
    spec = recipe()["model"]
    model = {"complete": True, "repo": spec["repo"], "revision": spec["revision"], "path": "/srv/models/x", "problem": None}
    evidence = {"verdict": "proven", "container": {"id": "c1", "spec_digest": "d1"}}
    return gb10(**({"containers": [container()], "model": model, "evidence": evidence} | changed))


UNCHANGED = {"plan": {"action": "none"}, "reasons": []}
CREATE = {"plan": {"action": "create"}, "reasons": []}


def test_a_box_whose_container_weights_and_evidence_match_is_current() -> None:
    assert state(serving(), recipe(), UNCHANGED, NAME) == {"state": "current", "reasons": [], "proven": True}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"model": None}, "not on the box"),
        ({"evidence": None}, "no evidence"),
        ({"evidence": {"verdict": "failed", "container": {}}}, "its evidence says: failed"),
        ({"containers": [container(id="c2")]}, "evidence is of another container"),
    ],
)
def test_a_serving_box_says_why_it_is_not_current(facts: dict[str, Any], text: str) -> None:
    result = state(serving(**facts), recipe(), UNCHANGED, NAME)
    assert result["state"] == "serving"
    assert text in result["reasons"][0]


def test_a_moved_revision_is_a_reason() -> None:
    facts = serving()
    facts["model"]["revision"] = "v1"
    assert "@v1, asked is" in state(facts, recipe(), UNCHANGED, NAME)["reasons"][0]


def test_weights_with_other_bytes_than_the_lock_are_a_reason() -> None:
    facts, spec = serving(), recipe()
    spec["lock"] = {"file": "gemma4.lock.yml", "model": {"fingerprint": "f1"}}
    facts["model"]["fingerprint"] = "f1"
    assert state(facts, spec, UNCHANGED, NAME)["state"] == "current"
    facts["model"]["fingerprint"] = "f2"
    assert state(facts, spec, UNCHANGED, NAME)["reasons"] == ["the weights in /srv/models/x are not the bytes that gemma4.lock.yml names"]


def test_the_plans_reasons_come_first() -> None:
    plan = {"plan": {"action": "replace"}, "reasons": ["args.moe-backend: auto → marlin"]}
    assert state(serving(), recipe(), plan, NAME)["reasons"][0] == "args.moe-backend: auto → marlin"


def test_a_box_on_which_nothing_of_ours_runs_is_fresh() -> None:
    result = state(gb10(), recipe(), CREATE, NAME)
    assert result["state"] == "fresh"
    assert result["reasons"][0] == f"there is no container {NAME}"


def test_a_box_on_which_docker_cannot_be_asked_has_no_container() -> None:
    result = state(gb10(), recipe(), {"changed": False, "skipped": True, "skip_reason": "Conditional result was False"}, NAME)
    assert (result["state"], result["reasons"][0]) == ("fresh", f"there is no container {NAME}")


def test_a_stopped_container_is_no_service() -> None:
    facts = serving(containers=[container(state="exited")])
    assert state(facts, recipe(), {"plan": {"action": "start"}, "reasons": ["the container is not running"]}, NAME)["state"] == "fresh"


# --- memory, and a draft model


def test_weights_that_leave_nothing_of_vllms_share_are_refused_with_the_arithmetic() -> None:
    dense = recipe("gemma4-31b-bf16")
    small = gb10(memory={"total_gib": 59.6, "available_gib": 55.0})
    asked = wanted(disk_gb=0, decode_limit_tok_s_min=0)
    (found,) = problems(small, dense, asked)
    assert "62.5 GB = 58.2 GiB, and vLLM gets 0.85 of the box's 59.6 GiB = 50.7 GiB" in found
    assert problems(gb10(), dense, asked) == []
    (found,) = problems(gb10(), dense, asked | {"memory_share": 0.4})
    assert "0.4 of the box's 121.7 GiB = 48.7 GiB" in found
    assert problems(small, dense, asked | {"memory_share": 0}) == []


def drafting() -> dict[str, Any]:
    spec = recipe()
    spec["draft"] = {"repo": "google/draft", "revision": "main", "size_gb": 0.9, "path": "/srv/models/x.draft/main"}
    return spec


DRAFT = {"complete": True, "repo": "google/draft", "revision": "main", "path": "/srv/models/x.draft/main", "problem": None}


def test_the_room_for_a_draft_model_is_counted_until_it_is_there() -> None:
    full = {"path": "/srv", "free_gb": 0.1}
    assert "17.4 GB are needed" in problems(gb10(disk=full), drafting(), wanted())[0]
    model = {"complete": True, "repo": recipe()["model"]["repo"]}
    assert "0.9 GB are needed" in problems(gb10(disk=full, model=model), drafting(), wanted())[0]
    assert "16.5 GB are needed" in problems(gb10(disk=full, draft=DRAFT), drafting(), wanted())[0]
    assert problems(gb10(disk=full, model=model, draft=DRAFT), drafting(), wanted()) == []


def test_a_draft_models_weights_count_where_they_must_fit() -> None:
    spec = drafting()
    spec["draft"]["size_gb"] = 100
    (found,) = problems(gb10(), spec, wanted())
    assert "116.5 GB = 108.5 GiB" in found


@pytest.mark.parametrize(
    ("draft", "text"),
    [
        (None, "the weights of google/draft are not on the box"),
        (DRAFT | {"complete": False, "problem": "config.json is missing"}, "are not complete: config.json is missing"),
        (DRAFT | {"revision": "v1"}, "the weights are google/draft@v1, asked is google/draft@main"),
        (DRAFT | {"fingerprint": "f9"}, "are not the bytes that gemma4.lock.yml names"),
    ],
)
def test_a_box_whose_draft_model_is_not_the_one_asked_is_not_current(draft: dict[str, Any] | None, text: str) -> None:
    spec = drafting()
    spec["lock"] = {"file": "gemma4.lock.yml", "model": {"fingerprint": "f1"}, "draft": {"fingerprint": "f2"}}
    facts = serving(draft=DRAFT | {"fingerprint": "f2"})
    facts["model"]["fingerprint"] = "f1"
    assert state(facts, spec, UNCHANGED, NAME)["state"] == "current"
    result = state(facts | {"draft": draft}, spec, UNCHANGED, NAME)
    assert result["state"] == "serving"
    assert text in result["reasons"][0]
