# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""One box in full, for the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils import _report_speed
from ansible_collections.dgx.spark.plugins.plugin_utils._report_boxes import BAD, PROVEN, REGRESSED, Box
from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import MISSING, at, figure, mappings, moment, number, text, texts

OPENED = 3  # up to so many boxes are all unfolded, of more only those that need attention
_EXCERPT = 240  # characters of an answer that are shown before it is unfolded


@dataclass(frozen=True)
class Fact:
    """A name and what is known under it. C(exact) is for what is compared sign by sign, such as digests."""

    name: str
    value: str
    exact: bool = False


@dataclass(frozen=True)
class Probe:
    """A question and its answer. C(excerpt) is the answer's beginning when it is long, else empty."""

    name: str
    ok: bool
    why: str
    prompt: str
    answer: str
    excerpt: str


@dataclass(frozen=True)
class Section:
    """One box in full."""

    box: Box
    anchor: str
    opened: bool
    why: str
    failures: list[str]
    regressions: list[str]
    serves: str
    about: str
    figures: list[_report_speed.Figure]
    drawings: list[_report_speed.Drawing]
    notes: list[str]
    runs: list[list[str]]
    startup: list[Fact]
    warnings: list[str]
    probes: list[Probe]
    software: list[Fact]
    host: list[Fact]
    log_tail: str


def section(box: Box, index: int, total: int, recipe: str) -> Section:
    """The box that is C(index) of C(total), in a run that asked for the recipe of this name."""
    seen = box.seen
    return Section(
        box=box,
        anchor=f"box-{index}",
        opened=total <= OPENED or box.verdict in (*BAD, REGRESSED),
        why=box.effect if box.verdict in BAD else "",
        failures=box.failures,
        regressions=texts(seen, "regressions"),
        serves=_serves(box),
        about=_about(box, recipe),
        figures=_report_speed.figures(box),
        drawings=_report_speed.drawings(seen),
        notes=_report_speed.remarks(seen),
        runs=_report_speed.runs(seen),
        startup=_startup(seen),
        warnings=texts(seen, "startup", "warnings"),
        probes=[_probe(probe) for probe in mappings(seen, "probes")],
        software=_software(seen),
        host=_host(seen),
        log_tail="\n".join(texts(seen, "log_tail")) if box.verdict in BAD else "",
    )


def _serves(box: Box) -> str:
    """What serves instead of the container that failed."""
    if not box.serves:
        return ""
    serving = Box(box.name, box.state, PROVEN, "", box.serves, {})
    speed = f", {figure(serving.decode)} decode tok/s" if serving.decode is not None else ""
    name = text(box.serves, "container", "name") or "another container"
    image = text(box.serves, "image", "name")
    return (
        f"{name}" + (f" ({image})" if image else "") + f", vLLM {serving.vllm}, {text(box.serves, 'verdict') or 'not proven'}"
        f" {moment(text(box.serves, 'time'))}{speed}."
    )


def _about(box: Box, recipe: str) -> str:
    """The line beside the box's name; the recipe only when it is another than was asked for."""
    deployed, seen = text(box.seen, "recipe"), text(box.seen, "time")
    parts = [f"was {box.state}", deployed if deployed != recipe else "", f"proof of {moment(seen)}" if seen else ""]
    return ", ".join(part for part in parts if part)


def _startup(seen: Mapping[str, Any]) -> list[Fact]:
    startup = at(seen, "startup")
    if not isinstance(startup, Mapping) or not startup:
        return []
    tokens = number(startup, "kv_cache_tokens")
    cache = figure(number(startup, "kv_cache_memory_gib"), 1, "GiB") + (f", {figure(tokens, 0)} tokens" if tokens is not None else "")
    times = [
        (name, number(startup, key))
        for name, key in (("weights", "weights_seconds"), ("compile", "compile_seconds"), ("CUDA graphs", "graph_capture_seconds"))
    ]
    return [
        Fact("Linear backend", text(startup, "linear_backend") or MISSING),
        Fact("MoE backend", text(startup, "moe_backend") or MISSING),
        Fact("Attention backend", text(startup, "attention_backend") or MISSING),
        Fact("Model memory", figure(number(startup, "model_memory_gib"), 2, "GiB")),
        Fact("KV cache", cache),
        Fact("Concurrency", figure(number(startup, "max_concurrency"), 2, "full contexts")),
        Fact("Speculation", text(startup, "speculative") or "none"),
        Fact("Ready after", figure(number(startup, "seconds"), 0, "s") if at(startup, "ready") else "never"),
        Fact("Of which", ", ".join(f"{name} {figure(value, 0, 's')}" for name, value in times if value is not None) or MISSING),
    ]


def _key(wanted: Any) -> str:
    if wanted is False:
        return "none: the port is open"
    return "required" if wanted is True else MISSING


def _software(seen: Mapping[str, Any]) -> list[Fact]:
    """What runs, by what tells it from everything else."""
    if not seen:
        return []
    model, draft = ("@".join(part for part in (text(seen, key, "repo"), text(seen, key, "commit")) if part) for key in ("model", "draft"))
    started = text(seen, "container", "started_at")
    return [
        Fact("Model", model or MISSING, True),
        *([Fact("Draft model", draft, True)] if draft else []),
        Fact("Image", text(seen, "image", "name") or MISSING, True),
        Fact("Image digest", text(seen, "image", "digest") or MISSING, True),
        Fact("Image id", text(seen, "image", "id") or MISSING, True),
        Fact("vLLM", text(seen, "startup", "vllm_version") or text(seen, "image", "vllm_version") or MISSING, True),
        Fact("Container", (text(seen, "container", "name") or MISSING) + (f", started {moment(started)}" if started else "")),
        Fact("API key", _key(at(seen, "container", "wants_key"))),
        Fact("Container id", text(seen, "container", "id") or MISSING, True),
        Fact("Spec digest", text(seen, "container", "spec_digest") or MISSING, True),
    ]


def _host(seen: Mapping[str, Any]) -> list[Fact]:
    """What it runs on."""
    if not seen:
        return []
    keys = {"GPU": "gpu", "Driver": "driver", "Kernel": "kernel", "OS": "os", "DGX OS": "dgx_os", "Docker": "docker", "Toolkit": "toolkit"}
    return [Fact(name, text(seen, "host", key) or MISSING) for name, key in keys.items()]


def _probe(probe: Mapping[str, Any]) -> Probe:
    answer = text(probe, "answer")
    short = len(answer) <= _EXCERPT
    return Probe(
        name=text(probe, "name") or MISSING,
        ok=probe.get("ok") is True,
        why=text(probe, "why"),
        prompt=text(probe, "prompt"),
        answer=answer,
        excerpt="" if short else " ".join(answer[:_EXCERPT].split()) + " …",
    )
