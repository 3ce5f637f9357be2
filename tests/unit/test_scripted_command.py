# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command `vllm serve` of the scripted image, as a process with an installed package like the image's."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sim.vllm_scripted.__main__ import STOCK, ModelError, tensors

TESTS = Path(__file__).parents[1]
VERSION = "0.19.1.dev6+g6d4a8e6d2"
READY = "Application startup complete."
Start = Callable[..., "Served"]


class Served:
    """A running command and what it has printed so far, both streams in one."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port, self.lines = process, port, list[str]()

    def until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if words in line:
                return
        pytest.fail(f"{words!r} is not in\n" + "\n".join(self.lines))

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=10), "\n".join(self.lines)


def write_shard(path: Path, names: list[str]) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [4], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * len(names)))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    write_shard(folder / "model-1.safetensors", ["model.language_model.layers.0.moe.experts.0.down_proj.weight_scale"])
    write_shard(folder / "model-2.safetensors", ["lm_head.weight"])
    return folder


@pytest.fixture
def start(tmp_path: Path, model: Path) -> Iterator[Start]:
    site = tmp_path / "site"
    models = site / "vllm/model_executor/models"
    models.mkdir(parents=True)
    for folder in (models, models.parent, models.parent.parent):
        (folder / "__init__.py").touch()
    (models / "gemma4.py").write_text("PATCHED = True\n")
    information = site / f"vllm-{VERSION}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
    running: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def run(*flags: str, scenario: str = "fast", patched: bool = True, **variables: str) -> Served:
        if not patched:
            (models / "gemma4.py").write_bytes(STOCK.read_bytes())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        argv = [sys.executable, "-m", "sim.vllm_scripted", "serve", "--model", str(model), "--served-model-name", "gemma-4-26b"]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--quantization", "modelopt", "--moe-backend", "marlin", *flags]
        environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{site}", "SIM_SCENARIO": scenario, "SIM_START_SECONDS": "0.05", **variables}
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        # What should have ended, or said something, must not make the test wait for ever.
        timer = threading.Timer(20, process.kill)
        timer.start()
        running.append((process, timer))
        return Served(process, port)

    yield run
    for process, timer in running:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_serves_as_soon_as_it_says_so_and_ends_when_asked(start: Start) -> None:
    served = start()
    served.until(READY)
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/v1/models", timeout=5) as response:
        assert json.load(response)["data"][0]["id"] == "gemma-4-26b"
    served.process.send_signal(signal.SIGTERM)
    code, text = served.end()
    assert code == 0
    assert "100% Completed | 2/2" in text
    assert '"GET /v1/models HTTP/1.1" 200 OK' in text
    assert text.index("Shutdown initiated (timeout=0)") < text.index("Application shutdown complete.")


def test_the_api_key_of_the_environment(start: Start) -> None:
    served = start(VLLM_API_KEY="k3y")
    served.until(READY)
    url = f"http://127.0.0.1:{served.port}/v1/models"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=5)
    urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": "Bearer k3y"}), timeout=5).close()
    served.process.terminate()
    assert "k3y" not in served.end()[1]


@pytest.mark.parametrize(("flags", "events"), [((), "Aborting 1 requests"), (("--shutdown-timeout", "5"), "Draining 1 in-flight requests")])
def test_a_stop_with_a_request_in_flight(start: Start, flags: tuple[str, ...], events: str) -> None:
    served = start(*flags, scenario='{"stream": {"tok_s": 100, "ttft_ms": 5}}')
    served.until(READY)
    body = json.dumps({"prompt": "Write a story.", "max_tokens": 60, "stream": True}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/v1/completions", body, timeout=10) as response:
        response.readline()
        served.process.send_signal(signal.SIGTERM)
        rest = response.read()
    code, text = served.end()
    assert code == 0
    assert events in text
    assert (b'"finish_reason":"length"' in rest) == bool(flags)
    assert (b'"finish_reason":"abort"' in rest) == (not flags)


@pytest.mark.parametrize(
    ("flags", "scenario", "patched", "code", "words"),
    [
        (("--moe-backnd", "marlin"), "good", True, 2, "vllm: error: unrecognized arguments: --moe-backnd marlin"),
        (("--enable-auto-tool-choice",), "good", True, 1, "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser"),
        ((), "godo", True, 2, "there is no scenario godo"),
        ((), "exit-in-start", True, 137, "50% Completed | 1/2"),
        ((), "fp4-crash", True, 1, "Failed to run cutlass FP4 gemm on sm120"),
        ((), "good", False, 1, "KeyError: 'layers.0.moe.experts.0.down_proj.weight_scale'"),
    ],
)
def test_starts_that_fail(start: Start, flags: tuple[str, ...], scenario: str, patched: bool, code: int, words: str) -> None:
    got, text = start(*flags, scenario=scenario, patched=patched).end()
    assert got == code
    assert words in text
    assert READY not in text


def test_a_start_that_hangs_stays_until_it_is_stopped(start: Start) -> None:
    served = start(scenario="hang-in-start")
    served.until("Loading weights took")
    time.sleep(0.3)
    assert served.process.poll() is None
    served.process.send_signal(signal.SIGTERM)
    assert READY not in served.end()[1]


def test_a_model_that_is_not_there_or_broken(start: Start, model: Path) -> None:
    shard = model / "model-2.safetensors"
    shard.write_bytes(shard.read_bytes()[:-2])
    code, text = start().end()
    assert (code, "incomplete metadata, file not fully covered" in text) == (1, True)
    (model / "config.json").unlink()
    code, text = start().end()
    assert (code, f"Invalid repository ID or local directory specified: '{model}'" in text) == (1, True)


def test_a_broken_shard_is_found(tmp_path: Path) -> None:
    write_shard(tmp_path / "good.safetensors", ["a", "b"])
    assert tensors(tmp_path / "good.safetensors") == ["a", "b"]
    (tmp_path / "html.safetensors").write_bytes(b"<html>404 not found</html>")
    with pytest.raises(ModelError, match="header too large"):
        tensors(tmp_path / "html.safetensors")
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(ModelError, match="invalid JSON"):
        tensors(tmp_path / "empty.safetensors")


def test_the_engine_dies_while_it_serves(start: Start) -> None:
    served = start(scenario='{"base": "fast", "fault": {"die_after": 0}}')
    served.until(READY)
    body = json.dumps({"prompt": "Write a story."}).encode()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{served.port}/v1/completions", body, timeout=10)
    code, text = served.end()
    assert code == 0
    assert "EngineDeadError: EngineCore encountered an issue" in text
