# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What may happen to a box: a port taken, a disk full, weights corrupt, Ollama stuck, Docker down, a box gone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.box import BOX, Served


def test_a_port_that_is_taken(served: Served) -> None:
    subprocess.run(["docker", "exec", "-d", BOX, "python3", "-m", "http.server", "8003"], check=True)
    time.sleep(1)
    try:
        run = served.box.play(vllm_port=8003)
    finally:
        served.box.sh("pkill -f '[h]ttp.server 8003'")
    assert run.rc != 0
    run.says("port 8003 is taken by python3")
    served.still_serves()


@pytest.fixture
def small_disk(served: Served) -> Iterator[str]:
    served.box.sh("mkdir -p /srv/small && mount -t tmpfs -o size=1m tmpfs /srv/small")
    yield "/srv/small"
    served.box.sh("umount /srv/small")


def test_a_disk_that_is_full_is_refused_before_the_first_byte(served: Served, small_disk: str) -> None:
    run = served.box.play(recipe_models_root=small_disk, preflight_disk_gb=0)
    assert run.rc != 0
    run.says("/srv/small", "free")
    assert served.box.sh(f"find {small_disk} -type f") == ""
    served.still_serves()


@pytest.mark.long
def test_weights_that_went_bad_are_fetched_again(served: Served) -> None:
    path = served.box.sh("find /srv/models/gemma4-26b-a4b-nvfp4/ -name '*.safetensors' | sort | head -1")
    before = served.box.sh(f"sha256sum < {path}")
    served.box.sh(f"truncate -s 1000 {path}")
    run = served.box.play()
    assert run.rc == 0, run.why
    run.says("not complete")
    assert served.box.sh(f"sha256sum < {path}") == before


def test_ollama_that_will_not_unload(served: Served) -> None:
    loaded = {"name": "gemma4:26b", "size": 17e9, "size_vram": 5.8e9}
    settings = json.dumps({"loaded": [loaded], "stuck": True})
    served.box.sh(f"curl -sf http://127.0.0.1:11434/_sim/state -d '{settings}'")
    try:
        run = served.box.play(vllm_env={"NEW": "1"}, ollama_unload_timeout=6)
    finally:
        served.box.sh("systemctl restart ollama")
    assert run.rc != 0
    run.says("gemma4:26b", "Nothing that served was touched.")
    served.still_serves()


def test_docker_that_is_down(served: Served) -> None:
    served.box.sh("systemctl stop docker.socket docker")
    try:
        run = served.box.play()
    finally:
        served.box.sh("systemctl start docker")
    assert run.rc != 0
    run.says("Docker does not answer", "systemctl start docker")


def test_a_box_that_cannot_be_reached_stops_the_run_before_any_is_touched(served: Served, tmp_path: Path) -> None:
    lost = tmp_path / "lost.yml"
    lost.write_text("spark: {hosts: {spark-lost: {ansible_host: 172.30.99.250, ansible_ssh_timeout: 3}}}\n")
    run = served.box.play(limit=f"{BOX},spark-lost", arguments=["-i", str(lost)], vllm_env={"NEW": "1"})
    assert run.rc != 0
    run.says("spark-lost cannot be reached: ", "connect to host 172.30.99.250", "leave it out by name: -l '!spark-lost'")
    assert f"{BOX} cannot be reached" not in run.output
    served.still_serves()
