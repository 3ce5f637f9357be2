# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The load generator as a command: how streams ended, and what a command did meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sim.vllm_scripted.server import ScriptedServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer({"base": "good", "stream": {"tok_s": 500, "ttft_ms": 5}}) as running:
        yield running


def load(server: ScriptedServer, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.load", server.base_url, "--streams", "2", "--length", "0.1", "0.2"]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_every_stream_is_counted_to_its_end(server: ScriptedServer) -> None:
    done = load(server, "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["streams"] == result["whole"] > 0


def test_it_loads_as_long_as_a_command_runs_and_ends_as_that_does(server: ScriptedServer) -> None:
    done = load(server, "--during", sys.executable, "-c", "import time; time.sleep(1); print('moved')")
    assert done.returncode == 0, done.stderr
    assert "moved" in done.stdout
    assert "whole, 0 refused, 0 broken off" in done.stdout
    assert load(server, "--during", "false").returncode == 1
