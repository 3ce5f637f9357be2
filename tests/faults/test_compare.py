# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""vLLM against Ollama on a simulated box. Both are scripted stand-ins, so the figures say nothing about a GB10."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.box import NAME, Box, Run, Served

QUICK = {"warmup": 0, "sequential": {"runs": 1, "tokens": 40}, "parallel": {"requests": 3, "tokens": 20}}
OTHER = {"name": "other:1b", "size": 1e9}
Play = Callable[..., Run]


@pytest.fixture
def compare(served: Served) -> Iterator[Play]:
    """Set up Ollama and compare; afterwards it is as it was."""

    def play(ollama: dict[str, Any], **variables: Any) -> Run:
        # Far below the scripted vLLM's 51.6 tok/s, so that a busy machine does not turn the result round.
        settings = json.dumps({"tok_s": 20.0, **ollama})
        served.box.sh(f"curl -sf http://127.0.0.1:11434/_sim/state -d '{settings}'")
        return served.box.play("compare", compare_workload=QUICK, **variables)

    yield play
    served.box.sh("systemctl restart ollama")


def loaded(box: Box) -> list[str]:
    return [model["name"] for model in json.loads(box.sh("curl -sf http://127.0.0.1:11434/api/ps"))["models"]]


def evidence(box: Box) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(box.sh(f"cat /var/lib/dgx-spark/evidence/{NAME}.json"))
    return document


def test_both_are_measured_and_vllm_is_proven_again(served: Served, compare: Play) -> None:
    deployed = evidence(served.box)
    run = compare({"loaded": [OTHER], "tools": True})
    assert run.rc == 0, run.why
    run.says("vLLM NVFP4 Ollama Q4_K_M", "tool calling yes yes", "concurrent requests yes (", "no, in turn (", "vLLM wins by")
    kept = re.search(r"Kept in (\S+/compare\.json)", " ".join(run.output.split()))
    assert kept
    (comparison,) = json.loads(Path(kept[1]).read_text())
    assert (comparison["winner"], comparison["failure"]) == ("vllm", None)
    assert (comparison["ollama"]["model_gb"], comparison["vllm"]["kv_cache_gib"]) == (17.0, 81.8)

    served.serves_again()
    assert served.box.container()["State"]["StartedAt"] != served.started_at
    assert loaded(served.box) == []
    again = evidence(served.box)
    assert (again["verdict"], again["startup"]["ready"], again["container"]["id"]) == ("proven", True, served.id)
    assert again["time"] != deployed["time"]
    assert set(again["throughput"]) == set(deployed["throughput"]), "what was measured when it was deployed is lost"


@pytest.mark.long
def test_weights_that_ollama_splits_are_said_to_be_no_measure(served: Served, compare: Play) -> None:
    run = compare({"gpu_share": 0.34})
    assert run.rc == 0, run.why
    run.says(
        "66% CPU / 34% GPU: Ollama split the weights of gemma4:26b, its figure is not its speed.",
        "'systemctl restart ollama' on the box, and compare again",
        "Nobody wins: Ollama's weights were split.",
    )
    served.serves_again()


def test_a_model_that_ollama_lacks_is_said_before_anything_is_touched(served: Served, compare: Play) -> None:
    run = compare({"stored": {}, "loaded": [OTHER]})
    assert run.rc != 0
    run.says("Ollama has no model gemma4:26b: bring it with 'ollama pull gemma4:26b' on the box")
    served.still_serves()
    assert loaded(served.box) == ["other:1b"]


@pytest.mark.long
def test_an_ollama_that_dies_while_it_is_measured_leaves_vllm_serving(served: Served, compare: Play) -> None:
    run = compare({"dies_after": 1})
    assert run.rc != 0
    run.says("llama runner process has terminated", "vLLM serves again.")
    served.serves_again()
    assert loaded(served.box) == []


def test_a_box_that_does_not_serve_what_is_asked_is_not_compared(served: Served, compare: Play) -> None:
    run = compare({}, vllm_env={"NEW": "1"})
    assert run.rc != 0
    run.says("does not serve gemma4-26b-a4b-nvfp4 as it is asked", "'ansible-playbook playbooks/gemma4.yml")
    served.still_serves()
