# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The boxes of a run, the worst first, and what a reader wants to know of each at a glance."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import MISSING, at, mappings, number, text, texts

# Failed: its container was not proven. Lost: it cannot be reached any more. Stopped: it never came to a proof in this run.
# Regressed: proven, but worse than the last time.
FAILED, LOST, STOPPED, NO_EVIDENCE, REGRESSED, PROVEN = "failed", "lost", "stopped", "no evidence", "regressed", "proven"
VERDICTS = (FAILED, LOST, STOPPED, NO_EVIDENCE, REGRESSED, PROVEN)
BAD = (FAILED, LOST, STOPPED)


@dataclass(frozen=True)
class Box:
    """One box. C(seen) is the evidence that the verdict is about, C(serves) that of what serves instead, if it is another container's."""

    name: str
    state: str
    verdict: str
    why: str
    seen: Mapping[str, Any]
    serves: Mapping[str, Any]

    @property
    def failures(self) -> list[str]:
        """What the evidence says against it."""
        return texts(self.seen, "failures")

    @property
    def brief(self) -> str:
        """Why, in a sentence or two: the first failure stands for all."""
        if not self.failures or self.verdict in (STOPPED, LOST):
            return self.why
        more = len(self.failures) - 1
        return self.failures[0] + (f" (and {more} more)" if more else "")

    @property
    def effect(self) -> str:
        """What C(why) says beside the failures, such as what the box does now."""
        if not self.failures:
            return self.why
        rest = self.why
        for failure in self.failures:
            rest = rest.replace(failure, ". ")
        sentences = [part.strip(" :;") for part in re.split(r"\.(?:\s|$)", rest)]
        return " ".join(f"{sentence}." for sentence in sentences if sentence)

    @property
    def vllm(self) -> str:
        """vLLM's version without its build's suffix."""
        full = text(self.seen, "startup", "vllm_version") or text(self.seen, "image", "vllm_version")
        return full.partition("+")[0] or MISSING

    @property
    def log(self) -> str:
        """The startup log's verdict: a server that is ready with another backend than was asked for failed, too."""
        ready = at(self.seen, "startup", "ready")
        if not at(self.seen, "startup"):
            return MISSING
        return "ok" if ready and not any(failure.startswith("startup log:") for failure in self.failures) else "failed"

    @property
    def port_is_open(self) -> bool:
        """Does the server want no API key? Evidence that does not say so is of an earlier version."""
        return at(self.seen, "container", "wants_key") is False

    @property
    def probes(self) -> str:
        """How many probes passed, of how many."""
        asked = mappings(self.seen, "probes")
        return f"{sum(1 for probe in asked if probe.get('ok') is True)}/{len(asked)}" if asked else MISSING

    @property
    def decode(self) -> float | None:
        """Decode tok/s of one request alone: the mean of the sequential runs, else the long run's."""
        return self._single("decode_tok_s")

    @property
    def ttft(self) -> float | None:
        """The time to the first output in ms, likewise."""
        return self._single("ttft_ms")

    @property
    def aggregate(self) -> float | None:
        """Tok/s over all parallel requests."""
        return number(self.seen, "throughput", "parallel", "aggregate_tok_s")

    @property
    def share(self) -> float | None:
        """The share of the memory-bound limit that decode reaches, between 0 and 1."""
        share = number(self.seen, "throughput", "roofline", "share")
        return share if share is not None else number(self.seen, "throughput", "roofline_share")  # schema 1

    def _single(self, name: str) -> float | None:
        if at(self.seen, "throughput", "sequential"):
            return number(self.seen, "throughput", "sequential", name, "mean")
        return number(self.seen, "throughput", "long", name)


def boxes(rows: Sequence[Mapping[str, Any]]) -> list[Box]:
    """The boxes of C(rows), which are as report_rows gives them; who needs attention comes first."""
    return sorted((_box(row) for row in rows), key=lambda box: (VERDICTS.index(box.verdict), _natural(box.name)))


def counts(found: Sequence[Box]) -> dict[str, int]:
    """How many boxes have which verdict, without those that no box has."""
    number_of = Counter(box.verdict for box in found)
    return {verdict: number_of[verdict] for verdict in VERDICTS if number_of[verdict]}


def _box(row: Mapping[str, Any]) -> Box:
    serving, failed = (part if isinstance(part, Mapping) else {} for part in (row.get("evidence"), row.get("failed")))
    seen, why = failed or serving, text(row, "why")
    if text(row, "outcome") == "lost":
        verdict = LOST
    elif failed or text(serving, "verdict") == FAILED:
        verdict, why = FAILED, why or ". ".join(texts(seen, "failures"))
    elif why:
        verdict = STOPPED
    elif not serving:
        verdict = NO_EVIDENCE
    elif regressions := texts(serving, "regressions"):
        verdict, why = REGRESSED, ". ".join(regressions)
    else:
        verdict = PROVEN
    another = bool(failed) and at(serving, "container", "id") != at(failed, "container", "id")
    return Box(text(row, "box"), text(row, "state") or "unknown", verdict, why, seen, serving if another else {})


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts spark-2 before spark-10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]
