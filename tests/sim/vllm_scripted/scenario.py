# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a scripted vLLM plays: how it starts, how it streams, what is wrong with it.

A scenario is JSON with the parts `start`, `stream` and `fault` (the fields of the classes below); what it leaves out is as in
`good`. With `base` it changes another one by name. Misspelt keys are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

FOLDER = Path(__file__).with_name("scenarios")
GARBAGE = ("empty", "bang", "loop", "replacement", "script", "gibberish")
ROLE_CHUNKS = ("first_token", "at_once", "none")
USAGES = ("asked", "end", "none")
ENDINGS = ("serve", "exit", "hang")
VISIONS = ("sees", "blind", "none")
Part = TypeVar("Part", "Start", "Stream", "Fault")


class ScenarioError(ValueError):
    """The scenario cannot be played; the message says what is wrong with it."""


@dataclass(frozen=True)
class Start:
    """The start-up log and how it ends. Lines are found by a part of their text."""

    seconds: float = 1.5
    """How long the start takes; SIM_START_SECONDS in the environment overrides it."""
    replace: dict[str, str] = field(default_factory=dict)
    """In lines that contain the key, the key becomes the value."""
    drop: list[str] = field(default_factory=list)
    """Lines that contain one of these are left out."""
    insert: dict[str, list[str]] = field(default_factory=dict)
    """Lines that follow the first line that contains the key, as they are."""
    stop_after: str = ""
    """The log ends after the first line that contains this."""
    last_words: list[str] = field(default_factory=list)
    """What is printed then, as it is. {stamp} becomes the time as vLLM writes it."""
    traceback: str = ""
    """The last line of the traceback with which the engine fails there."""
    then: str = "serve"
    """After the log: serve, exit, or hang without serving."""
    exit_code: int = 1


@dataclass(frozen=True)
class Stream:
    """How tokens are sent. Times are exact: chunk k leaves at ttft_ms + k · tokens_per_chunk / tok_s after the request."""

    tok_s: float = 51.6
    ttft_ms: float = 53.0
    parallel_cost: float = 0.174
    """Each further stream slows all by this share: at 3 each runs at 51.6 / (1 + 2 · 0.174) = 38.3 tok/s, 114.6 together."""
    tokens_per_chunk: int = 1
    role_chunk: str = "first_token"
    """The chunk with the role alone comes with the first token (as vLLM sends it), at_once, or not at all (none)."""
    swallow_first: int = 0
    """So many tokens at the beginning make no chunk; they count."""
    swallow_every: int = 0
    """Every so-manieth token makes no chunk; it counts."""
    reasoning_first: int = 0
    """So many tokens of thought before every answer, sent as reasoning."""
    usage: str = "asked"
    """The usage of a stream: as asked (with continuous_usage_stats in every chunk), only at the end, or never."""
    keep_alive_every: int = 0
    """An SSE comment before the first token, and then halfway to every so-manieth chunk."""
    tcp_split: int = 0
    """Events are sent in pieces of so many bytes, each in its own TCP segment."""
    tcp_merge: int = 1
    """The events of so many steps leave together in one TCP segment, when the last of them is due (with tcp_split: cut without regard to
    where one ends)."""
    error_after: int = -1
    """After so many tokens the stream reports an error instead of going on."""
    cut_after: int = -1
    """After so many tokens the connection is cut."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the engine while it serves."""

    garbage: str = ""
    """Every answer is empty, bang, loop, replacement, script or gibberish."""
    garbage_from: int = 1
    """Garbage only when so many requests run at once."""
    nan_logprobs: bool = False
    tools_in_text: bool = False
    """Tool calls stay in the content whatever the parser is."""
    vision: str = "sees"
    """What becomes of pictures: the model sees them, takes each for the same (blind), or is no multimodal model (none)."""
    hung: bool = False
    """/health answers, requests are taken, no token ever comes."""
    hang_after: int = -1
    """Hung after so many requests."""
    die_after: int = -1
    """The process ends while it answers the request after so many."""
    exit_code: int = 0
    """The code it ends with then; the real one ends with 0."""
    http_status: int = 0
    """Every generation is refused with this status."""
    health_status: int = 200


@dataclass(frozen=True)
class Scenario:
    """All of it."""

    start: Start = field(default_factory=Start)
    stream: Stream = field(default_factory=Stream)
    fault: Fault = field(default_factory=Fault)


def _choose(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ScenarioError(f"{what} is {value!r}: choose {', '.join(allowed)}")


def _part(kind: type[Part], given: Mapping[str, Any]) -> Part:
    known = {entry.name: entry for entry in fields(kind)}
    default = kind()
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise ScenarioError(f"{kind.__name__.lower()}.{name} is not known: it has {', '.join(known)}")
        wanted = type(getattr(default, name))
        if wanted is float and isinstance(value, int):
            value = float(value)
        # To isinstance a bool is an int.
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ScenarioError(f"{kind.__name__.lower()}.{name} is {value!r}: it must be a {wanted.__name__}")
        values[name] = value
    return kind(**values)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    parts = {*below, *above} - {"base", "description"}
    return {part: {**below.get(part, {}), **above.get(part, {})} for part in parts}


def _resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    if "base" not in given:
        return _merge({}, given)
    return _merge(_resolve(_named(str(given["base"]))), given)


def _named(name: str) -> dict[str, Any]:
    path = Path(name) if "/" in name else FOLDER / f"{name}.json"
    try:
        document: Any = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ScenarioError(f"there is no scenario {name}: choose {', '.join(names())}, a path or JSON") from error
    except json.JSONDecodeError as error:
        raise ScenarioError(f"scenario {path}: {error}") from error
    if not isinstance(document, dict):
        raise ScenarioError(f"scenario {path} is no JSON object")
    return document


def names() -> list[str]:
    """The scenarios that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def make(given: Mapping[str, Any]) -> Scenario:
    """The scenario of a JSON object. Raises ScenarioError."""
    resolved = _resolve(given)
    unknown = set(resolved) - {"start", "stream", "fault"}
    if unknown:
        raise ScenarioError(f"{', '.join(sorted(unknown))}: a scenario has base, description, start, stream and fault")
    result = Scenario(
        _part(Start, resolved.get("start", {})), _part(Stream, resolved.get("stream", {})), _part(Fault, resolved.get("fault", {}))
    )
    _choose("start.then", result.start.then, ENDINGS)
    _choose("stream.role_chunk", result.stream.role_chunk, ROLE_CHUNKS)
    _choose("stream.usage", result.stream.usage, USAGES)
    _choose("fault.vision", result.fault.vision, VISIONS)
    _choose("fault.garbage", result.fault.garbage, ("", *GARBAGE))
    if result.stream.tok_s <= 0 or result.stream.ttft_ms < 0:
        raise ScenarioError("stream: tok_s must be above 0, ttft_ms not below 0")
    if result.stream.tokens_per_chunk < 1 or result.stream.tcp_merge < 1:
        raise ScenarioError("stream: tokens_per_chunk and tcp_merge must be at least 1")
    return result


def load(text: str) -> Scenario:
    """The scenario that a name, a path or JSON text means. Raises ScenarioError."""
    text = text.strip() or "good"
    if text.startswith("{"):
        try:
            return make(json.loads(text))
        except json.JSONDecodeError as error:
            raise ScenarioError(f"SIM_SCENARIO: {error}") from error
    return make(_named(text))
