# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Rows as the playbooks hand them to the report. The figures are the article's, or invented where it has none."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from unit.startup_logs import ARTICLE_FACTS

RUN = "2026-11-23T100530Z"
RECIPE = {"name": "gemma4-26b-a4b-nvfp4", "summary": "Gemma 4 26B-A4B, NVFP4 by bg-digitalservices, vLLM 0.19 with the Marlin MoE backend"}
RUNS = (51.6, 51.5, 51.5, 51.6, 51.6)

_STORY = (
    "The lighthouse at Skerry Point had stood for a hundred and forty years before anyone thought to write down the names of its keepers."
    " Mara found the list in a drawer that smelled of lamp oil, forty-one names in eleven hands, and the last of them was her"
    " grandfather's. He had kept the light through the winter of the long ice, when no ship came for nine weeks and the gulls walked on"
    " the harbour as if it were a field."
)
_PROBES = (
    ("models", "", "gemma-4-26b"),
    ("arithmetic", "What is 2+2? Answer with one number.", "4"),
    ("fact", "What is the capital of France?", "The capital of France is **Paris**."),
    ("json", 'Reply with JSON {"ok": true}', '{"ok": true}'),
    ("tool_call", "What is the weather in Paris? Use the tool.", 'get_weather({"city": "Paris"})'),
    ("tool_call_stream", "What is the weather in Paris? Use the tool.", 'get_weather({"city": "Paris"})'),
    ("reasoning", "What is 17 * 23?", "17 * 23 = 391"),
    ("logprobs", "What is the capital of France?", "8 tokens, all finite, the first is 'The' with -0.0021"),
    ("story", "Write a long story about a lighthouse.", _STORY),
)
_WARNINGS = (
    "Detected ModelOpt NVFP4 checkpoint. Please note that the format is experimental and could change in future.",
    "Your GPU does not have native support for FP4 computation but FP4 quantization is being used. Weight-only FP4 compression will be used"
    " leveraging the Marlin kernel. This may degrade performance for compute-heavy workloads.",
    "Using KV cache scaling factor 1.0 for fp8_e4m3. If this is unintended, verify that k/v_scale scaling factors are properly set.",
)


