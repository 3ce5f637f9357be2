# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What vLLM's /metrics says: who is served, what was generated, and how well speculation guesses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?\s+(\S+)", re.MULTILINE)
_WANTED = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "generated": "vllm:generation_tokens_total",
    "drafts": "vllm:spec_decode_num_drafts_total",
    "accepted": "vllm:spec_decode_num_accepted_tokens_total",
    "cache_usage": "vllm:kv_cache_usage_perc",
}


@dataclass(frozen=True)
class Metrics:
    """Sums over all engines; None for what the server does not tell."""

    running: float | None = None
    waiting: float | None = None
    generated: float | None = None
    drafts: float | None = None
    accepted: float | None = None
    cache_usage: float | None = None


def read(text: str) -> Metrics:
    """The metrics of a text in Prometheus' format. Lines that are not understood do not count."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(text):
        try:
            sums[name] = sums.get(name, 0.0) + float(value)
        except ValueError:
            continue
    return Metrics(**{key: sums.get(name) for key, name in _WANTED.items()})


def other_traffic(before: Metrics, after: Metrics, own_tokens: int) -> dict[str, Any] | None:
    """Who else was served: {running_before, foreign_tokens, seen}. None when the server does not tell.

    C(own_tokens) is what our requests generated between the two readings.
    """
    if before.generated is None or after.generated is None or before.running is None:
        return None
    foreign = max(0, round(after.generated - before.generated - own_tokens))
    running = round(before.running + (before.waiting or 0))
    # The counter may run ahead of what we were told by a few tokens of a step.
    return {"running_before": running, "foreign_tokens": foreign, "seen": running > 0 or foreign > max(8, own_tokens // 100)}


def speculation(before: Metrics, after: Metrics, decode_tok_s: float | None) -> dict[str, Any] | None:
    """{acceptance_length, steps_s}: tokens per step, and steps per second, which does not depend on what is written.

    None without speculation.
    """
    if None in (before.drafts, before.accepted, after.drafts, after.accepted):
        return None
    drafts = (after.drafts or 0) - (before.drafts or 0)
    accepted = (after.accepted or 0) - (before.accepted or 0)
    if drafts <= 0:
        return None
    length = 1 + accepted / drafts
    return {"acceptance_length": round(length, 4), "steps_s": None if decode_tok_s is None else round(decode_tok_s / length, 3)}
