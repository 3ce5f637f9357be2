# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The evidence: one JSON document per container that says what was seen and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._throughput import single_stream

SCHEMA = 2
PROVEN, FAILED = "proven", "failed"


_MEASURED = ("sequential", "long", "parallel", "roofline", "speculation", "other_traffic", "notes")
# Less than this is scheduling, whatever share of a short TTFT it is.
_TTFT_JITTER_MS = 25.0


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
    thresholds: Mapping[str, Any] | None = None,
    regression_max: float = 0.05,
) -> dict[str, Any]:
    """The evidence of one container.

    C(spark), C(image), C(startup), C(probes) and C(throughput) are the results of the modules of these names (empty when one did not
    run); C(failure) is the message of the step that stopped the proof. Every failure that a module returned is listed, then the message
    when no list says it already. C(thresholds) are those that the throughput was held against, for a reader.

    What C(spark) has of earlier evidence is compared: a rate that lost more than the share C(regression_max) is a regression. A container
    that was not measured now keeps the figures that were measured on it.
    """
    found: Mapping[str, Any] = next((c for c in spark["containers"] if c["name"] == container), {})
    last = _last(spark.get("evidence"), recipe)
    parts = (("startup log", startup), ("probes", probes), ("throughput", throughput))
    failures = [
        *(f"{name}: the box could not be reached ({result.get('msg')})" for name, result in parts if result.get("unreachable")),
        *(_startup_failure(entry) for entry in startup.get("failures") or []),
        *(str(entry) for entry in probes.get("failures") or []),
        *(str(entry) for entry in throughput.get("failures") or []),
    ]
    if failure and not failures:
        failures = [failure]
    model = spark["model"] or {}
    measured = {key: throughput[key] for key in _MEASURED if throughput.get(key) is not None}
    if measured:
        measured["thresholds"] = dict(thresholds or {})
    elif last and last["container"].get("id") == found.get("id"):
        measured = dict(last["throughput"])
    now = {"vllm_version": image.get("vllm_version"), **figures(measured)}
    previous = {"time": last["time"], "vllm_version": last["image"].get("vllm_version"), **figures(last["throughput"])} if last else None
    return {
        "schema": SCHEMA,
        "box": box,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe,
        "container": {
            "name": container,
            **{key: found.get(key) for key in ("id", "spec_digest", "started_at")},
            "wants_key": bool(found.get("api_key_file")),
        },
        "image": {"name": found.get("image"), **{key: image.get(key) for key in ("id", "digest", "vllm_version")}},
        "model": {key: model.get(key) for key in ("repo", "commit")},
        "draft": found.get("draft"),
        "patches": dict(found.get("patches") or {}),
        "host": _host(spark),
        "startup": startup.get("startup") or {},
        "log_tail": list(startup.get("tail") or []),
        "probes": list(probes.get("probes") or []),
        "throughput": measured,
        "previous": previous,
        "regressions": regressions(now, previous, regression_max) if previous else [],
        "failures": failures,
        "verdict": FAILED if failures else PROVEN,
    }


def _last(evidence: Any, recipe: str) -> Mapping[str, Any] | None:
    """The evidence that the box had before, if there are figures of this recipe in it."""
    if not isinstance(evidence, Mapping) or evidence.get("recipe") != recipe or evidence.get("verdict") != PROVEN:
        return None
    return evidence if evidence.get("throughput") else None


def _host(spark: Mapping[str, Any]) -> dict[str, Any]:
    """What may have been updated since it worked: versions of all that is below the container."""
    gpu: Mapping[str, Any] = next(iter(spark.get("gpus") or []), {})
    system = spark.get("os") or {}
    return {
        "os": system.get("pretty_name"),
        "dgx_os": system.get("dgx_os"),
        "kernel": spark.get("kernel"),
        "gpu": gpu.get("name"),
        "driver": gpu.get("driver_version"),
        "docker": (spark.get("docker") or {}).get("version"),
        "toolkit": (spark.get("toolkit") or {}).get("nvidia-container-toolkit"),
    }


def figures(throughput: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures by which a box is known: decode_tok_s and ttft_ms of one stream, aggregate_tok_s of several."""
    decode, ttft = single_stream(throughput)
    return {"decode_tok_s": decode, "ttft_ms": ttft, "aggregate_tok_s": (throughput.get("parallel") or {}).get("aggregate_tok_s")}


def regressions(now: Mapping[str, Any], before: Mapping[str, Any], most: float) -> list[str]:
    """One sentence for each figure that is worse than C(before) by more than the share C(most)."""
    found = []
    versions = [str(entry.get("vllm_version") or "?") for entry in (before, now)]
    since = f"on {str(before.get('time'))[:10]}" + (f" (vLLM {versions[0]} then, {versions[1]} now)" if versions[0] != versions[1] else "")
    for key, name in (("decode_tok_s", "decode"), ("aggregate_tok_s", "aggregate")):
        was, is_ = before.get(key), now.get(key)
        if was and is_ is not None and is_ < was * (1 - most):
            found.append(f"{name} {is_:.1f} tok/s is {100 * (1 - is_ / was):.1f} % below the {was:.1f} tok/s {since}")
    was, is_ = before.get("ttft_ms"), now.get("ttft_ms")
    if was and is_ is not None and is_ > was * (1 + most) and is_ - was > _TTFT_JITTER_MS:
        found.append(f"TTFT {is_:.0f} ms is {100 * (is_ / was - 1):.0f} % above the {was:.0f} ms {since}")
    return found


def _startup_failure(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    text = f"startup log: expected {entry.get('expected')}, saw {entry.get('seen')}"
    if entry.get("line"):
        text += f" in the line {str(entry['line']).strip()!r}"
    return text + (f"; {entry['remedy']}" if entry.get("remedy") else "")