def spread(values: Sequence[float]) -> dict[str, float]:
    """The statistics of a measurement."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return {"mean": round(mean, 3), "stdev": round(deviation, 3), "cv": deviation / mean, "min": min(values), "max": max(values)}


def throughput(runs: Sequence[float] = RUNS, ttft: float = 53.0, parallel: Sequence[float] = (38.4, 38.2, 38.1)) -> dict[str, Any]:
    """A measurement: `runs` are the decode rates of sequential runs, `parallel` those of simultaneous requests, `ttft` is in ms."""

    def run(tokens: int, rate: float) -> dict[str, float]:
        return {"tokens": tokens, "decode_tok_s": rate, "e2e_tok_s": round(rate * 0.997, 2), "ttft_ms": ttft}

    mean = statistics.fmean(runs)
    return {
        "sequential": {
            "runs": [run(800, rate) for rate in runs],
            "decode_tok_s": spread(runs),
            "e2e_tok_s": spread(runs),
            "ttft_ms": spread([ttft, ttft + 1, ttft - 1]),
        },
        "long": run(1633, round(mean - 0.56, 1)),
        "parallel": {
            "aggregate_tok_s": round(sum(parallel) * 0.9991, 1),
            "fairness": min(parallel) / max(parallel),
            "decode_tok_s": spread(parallel),
            "ttft_ms": spread([ttft * 2, ttft * 2.1]),
            "requests": [run(500, rate) for rate in parallel],
        },
        "thresholds": {"decode_tok_s_min": 46.8, "aggregate_tok_s_min": 103, "ttft_ms_max": 130, "roofline_share_min": None},
        "notes": [],
        "speculation": None,
        "other_traffic": {"running_before": 0, "foreign_tokens": 0, "seen": False},
        "roofline": {
            "limit_tok_s": 83.2,
            "share": round(mean / 83.2, 4),
            "bandwidth_gb_s": 273,
            "weights_gb": 3.235,
            "kv_gb": 0.048,
            "context_tokens": 420,
            "formats": {"attention": "NVFP4", "MLP": "NVFP4", "experts": "NVFP4", "router": "BF16", "lm_head": "BF16"},
            "long_limit_tok_s": 82.0,
            "aggregate_limit_tok_s": 170.8,
            "aggregate_share": 0.67,
        },
    }


def evidence(box: str = "spark-1", speed: Mapping[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """The evidence of a container that was proven; `changed` replaces whole parts."""
    document = {
        "schema": 2,
        "box": box,
        "time": "2026-11-23T10:05:12+00:00",
        "recipe": RECIPE["name"],
        "container": {"name": "gemma4-nvfp4", "id": "4f1c" * 16, "spec_digest": "9e07ab21" * 4, "started_at": "2026-11-23T10:00:01Z"},
        "image": {
            "name": "vllm/vllm-openai:gemma4-cu130",
            "id": "sha256:" + "5b2d90cc" * 8,
            "digest": "sha256:" + "e31fa8d4" * 8,
            "vllm_version": "0.19.1.dev6+g6d4a8e6d2",
        },
        "model": {"repo": "bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4", "commit": "77ab03de" * 5},
        "host": {
            "os": "Ubuntu 24.04.3 LTS",
            "dgx_os": "7.2.3",
            "kernel": "6.11.0-1016-nvidia",
            "driver": "580.95.05",
            "gpu": "NVIDIA GB10",
            "docker": "28.3.3",
            "toolkit": "1.18.0",
        },
        "startup": {
            **ARTICLE_FACTS,
            "warnings": list(_WARNINGS),
            "seconds": 149.2,
        },
        "log_tail": [],
        "probes": [{"name": name, "ok": True, "why": "", "prompt": prompt, "answer": answer} for name, prompt, answer in _PROBES],
        "throughput": dict(speed or throughput()),
        "previous": {
            "time": "2026-11-20T08:00:00+00:00",
            "vllm_version": "0.19.1.dev6",
            "decode_tok_s": 51.4,
            "ttft_ms": 54.1,
            "aggregate_tok_s": 113.9,
        },
        "regressions": [],
        "failures": [],
        "verdict": "proven",
    }
    return copy.deepcopy(document | changed)


def row(box: str = "spark-1", state: str = "fresh", **changed: Any) -> dict[str, Any]:
    """A box that was deployed and proven."""
    return {"box": box, "state": state, "evidence": evidence(box), "failed": None, "why": ""} | changed


def slow(box: str = "spark-2") -> dict[str, Any]:
    """A box whose new container was too slow, and which serves again what it served."""
    failures = [
        "decode_tok_s_min: measured 31.24 tok/s, wanted at least 46.8. Look whether something else uses the box ('nvidia-smi', 'ollama ps',"
        " 'docker stats'), whether the clocks are capped ('nvidia-smi -q -d CLOCK'), and which backends the startup log names",
        "aggregate_tok_s_min: measured 70.1 tok/s over all requests, wanted at least 103. Look whether something else uses the box",
    ]
    failed = evidence(
        box,
        throughput((31.3, 31.2, 31.2, 31.3, 31.2), 88, (23.5, 23.4, 23.3)),
        failures=failures,
        verdict="failed",
        container={"name": "gemma4-nvfp4", "id": "77aa" * 16, "spec_digest": "01ff" * 8, "started_at": "2026-11-23T10:10:01Z"},
        previous=None,
        log_tail=[f"(APIServer pid=1) INFO 11-23 10:1{n}:02 [loggers.py:259] Engine 000: generation {30 + n}.1 tokens/s" for n in range(6)],
    )
    why = f"gemma4-nvfp4 is not proven. {'. '.join(failures)} What served before was restored and answers again."
    return row(box, "serving", failed=failed, why=why)


def garbage(box: str = "spark-3") -> dict[str, Any]:
    """A box with the wrong MoE backend, which answers garbage, and on which nothing served before."""
    probes = evidence()["probes"]
    probes[2] |= {"ok": False, "answer": "!" * 256, "why": "repeats: one sign makes up all of the answer; '!!!!!!!!!!!!!!!!'"}
    failures = [
        "startup log: expected moe_backend MARLIN, saw VLLM_CUTLASS in the line \"Using 'VLLM_CUTLASS' NvFp4 MoE backend\";"
        " --moe-backend marlin was not picked up: stop and fix",
        "fact: repeats: one sign makes up all of the answer",
    ]
    failed = evidence(
        box, failures=failures, verdict="failed", probes=probes, throughput={}, previous=None, log_tail=["line one", "line two"]
    )
    failed["startup"]["moe_backend"] = "VLLM_CUTLASS"
    why = f"gemma4-nvfp4 is not proven. {'. '.join(failures)} Nothing served before; the container was stopped and is kept for a look."
    return row(box, "fresh", evidence=None, failed=failed, why=why)


def lost(box: str = "spark-4") -> dict[str, Any]:
    """A box that could not be reached."""
    return row(
        box, "unknown", evidence=None, why="Failed to connect to the host via ssh: No route to host. Bring the box back and run again."
    )


def regressed(box: str = "spark-5") -> dict[str, Any]:
    """A box that is proven, but slower than it was."""
    found = evidence(box, throughput((47.3, 47.2, 47.4, 47.3, 47.2), 61, (35.1, 35.0, 34.9)))
    found["regressions"] = ["decode 47.3 tok/s, 8.0 % less than the 51.4 of 2026-11-20"]
    return row(box, "current", evidence=found)


def old(box: str = "spark-6") -> dict[str, Any]:
    """Evidence as schema 1 had it."""
    found = evidence(box, schema=1)
    for key in ("host", "previous", "regressions"):
        del found[key]
    speed = throughput()
    found["throughput"] = {key: speed[key] for key in ("sequential", "long", "parallel")} | {"roofline_share": 0.62}
    return row(box, "current", evidence=found)


def fleet(count: int = 100) -> list[dict[str, Any]]:
    """So many proven boxes, but for the seventh, which is slow."""
    rows = []
    for index in range(1, count + 1):
        shift = ((index * 37) % 19 - 9) / 20
        speed = throughput([rate + shift for rate in RUNS], 53 + shift * 3, [rate + shift for rate in (38.4, 38.2, 38.1)])
        rows.append(row(f"spark-{index:02d}", "serving", evidence=evidence(f"spark-{index:02d}", speed)))
    rows[6] = slow("spark-07")
    return rows
