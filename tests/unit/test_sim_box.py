# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The stand-ins inside a simulated box that work without one: nvidia-smi, the memory, the softening runtime."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pytest
from sim.names import SIM

FILES = SIM / "box/files"


def smi(*args: str) -> subprocess.CompletedProcess[str]:
    """The box's nvidia-smi."""
    return subprocess.run(["sh", str(FILES / "usr/bin/nvidia-smi"), *args], capture_output=True, text=True, check=False)


def test_nvidia_smi_query_prints_what_a_gb10_prints() -> None:
    asked = smi("--query-gpu=name,compute_cap,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits")
    assert asked.stdout == "NVIDIA GB10, 12.1, 580.142, [N/A], [N/A]\n"
    with_header = smi("--query-gpu=name,memory.total,utilization.gpu", "--format=csv").stdout.splitlines()
    assert with_header == ["name, memory.total [MiB], utilization.gpu [%]", "NVIDIA GB10, [N/A], 0 %"]


def test_nvidia_smi_refuses_an_unknown_field() -> None:
    asked = smi("--query-gpu=nmae", "--format=csv")
    assert asked.returncode == 2
    assert '"nmae" is not a valid field' in asked.stdout


def test_nvidia_smi_tables() -> None:
    table = smi().stdout
    assert "NVIDIA GB10" in table
    assert "Not Supported" in table
    assert len({len(line) for line in table.splitlines() if line.startswith(("|", "+"))}) == 1
    assert smi("-L").stdout.startswith("GPU 0: NVIDIA GB10 (UUID: GPU-")
    assert "Product Name                                       : NVIDIA GB10" in smi("-q").stdout


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The box's module `memory`, with its files below tmp_path."""
    path = FILES / "usr/local/lib/spark-sim/memory.py"
    spec = importlib.util.spec_from_file_location("sim_box_memory", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "meminfo").touch()
    for name, value in {"MEMINFO": tmp_path / "meminfo", "CLAIMS": tmp_path / "claims", "SETTINGS": tmp_path / "settings.json"}.items():
        monkeypatch.setattr(module, name, value)
    return module


def gib(memory: ModuleType, name: str) -> float:
    """A figure of the simulated /proc/meminfo."""
    lines = dict(line.split(":") for line in memory.MEMINFO.read_text().splitlines())
    return int(lines[name].removesuffix(" kB")) / 1024 / 1024


def test_an_idle_box_has_a_gb10s_memory(memory: ModuleType) -> None:
    memory.reset()
    assert round(gib(memory, "MemTotal"), 1) == 121.7
    assert round(gib(memory, "MemAvailable")) == 117


def test_memory_is_claimed_and_given_back_in_place(memory: ModuleType) -> None:
    memory.reset()
    inode = memory.MEMINFO.stat().st_ino
    memory.claim("a", 16 * 1024 * 1024)
    memory.claim("b", 100 * 1024 * 1024)
    assert gib(memory, "MemAvailable") < 2
    memory.claim("b", 50 * 1024 * 1024)
    assert round(gib(memory, "MemAvailable")) == 51
    memory.release("a")
    assert round(gib(memory, "MemAvailable")) == 67
    memory.release("never claimed")
    assert memory.MEMINFO.stat().st_ino == inode
    memory.claim("c", 500 * 1024 * 1024)
    assert gib(memory, "MemAvailable") == 0
    memory.reset()
    assert round(gib(memory, "MemAvailable")) == 117


def test_the_runtime_softens_and_counts_the_gpus_memory(tmp_path: Path) -> None:
    """The whole script, with a runc and a memory module that record."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/runc").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/runc.log\n')
    (tmp_path / "bin/runc").chmod(0o755)
    (tmp_path / "memory.py").write_text(
        f"TOTAL_KIB = 1000\nlog = open({str(tmp_path / 'memory.log')!r}, 'a')\n"
        "def claim(name, kib): print('claim', name, kib, file=log, flush=True)\n"
        "def release(name, after=0): print('release', name, after, file=log, flush=True)\n"
        "def setting(name, default): return default\n"
    )
    # The script that Docker is told of, and the Python program that it starts beside the memory module.
    starter = (FILES / "usr/local/bin/softening-runc").read_text()
    (tmp_path / "softening-runc").write_text(starter.replace("/usr/local/lib/spark-sim", str(tmp_path)))
    program = (FILES / "usr/local/lib/spark-sim/softening_runc.py").read_text()
    (tmp_path / "softening_runc.py").write_text(program.replace("/var/log/oci-runtime.jsonl", str(tmp_path / "oci.jsonl")))
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    process = {
        "args": ["vllm", "serve", "--gpu-memory-utilization", "0.85"],
        "env": ["NVIDIA_VISIBLE_DEVICES=all"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2**40, "soft": 2**40}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
        "oomScoreAdj": -500,
    }
    (bundle / "config.json").write_text(json.dumps({"process": process}))

    def runtime(*args: str) -> None:
        path = f"{tmp_path}/bin:{os.environ['PATH']}"
        subprocess.run(["sh", str(tmp_path / "softening-runc"), *args], check=True, env={**os.environ, "PATH": path})

    runtime("--root", "/r", "--log", "/l", "create", "--bundle", str(bundle), "abc")
    runtime("--root", "/r", "delete", "--force", "abc")
    softened = json.loads((bundle / "config.json").read_text())["process"]
    assert softened["rlimits"] == [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]
    assert softened["oomScoreAdj"] == 0
    assert json.loads((tmp_path / "oci.jsonl").read_text())["process"]["oomScoreAdj"] == -500
    assert (tmp_path / "memory.log").read_text().splitlines() == ["claim container-abc 850", "release container-abc 2.0"]
    assert len((tmp_path / "runc.log").read_text().splitlines()) == 2


@pytest.fixture
def later(memory: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The process that gives memory back later runs the module's file: here a copy with this test's paths."""
    source = (FILES / "usr/local/lib/spark-sim/memory.py").read_text()
    copy = tmp_path / "memory.py"
    copy.write_text(source.replace("/proc/meminfo", str(memory.MEMINFO)).replace("/run/spark-sim/memory", str(memory.CLAIMS)))
    monkeypatch.setattr(memory, "__file__", str(copy))
    memory.reset()
    return memory


def gone(path: Path, within: float) -> bool:
    """Does the file go in time?"""
    end = time.monotonic() + within
    while path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    return not path.exists()


def test_memory_can_be_given_back_later(later: ModuleType) -> None:
    later.claim("a", 1024)
    later.release("a", after=0.2)
    assert (later.CLAIMS / "a").exists()
    assert gone(later.CLAIMS / "a", within=5)


def test_memory_claimed_again_is_not_given_back(later: ModuleType) -> None:
    later.claim("a", 1024)
    later.release("a", after=0.2)
    later.claim("a", 1024)
    assert not gone(later.CLAIMS / "a", within=0.8)
