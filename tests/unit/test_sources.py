# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""From which addresses a gateway comes: the filter dgx.spark.sources, as a playbook calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def sources(tmp_path: Path, hosts: dict[str, Any], others: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"gateway": {"hosts": hosts}}))
    found = f"groups['gateway'] | default([]) | map('extract', hostvars) | dgx.spark.sources({others or []})"
    arguments = json.dumps({"msg": f"{{{{ {found} }}}}"})
    command = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", str(inventory), "-m", "ansible.builtin.debug", "-a"]
    environment = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "NO_COLOR": "1"}
    return subprocess.run([*command, arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.partition("=>")[2])["msg"]


def test_a_gateway_is_known_by_its_own_variable_then_by_its_address(tmp_path: Path) -> None:
    hosts = {
        "a": {"ansible_host": "192.0.2.1", "gateway_address": "192.0.2.2"},
        "b": {"ansible_host": "{{ 'fd00::' ~ 7 }}"},
        "192.0.2.9": {},
    }
    assert said(sources(tmp_path, hosts, ["10.1.2.3/8", "192.0.2.2/32"])) == ["10.0.0.0/8", "192.0.2.2", "192.0.2.9", "fd00::7"]


def test_no_gateway_and_no_list_is_everybody(tmp_path: Path) -> None:
    assert said(sources(tmp_path, {})) == []


def test_what_leads_nowhere_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for hosts, others, words in (
        ({"front": {"ansible_host": "front.invalid"}}, [], "front.invalid, the address of the gateway front, does not resolve here"),
        ({"front": {"ansible_host": "127.0.0.1"}}, [], "is this machine's loopback: set gateway_address there"),
        ({}, ["my-network"], "neither an address nor a network such as 192.168.1.20 or 10.0.0.0/8: see vllm_allow_from"),
    ):
        refused = sources(tmp_path, hosts, others)
        assert refused.returncode != 0
        assert words in refused.stdout + refused.stderr
