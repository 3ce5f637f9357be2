# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The parts of the benchmarks that figures rest on: the reference, the ways to stream, what a command costs, the generated log."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog
from benchmarks import clients, process, proof, startup_log
from benchmarks.scripted import BROKEN, MODES, scripted

JOB = clients.Job("http://127.0.0.1:9", 3, 20, 1, Path("tokenizer"), "http://127.0.0.1:9/book", Path())


@pytest.fixture
def server_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def test_the_scripted_server_runs_in_a_process_of_its_own_and_ends_with_the_benchmark(tmp_path: Path, server_environment: None) -> None:
    with scripted() as server:
        for script in [*MODES.values(), *BROKEN.values()]:
            server.play(script)
        server.play({"tok_s": 2000.0, "ttft_ms": 5.0})
        reading, cost = clients.measure(clients.OURS, clients.Job(server.base_url, 2, 30, 1, tmp_path, "", tmp_path / "ours"))
        truth = server.truth(30)
        assert server.truth(31) == []
    assert (reading.good, reading.bad, reading.words, cost.code) == (2, 0, "", 0)
    assert [stream.tokens for stream in truth] == [30, 30]
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        server.truth(30)


def test_our_reading_of_a_failure_has_its_words() -> None:
    result = {"sequential": None, "parallel": None, "failures": ["the server sent no usage"], "msg": "x"}
    reading = clients.OURS.read(JOB, f"\n{json.dumps(result)}\n")
    assert reading == clients.Reading(0, 3, None, None, "the server sent no usage")


@pytest.mark.parametrize(
    ("name", "file", "result", "expected"),
    [
        (
            "vllm",
            "result.json",
            {"completed": 3, "failed": 0, "mean_tpot_ms": 10.0, "mean_ttft_ms": 54.0},
            clients.Reading(3, 0, 100.0, 54.0),
        ),
        (
            "llama-benchy",
            "result.json",
            {"benchmarks": [{"tg_throughput": {"mean": 99.0}, "e2e_ttft": {"mean": 55.0, "values": [55.0, 55.0]}}]},
            clients.Reading(2, 1, 99.0, 55.0),
        ),
        (
            "aiperf",
            "profile_export_aiperf.json",
            {"request_count": {"avg": 3.0}, "time_to_first_token": {"avg": 56.0}, "error_summary": []},
            clients.Reading(3, 0, None, 56.0),
        ),
    ],
)
def test_what_a_client_reports_is_read(name: str, file: str, result: Any, expected: clients.Reading, tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(result))
    client = next(client for client in clients.PEERS if client.name == name)
    job = clients.Job("http://127.0.0.1:9", 3, 20, 1, tmp_path, "", tmp_path)
    assert client.read(job, "") == expected


def test_a_client_that_ends_without_a_result_gives_its_last_line(tmp_path: Path) -> None:
    broken = clients.Client("x", "X", (), lambda job: ["sh", "-c", "echo begun; echo no such option >&2; exit 2"], clients.PEERS[0].read)
    reading, cost = clients.measure(broken, clients.Job("", 3, 20, 1, tmp_path, "", tmp_path / "x"))
    assert reading == clients.Reading(0, 3, None, None, "no such option")
    assert cost.code == 2


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    cost = process.run(["sh", "-c", f"sleep 300 & echo $! > {pid}; wait"], tmp_path / "log", timeout=0.5)
    assert cost.code == -9
    stat = Path(f"/proc/{pid.read_text().strip()}/stat")
    until = time.monotonic() + 10
    # What nobody has reaped yet is a zombie.
    while stat.exists() and " Z " not in stat.read_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert not stat.exists() or " Z " in stat.read_text()


def test_the_memory_of_all_processes_of_a_command_counts(tmp_path: Path) -> None:
    grow = "import time; held = b'x' * 40_000_000; time.sleep(0.6)"
    both = f"import subprocess, sys; other = subprocess.Popen([sys.executable, '-c', {grow!r}]); {grow}; other.wait()"
    cost = process.run([sys.executable, "-c", both], tmp_path / "log", timeout=30, memory=True)
    assert cost.code == 0
    assert 75 < cost.peak_mb < 160


def test_the_generated_log_is_as_long_as_asked_and_never_decided() -> None:
    size = 3_000_001
    parser = StartupLog()
    length = 0
    for block in startup_log.log(size):
        length += len(block)
        parser.feed(block)
    assert length == size
    assert not parser.ended
    found = parser.first("moe_backend")
    assert found is not None
    assert found.value == "MARLIN"


def test_errors_are_relative_to_the_truth() -> None:
    assert proof.error(101.0, 100.0) == pytest.approx(1.0)
    assert proof.error(None, 100.0) is None


def test_vllm_s_own_figures_are_means_over_what_came_in_between() -> None:
    before = {"time_to_first_token_seconds_sum": 1.0, "time_to_first_token_seconds_count": 10.0}
    after = {
        **{"time_to_first_token_seconds_sum": 1.1, "time_to_first_token_seconds_count": 12.0},
        **{"request_time_per_output_token_seconds_sum": 0.04, "request_time_per_output_token_seconds_count": 2.0},
    }
    assert proof._between(before, after) == {"own_ttft_ms": pytest.approx(50.0), "own_decode_tok_s": pytest.approx(50.0)}
    assert proof._between(after, after) == {"own_ttft_ms": None, "own_decode_tok_s": None}
