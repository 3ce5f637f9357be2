# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""playbooks/monitoring.yml on an inventory whose boxes do not exist: it asks none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring.fleet import ROOT
from monitoring.promtool import promtool

BOXES = {
    "spark-1": {"ansible_host": "192.0.2.11"},
    "spark-2": {"ansible_host": "192.0.2.12", "recipe_name": "gemma4-31b-nvfp4", "vllm_port": 9000, "vllm_served_model_name": "big"},
    "spark-3": {"ansible_host": "192.0.2.13", "proof_throughput": {"thresholds": {"decode_tok_s_min": 12.5}}},
}
GATEWAYS = {"gw-1": {"ansible_host": "192.0.2.1", "gateway_metrics_bind": "0.0.0.0:9405"}, "gw-2": {}}


def run(folder: Path, groups: dict[str, Any], *arguments: str) -> tuple[int, str]:
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({name: {"hosts": hosts} for name, hosts in groups.items()}))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "playbooks/monitoring.yml", "-i", str(inventory), *arguments]
    environment = os.environ | {"PWD": str(folder), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout


def targets(folder: Path, job: str) -> dict[str, dict[str, str]]:
    return {group["targets"][0]: group["labels"] for group in json.loads((folder / f"{job}.targets.json").read_text())}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files for a fleet with two gateways and a host of its own for Prometheus, which stands in for this machine's."""
    folder = tmp_path_factory.mktemp("published")
    into = folder / "prometheus"
    watching = {"prometheus-1": {"ansible_connection": "local", "monitoring_dir": str(into)}}
    groups = {"spark": BOXES, "gateway": GATEWAYS, "monitoring": watching}
    code, said = run(folder, groups, "--check", "--diff")
    assert code == 0, said
    assert not into.exists()
    code, said = run(folder, groups)
    assert code == 0, said
    code, said = run(folder, groups)
    assert code == 0, said
    assert said.count("changed=0") == len(BOXES) + len(GATEWAYS) + 1, said
    return into


def test_every_box_has_its_recipe_and_its_port(published: Path) -> None:
    found = targets(published, "dgx-spark-vllm")
    assert {target: (labels["box"], labels["recipe"], labels["model"]) for target, labels in found.items()} == {
        "192.0.2.11:8002": ("spark-1", "gemma4-26b-a4b-nvfp4", "gemma-4-26b"),
        "192.0.2.12:9000": ("spark-2", "gemma4-31b-nvfp4", "big"),
        "192.0.2.13:8002": ("spark-3", "gemma4-26b-a4b-nvfp4", "gemma-4-26b"),
    }


def test_every_gateway_has_its_exporter(published: Path) -> None:
    found = targets(published, "dgx-spark-gateway")
    assert {target: labels["gateway"] for target, labels in found.items()} == {"192.0.2.1:9405": "gw-1", "gw-2:8405": "gw-2"}


def test_thresholds_are_the_recipes_and_what_the_inventory_says_instead(published: Path) -> None:
    groups = yaml.safe_load((published / "dgx-spark.thresholds.yml").read_text())["groups"]
    decode = {rule["labels"]["box"]: rule["expr"] for rule in groups[0]["rules"] if rule["record"] == "box:decode_tok_s:threshold"}
    assert decode == {"spark-1": "vector(46.8)", "spark-2": "vector(6.3)", "spark-3": "vector(12.5)"}


def test_prometheus_takes_both_files_of_rules(published: Path) -> None:
    code, said = promtool("check", "rules", "dgx-spark.rules.yml", "dgx-spark.thresholds.yml", cwd=published)
    assert code == 0, said


def test_without_a_host_for_it_the_files_are_here(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"spark": {"spark-1": {}}})
    assert code == 0, said
    assert targets(tmp_path / "monitoring", "dgx-spark-gateway") == {}
    assert list(targets(tmp_path / "monitoring", "dgx-spark-vllm")) == ["spark-1:8002"]


def test_a_part_of_the_fleet_is_refused(tmp_path: Path) -> None:
    code, said = run(tmp_path, {"spark": BOXES}, "--limit", "spark-1")
    assert code != 0
    assert "Prometheus would forget the boxes that --limit leaves out" in " ".join(said.split())
    assert not (tmp_path / "monitoring").exists()
