# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""vLLM against Ollama on one box: one JSON document from what the modules returned, and the table that a reader wants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils import _report_text

SCHEMA = 1
# Requests that are answered in turn get 1.0 of what one alone gets, give or take a few percent.
AT_ONCE = 1.2
# What two measurements of the same server differ by is no victory.
TIE_PERCENT = 1.0
TITLES = {"vllm": "vLLM", "ollama": "Ollama"}


def document(
    spark: Mapping[str, Any],
    box: str,
    recipe: Mapping[str, Any],
    ollama_recipe: Mapping[str, Any],
    workload: Mapping[str, Any],
    vllm: Mapping[str, Any],
    ollama: Mapping[str, Any],
    failure: str = "",
) -> dict[str, Any]:
    """The comparison on one box.

    C(spark) are the box's facts before the comparison. C(vllm) and C(ollama) are what was measured: {throughput, tools} with the results of
    openai_throughput and openai_probe, Ollama's with C(loaded) and C(after), the results of ollama_models before and after it; empty for a
    side that was not measured. Rates are in tok/s, C(percent) says by how much the winner decodes faster. There is no winner when a side
    was not measured, or is not at its own speed.
    """
    sides: dict[str, dict[str, Any] | None] = {
        "vllm": _vllm(spark, recipe, vllm) if vllm else None,
        "ollama": _ollama(ollama_recipe, ollama) if ollama else None,
    }
    winner, percent = _winner(sides)
    return {
        "schema": SCHEMA,
        "box": box,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe["name"],
        "workload": dict(workload),
        **sides,
        "winner": winner,
        "percent": percent,
        "failure": failure or None,
    }


