# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The steps of playbooks/compare.yml that need no box: Ansible runs them here against the scripted vLLM and the stand-in for Ollama."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml
from sim.ollama import Ollama
from sim.vllm_scripted.server import ScriptedServer

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "playbooks" / "tasks"
WORKLOAD = {"warmup": 0, "sequential": {"runs": 1, "tokens": 40}, "parallel": {"requests": 3, "tokens": 40}}
KEY = "sk-vllm-alone"


def play(tmp_path: Path, tasks: list[dict[str, Any]], **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run these tasks as the playbook would."""
    playbook = tmp_path / "play.yml"
    files = [str(ROOT / "playbooks" / "vars" / "compare.yml")]
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars_files": files, "tasks": tasks}]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(playbook), "-i", "localhost,", "-c", "local"]
    values = {"ansible_python_interpreter": sys.executable, "compare_workload": WORKLOAD, **variables}
    environment = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "NO_COLOR": "1", "ANSIBLE_ASYNC_DIR": str(tmp_path)}
    return subprocess.run(
        [*command, "-e", json.dumps(values)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def side(url: str, model: str, key_file: str, fact: str) -> list[dict[str, Any]]:
    """Measure one side, and keep it in a file of the fact's name."""
    variables = {"measure_url": url, "measure_model": model, "measure_api_key_file": key_file}
    kept = {"dest": f"{{{{ playbook_dir }}}}/{fact}.json", "content": "{{ compare_measured | to_json }}", "mode": "0600"}
    return [
        {"ansible.builtin.include_tasks": str(TASKS / "measure.yml"), "vars": variables},
        {"ansible.builtin.copy": kept},
    ]


def test_both_sides_are_measured_alike_and_ollama_never_sees_vllms_key(tmp_path: Path) -> None:
    script = {"stream": {"tok_s": 400.0, "ttft_ms": 10.0}}
    with ScriptedServer(script, api_key=KEY) as vllm, Ollama(load_delay=0, tok_s=200.0, ttft=0.02) as ollama:
        name = "gemma-4-26b"
        (tmp_path / "key").write_text(KEY)
        done = play(tmp_path, [*side(vllm.base_url, name, str(tmp_path / "key"), "vllm"), *side(ollama.url, "gemma4:26b", "", "ollama")])
        assert done.returncode == 0, done.stdout + done.stderr
        requests = list(ollama.requests)
    assert [request["body"]["max_tokens"] for request in requests] == [40, 40, 40, 40, 256]
    assert {request["authorization"] for request in requests} == {None}
    assert KEY not in json.dumps(requests)
    sides = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("vllm", "ollama")}
    assert KEY not in json.dumps(sides)
    for measured in sides.values():
        assert [run["tokens"] for run in measured["throughput"]["sequential"]["runs"]] == [40]
        assert measured["throughput"]["parallel"]["aggregate_tok_s"] > 0
    # Ollama's model calls no tools: that is a result, and no failure.
    assert [measured["tools"]["probes"][0]["ok"] for measured in sides.values()] == [True, False]


def test_an_ollama_that_dies_in_the_middle_fails_the_measurement(tmp_path: Path) -> None:
    with Ollama(load_delay=0, tok_s=200.0, ttft=0.02, dies_after=1) as ollama:
        done = play(tmp_path, side(ollama.url, "gemma4:26b", "", "ollama"))
    assert done.returncode != 0
    assert "llama runner process has terminated" in done.stdout


def test_a_request_in_flight_is_not_cut_off_unless_that_is_asked_for(tmp_path: Path) -> None:
    script = {"stream": {"tok_s": 10.0, "ttft_ms": 10.0}}
    tasks = [{"ansible.builtin.include_tasks": str(TASKS / "idle.yml")}]
    with ScriptedServer(script) as vllm:
        idle = play(tmp_path, tasks, proof_base_url=vllm.base_url)
        assert idle.returncode == 0, idle.stdout

        body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "Write a long story."}], "stream": True}
        url, headers = f"{vllm.base_url}/v1/chat/completions", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=60) as answer:
            answer.readline()
            refused = play(tmp_path, tasks, proof_base_url=vllm.base_url)
            asked = play(tmp_path, tasks, proof_base_url=vllm.base_url, compare_cut_off_clients=True)
    assert refused.returncode != 0
    assert "1 requests run or wait on vLLM, and would be cut off" in " ".join(refused.stdout.split())
    assert asked.returncode == 0


def test_a_vllm_that_cannot_be_asked_is_not_said_to_be_idle(tmp_path: Path) -> None:
    gone = play(tmp_path, [{"ansible.builtin.include_tasks": str(TASKS / "idle.yml")}], proof_base_url="http://127.0.0.1:1")
    assert gone.returncode != 0
    assert "Connection refused" in gone.stdout
