# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The README's first command, as a user runs it: a simulated Spark with the real vLLM becomes a proven endpoint, once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUESTION = "What is the capital of France?"


def make(target: str) -> str:
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        ["make", target], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def first() -> Iterator[str]:
    """The output of the first run, on a virgin box."""
    make("demo-down")
    yield make("demo")
    make("demo-down")


def test_the_table_says_what_was_proven(first: str) -> None:
    row = next(line for line in first.splitlines() if "spark-sim-1" in line and "proven" in line)
    assert "0.32" in row
    assert "10/10" in row
    assert "fresh" in row


def test_the_curl_that_it_prints_answers(first: str) -> None:
    flat = " ".join(first.split())
    command = re.search(r"(curl -s http://[^ ]+/v1/chat/completions .*?\}\]\}')", flat)
    assert command, flat[-1500:]
    answer = subprocess.run(command[1], shell=True, capture_output=True, text=True, check=True).stdout
    assert "Paris" in json.loads(answer)["choices"][0]["message"]["content"]


def test_the_evidence_lies_where_it_says(first: str) -> None:
    directory = re.search(r"Evidence: +(\S+)", first)
    assert directory, first[-1500:]
    evidence = json.loads((Path(directory[1]) / "spark-sim-1.json").read_text())
    assert evidence["verdict"] == "proven"
    assert evidence["startup"]["moe_backend"] == "CPU"
    assert all(probe["ok"] for probe in evidence["probes"])
    page = re.search(r"Report: +(\S+)", first)
    assert page, first[-1500:]
    assert "spark-sim-1" in Path(page[1]).read_text()


def test_a_second_run_changes_nothing(first: str) -> None:
    started = docker("exec", "spark-sim-1", "docker", "inspect", "-f", "{{.State.StartedAt}}", "gemma4-tiny")
    output = make("demo")
    assert re.search(r"spark-sim-1 .* changed=0 ", output)
    assert "current" in output
    assert docker("exec", "spark-sim-1", "docker", "inspect", "-f", "{{.State.StartedAt}}", "gemma4-tiny") == started


def test_with_the_articles_parser_the_tool_calls_are_lost_and_the_old_container_serves_again(first: str) -> None:
    """The same real vLLM and model, one flag: the call stays in the text."""
    before = docker("exec", "spark-sim-1", "docker", "inspect", "-f", "{{.Id}}", "gemma4-tiny")
    command = [".venv/bin/ansible-playbook", "playbooks/gemma4.yml", "-i", "inventories/sim", "-e", "recipe_name=gemma4-tiny-cpu"]
    variables = json.dumps({"vllm_extra_args": {"tool-call-parser": "pythonic"}})
    environment = os.environ | {"PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run([*command, "-e", variables], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    output = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "tool_call" in output
    assert "What served before was restored and answers again." in output
    assert docker("exec", "spark-sim-1", "docker", "inspect", "-f", "{{.Id}}", "gemma4-tiny") == before