def _vllm(spark: Mapping[str, Any], recipe: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    evidence = spark["evidence"] or {}
    side = _measured(measured)
    limit = ((evidence.get("throughput") or {}).get("roofline") or {}).get("limit_tok_s")
    if side["roofline"] is None and limit and side["decode_tok_s"]:
        # The limit is the checkpoint's, so the one of its deployment still holds.
        side["roofline"] = {"limit_tok_s": limit, "share": round(side["decode_tok_s"] / limit, 4)}
    return {
        "model": recipe["served_model_name"],
        "quantization": recipe["model"]["quantization"],
        "model_gb": _gb((spark["model"] or {}).get("bytes")),
        "kv_cache_gib": (evidence.get("startup") or {}).get("kv_cache_memory_gib"),
        "split": None,
        **side,
    }


def _ollama(recipe: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    loaded = measured["loaded"]
    model = loaded["models"][0]
    split = [*measured["after"]["split"], *loaded["split"]]
    return {
        "model": model["name"],
        "quantization": model["quantization"] or recipe["model"]["quantization"],
        "model_gb": _gb(model["size"]),
        # Ollama sets it aside when it loads a model, and tells nobody how much.
        "kv_cache_gib": None,
        "split": split[0] if split else None,
        **_measured(measured),
    }


def _gb(size: int | None) -> float | None:
    return round(size / 1e9, 2) if size else None


def _measured(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What both sides were measured by. C(scaling) is the aggregate over the end-to-end rate of one request alone."""
    throughput, probe = measured["throughput"], measured["tools"]["probes"][0]
    single, parallel = throughput.get("sequential") or {}, throughput.get("parallel") or {}
    alone, aggregate = (single.get("e2e_tok_s") or {}).get("mean"), parallel.get("aggregate_tok_s")
    return {
        "decode_tok_s": (single.get("decode_tok_s") or {}).get("mean"),
        "e2e_tok_s": alone,
        "ttft_ms": (single.get("ttft_ms") or {}).get("mean"),
        "aggregate_tok_s": aggregate,
        "scaling": round(aggregate / alone, 2) if aggregate and alone else None,
        "tool_calling": {"ok": probe["ok"], "why": probe["why"]},
        "roofline": throughput.get("roofline"),
        "notes": list(throughput.get("notes") or []),
    }


def _winner(sides: Mapping[str, Mapping[str, Any] | None]) -> tuple[str | None, float | None]:
    """The engine that decodes faster, and by how many percent. Nobody, when that cannot be said."""
    rates = {name: side["decode_tok_s"] for name, side in sides.items() if side and side["decode_tok_s"] and not side["split"]}
    if len(rates) < len(sides):
        return None, None
    fast, slow = sorted(rates, key=lambda name: -rates[name])
    percent = round(100 * (rates[fast] / rates[slow] - 1), 1)
    return (fast if percent >= TIE_PERCENT else None), percent


def lines(comparison: Mapping[str, Any]) -> list[str]:
    """The comparison as the lines of a table of both sides, what a reader must know of it, and the sentence that says who wins."""
    sides: list[tuple[str, Mapping[str, Any]]] = [(name, comparison[name]) for name in TITLES if comparison[name]]
    titles = {name: f"{TITLES[name]} {side['quantization']}".rstrip() for name, side in sides}
    requests = comparison["workload"]["parallel"]["requests"]
    cells = [(titles[name], _cells(side, name, requests)) for name, side in sides]
    labels = list(cells[0][1]) if cells else []
    rows = [{"": label} | {title: column[label] for title, column in cells} for label in labels]
    return [*_warnings(comparison), *_report_text.table(rows), "", *_notes(sides), _sentence(comparison)]


def _cells(side: Mapping[str, Any], engine: str, requests: int) -> dict[str, str]:
    """One column: {label: text}. C(requests) is how many ran in parallel."""
    decode = _number(side["decode_tok_s"])
    roofline = side["roofline"]
    return {
        "decode, tok/s": f"{decode} (split)" if side["split"] else decode,
        "TTFT, ms": _number(side["ttft_ms"]),
        f"aggregate at {requests} parallel, tok/s": _number(side["aggregate_tok_s"]),
        "model size, GB": _number(side["model_gb"]),
        "KV cache available, GiB": _number(side["kv_cache_gib"]) if engine == "vllm" else "N/A",
        "concurrent requests": _at_once(side["scaling"]),
        "tool calling": "yes" if side["tool_calling"]["ok"] else "no",
        "share of the memory limit": f"{100 * roofline['share']:.0f} % of {roofline['limit_tok_s']:.1f} tok/s" if roofline else "unknown",
    }


def _at_once(scaling: float | None) -> str:
    if scaling is None:
        return "-"
    return f"yes ({scaling:.1f} x one alone)" if scaling >= AT_ONCE else f"no, in turn ({scaling:.1f} x one alone)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _warnings(comparison: Mapping[str, Any]) -> list[str]:
    side = comparison["ollama"]
    if not side or not side["split"]:
        return []
    split = side["split"]
    return [
        f"{split['cpu_percent']}% CPU / {split['gpu_percent']}% GPU: Ollama split the weights of {side['model']},"
        " its figure is not its speed.",
        "It does so when it finds too little free memory, also after a vLLM container that is stopped by now: 'systemctl restart ollama' on"
        " the box, and compare again.",
        "",
    ]


def _notes(sides: list[tuple[str, Mapping[str, Any]]]) -> list[str]:
    found = []
    for name, side in sides:
        if not side["tool_calling"]["ok"]:
            found.append(f"{TITLES[name]}, tool calling: {side['tool_calling']['why']}")
        found += [f"{TITLES[name]}: {note}" for note in side["notes"]]
    return found


def _sentence(comparison: Mapping[str, Any]) -> str:
    winner, percent, vllm, ollama = (comparison[key] for key in ("winner", "percent", "vllm", "ollama"))
    if not vllm or not ollama:
        return f"No comparison: {comparison['failure'] or 'one side was not measured'}"
    if percent is None:
        why = "Ollama's weights were split" if ollama["split"] else "the output of a side came in one burst, so it has no decode rate"
        return f"Nobody wins: {why}."
    both = f"{vllm['decode_tok_s']:.1f} against {ollama['decode_tok_s']:.1f} tok/s"
    if winner is None:
        return f"Nobody wins: {both}."
    return f"{TITLES[winner]} wins by {percent:.0f} % ({both})."
