# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The evidence: one JSON document per container that says what was seen and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

SCHEMA = 1
PROVEN, FAILED = "proven", "failed"


def document(
    spark: Mapping[str, Any],
    box: str,
    container: str,
    recipe: str,
    image: Mapping[str, Any],
    startup: Mapping[str, Any],
    probes: Mapping[str, Any],
    throughput: Mapping[str, Any],
    failure: str,
) -> dict[str, Any]:
    """The evidence of one container.

    C(spark), C(image), C(startup), C(probes) and C(throughput) are the results of the modules of these names (empty when one did not
    run); C(failure) is the message of the step that stopped the proof. Every failure that a module returned is listed, then the message
    when no list says it already.
    """
    found: Mapping[str, Any] = next((c for c in spark["containers"] if c["name"] == container), {})
    failures = [
        *(_startup_failure(entry) for entry in startup.get("failures") or []),
        *(str(entry) for entry in probes.get("failures") or []),
        *(str(entry) for entry in throughput.get("failures") or []),
    ]
    if failure and not failures:
        failures = [failure]
    model = spark["model"] or {}
    return {
        "schema": SCHEMA,
        "box": box,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe,
        "container": {"name": container, **{key: found.get(key) for key in ("id", "spec_digest", "started_at")}},
        "image": {"name": found.get("image"), **{key: image.get(key) for key in ("id", "digest", "vllm_version")}},
        "model": {key: model.get(key) for key in ("repo", "commit")},
        "startup": startup.get("startup") or {},
        "log_tail": list(startup.get("tail") or []),
        "probes": list(probes.get("probes") or []),
        "throughput": {
            key: throughput[key] for key in ("sequential", "long", "parallel", "roofline_share") if throughput.get(key) is not None
        },
        "failures": failures,
        "verdict": FAILED if failures else PROVEN,
    }


def _startup_failure(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    text = f"startup log: expected {entry.get('expected')}, saw {entry.get('seen')}"
    if entry.get("line"):
        text += f" in the line {str(entry['line']).strip()!r}"
    return text + (f"; {entry['remedy']}" if entry.get("remedy") else "")


def summary(evidence: Mapping[str, Any]) -> dict[str, str]:
    """One row of the report: what a reader wants to know of a proven box, as text."""
    probes: Sequence[Mapping[str, Any]] = evidence["probes"]
    speed = evidence["throughput"]
    sequential = speed.get("sequential") or {}
    return {
        "vLLM": str(evidence["startup"].get("vllm_version") or evidence["image"].get("vllm_version") or "?"),
        "log": "ok" if evidence["startup"].get("ready") else "failed",
        "probes": f"{sum(1 for probe in probes if probe['ok'])}/{len(probes)}",
        "decode tok/s": _number((sequential.get("decode_tok_s") or {}).get("mean")),
        "TTFT ms": _number((sequential.get("ttft_ms") or {}).get("mean")),
        "aggregate": _number((speed.get("parallel") or {}).get("aggregate_tok_s")),
        "verdict": evidence["verdict"],
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of equal keys as aligned lines with a header; an empty list gives no line."""
    if not rows:
        return []
    keys = list(rows[0])
    width = {key: max(len(key), *(len(row[key]) for row in rows)) for key in keys}
    header = "  ".join(key.ljust(width[key]) for key in keys)
    return [header.rstrip(), "  ".join("-" * width[key] for key in keys)] + [
        "  ".join(row[key].ljust(width[key]) for key in keys).rstrip() for row in rows
    ]
