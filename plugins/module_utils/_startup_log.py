# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What vLLM says while it starts, from 0.19.0 to 0.33, read as a stream of bytes in constant memory.

What stands before the text does not matter (process names, levels, timestamps, colours), but the text must begin with the words that are
looked for, and a value counts only when the words on both of its sides are there: a line that was cut or mixed with another gives no value
rather than a wrong one. Before it is ready only vLLM writes into its log; afterwards clients do too, by their requests and by the errors
that they cause, so nothing that comes later says anything about the start.
"""

from __future__ import annotations

import calendar
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._startup_fatal import Fatal, recognise

TAIL_LINES = 30
_TAIL_BYTES = 1 << 16
# A line is never longer than this in memory; vLLM's longest (the engine's configuration) has about 8 KiB.
_LINE_BYTES = 1 << 15
_WARNINGS = 20
# Standard output and standard error are two pipes: what Docker stamps so shortly after the ready line, in nanoseconds, may be older.
_LAG = 400_000_000

# A line is looked at only when it has one of these, which is what makes the parser fast: bytes.find() runs at memory speed, a regular
# expression does not. Every pattern below, and every one of _startup_fatal, needs at least one of them in its line; a test checks it.
_KV_CACHE = b"KV cache "
TRIGGERS = (
    b" backend",
    b"took ",
    _KV_CACHE,
    b" GEMM",
    b"LLM engine (",
    b"version ",
    b"concurrency for ",
    b"startup complete",
    b" HTTP/1.",
    b"throughput: ",
    b"rror",
    b"tie_weights",
    b"WARN",
)

_NUMBER = r"(\d+(?:\.\d+)?)"
_COUNT = r"(\d{1,3}(?:,\d{3})*|\d+)"

_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ")
# What stands before the text: level, time and place in the source with all that stands before them (compose's service name, Docker's
# timestamp, the process), or without a place a timestamp, the process and a level.
_PREFIX = re.compile(
    r"^(?:.{0,160}?\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:.,]+ \[[^\]]*\]"
    r"|(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S* )?(?:\S+ +\| )?(?:\([A-Za-z][^()]*pid=\d+\) )*(?:(?:DEBUG|INFO|WARNING):? +)?)"
)
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d ")

# All of these are matched at the beginning of the text. The logo's row ends with the version; without the logo it is a sentence.
_LOGO = re.compile(
    r"[█▄▀ ]+  version (\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?(?:\.post\d+)?(?:\.dev\d+)?"
    r"(?:\+[0-9A-Za-z]{3,}(?:[._-](?:\d+|[A-Za-z][0-9A-Za-z]*))*)?)$"
)
_BANNER = re.compile(r"vLLM server version (\d+\.\d+\.\d+[0-9A-Za-z.+_-]*), serving model ")
_ENGINE = re.compile(r"Initializing a V1 LLM engine \(v(\d+\.\d+\.\d+[0-9A-Za-z.+_-]*)\) with config:")
_SPECULATIVE = re.compile(r".*\bspeculative_config=SpeculativeConfig\(([^()]*)\)")
# A member of an enumeration until 0.19, a class from 0.20 on.
_LINEAR = re.compile(r"Using (?:NvFp4LinearBackend\.([A-Z0-9_]+)|([A-Za-z0-9]+LinearKernel)) for NVFP4 GEMM")
# The list of candidates after it names every backend, so only the name right after "Using" counts.
_MOE = re.compile(
    r"Using (?:'(?P<quoted>[A-Za-z0-9_ ]+)' (?P<of>[A-Za-z0-9]+) MoE backend"
    r"|(?P<bare>[A-Za-z0-9_]+(?: [A-Z0-9_]+)?) (?P<of_bare>[A-Za-z0-9]+) MoE backend out of )"
)
_ATTENTION = re.compile(r"Using (?:([A-Z0-9_]+) attention backend out of|AttentionBackendEnum\.([A-Z0-9_]+) backend\b)")
_MODEL_MEMORY = re.compile(rf"Model loading took {_NUMBER} GiB\b(?:(?: memory)? and {_NUMBER} seconds)?")
_SECONDS_AND_GIB = (
    ("weights_seconds", re.compile(rf"Loading weights took {_NUMBER} seconds")),
    ("compile_seconds", re.compile(rf"torch\.compile took {_NUMBER} s in total")),
    ("graph_capture_seconds", re.compile(rf"Graph capturing finished in {_NUMBER} secs")),
    ("kv_cache_memory_gib", re.compile(rf"Available KV cache memory: {_NUMBER} GiB")),
)
# The pool is the GPU's, the CPU's, or "GPU + host".
_POOL = r"[A-Z][A-Za-z]{1,15}(?: \+ \w+)* KV cache size:"
_KV_TOKENS = re.compile(rf"{_POOL} {_COUNT} tokens")
_CONCURRENCY = re.compile(rf"(?:{_POOL} [\d,]+ tokens, )?Maximum concurrency for {_COUNT} tokens per request: {_NUMBER}x")
# Uvicorn's. Another process' line may have begun before it.
_READY = re.compile(r"(?:[^'\"]*\s)?Application startup complete\.$")
# A server writes these only once it is ready, so one without an earlier ready line means that the log begins too late.
_SERVED = re.compile(r'.*"(?:GET|POST) /\S* HTTP/1\.\d" \d{3}|Engine \d+: Avg prompt throughput: ')
_ERROR = re.compile(r"(?:.*\W)?[A-Z]\w*(?:Error|Exception|Interrupt)(?:: .+|$)")
_NOTABLE = re.compile(
    r"does not have native support for FP4|uncalibrated q_scale|Using KV cache scaling factor 1\.0|[Cc]alculate_kv_scales"
    r"|Checkpoint does not provide a q scaling factor"
)

_STAGES = (
    # What the newest line says that it is doing; looked for from the end of the log.
    (re.compile(r"Application startup complete"), "ready"),
    (re.compile(r"Starting vLLM server|Waiting for application startup|Started server process"), "starting the API"),
    (re.compile(r"Capturing CUDA graphs?.*?(\d+)%"), "capturing CUDA graphs {}%"),
    (re.compile(r"Capturing CUDA graph|Graph capturing finished"), "capturing CUDA graphs"),
    (re.compile(r"KV cache (?:size|memory)"), "setting up the KV cache"),
    (re.compile(r"torch\.compile|Dynamo|Compiling a graph|Directly load the compiled graph|backends\.py"), "compiling"),
    (re.compile(r"Model loading took|Loading weights took"), "busy after loading the weights"),
    (re.compile(r"checkpoint shards:\s*(\d+)%"), "loading weights {}%"),
    (re.compile(r"Starting to load model|checkpoint shards|Filesystem type for checkpoints"), "loading weights"),
    (re.compile(r"Initializing a V1 LLM engine"), "starting the engine"),
)


@dataclass(frozen=True)
class Seen:
    """A value and the line (without what stands before its text) that it was read from."""

    value: Any
    line: str
    # What the value is about, where one start may say several: the quantisation of a MoE backend.
    kind: str = ""


def plain(line: str) -> str:
    """A line without timestamp, process name, level and place in the source."""
    return _parts(line)[0]


def _parts(line: str) -> tuple[str, str]:
    """A line's text and its level, empty where it has none. vLLM can be told to log in JSON."""
    text = _PREFIX.sub("", line, count=1).strip()
    if text.startswith('{"'):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = {}
        if isinstance(record.get("message"), str):
            return record["message"].strip(), str(record.get("levelname") or record.get("level") or "").upper()
    level = _LEVEL.search(line)
    return text, level[1] if level else ""


def nanoseconds(stamp: str) -> int:
    """Docker's RFC 3339 time in UTC, such as C(2026-11-23T10:00:00.123456789Z), as nanoseconds since 1970."""
    whole = calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    fraction = stamp[19:].rstrip("Z").lstrip(".")
    return whole * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or 0)


class StartupLog:
    """Reads one start. C(feed) takes bytes as they come; everything else can be asked at any time."""

    def __init__(self, absent: Sequence[str] = (), one_start: bool = False) -> None:
        """C(absent) are regular expressions of lines that must not be there. Raises re.error for one that is none.

        With C(one_start) the log has no other start than this one, as Docker's log since StartedAt. Without it a banner begins another.
        """
        self._absent = [(pattern, re.compile(pattern)) for pattern in absent]
        self._one_start = one_start
        self.restart()

    def restart(self) -> None:
        """Forget everything: what comes is the log of another start."""
        self._rest = b""
        self._overlong = False
        self._tail = b""
        self._forget()

    def _forget(self) -> None:
        self._found: dict[str, list[Seen]] = {}
        self._engine_seen = False
        self._error_line = ""
        self.warnings: list[str] = []
        self.present: dict[str, str] = {}
        self.fatal: Fatal | None = None
        self.ready = False
        self.ready_at: str | None = None
        self.begins_late = False
        # Whether clients may have written what comes.
        self._over = False

    @property
    def ended(self) -> bool:
        """Nothing that comes can change whether it started."""
        return self.ready or self.fatal is not None or self.begins_late

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the log, cut anywhere."""
        self._tail = (self._tail + data)[-_TAIL_BYTES:] if len(data) < _TAIL_BYTES else data[-_TAIL_BYTES:]
        if self._overlong:
            # The rest of a line whose beginning is kept already.
            end = _line_end(data, 0)
            if end == len(data):
                return
            self._overlong = False
            data = data[end:]
        block = self._rest + data if self._rest else data
        cut = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        self._rest = block[cut:]
        if len(self._rest) > _LINE_BYTES:
            self._rest = self._rest[:_LINE_BYTES]
            self._overlong = True
        if cut:
            self._lines(block[:cut])

    def close(self) -> None:
        """The log ends here; its last line may lack a line break."""
        rest, self._rest, self._overlong = self._rest, b"", False
        if rest:
            self._lines(rest, complete=False)

    def _lines(self, block: bytes, complete: bool = True) -> None:
        """Look at the lines of a block that may say something, in their order."""
        if self.ready and self._over and self._one_start:
            return
        if b"\x1b" in block:
            block = _COLOUR.sub(b"", block)
        # Any line may be one that must not be there.
        lines = _all_lines(block) if self._absent and not self._over else _lines_with(block, TRIGGERS)
        for start in sorted(lines):
            # The cut is for a block that came as one line; what is looked for stands at a line's beginning.
            self._line(block[start : lines[start]][:_LINE_BYTES].decode("utf-8", "replace"), complete)

    def _line(self, raw: str, complete: bool) -> None:
        text, level = _parts(raw)
        banner = (_LOGO.match(text) or _BANNER.match(text)) if complete else None
        if self._is_late(raw):
            if self.begins_late and _READY.match(text):
                # The first request and the ready line come from two pipes.
                self._get_ready(raw)
            if not banner or self._one_start:
                return
            self._forget()
        elif banner and (self._engine_seen or self.ended) and not (self.ready and self._one_start):
            # An old start's good line never passes a new, bad one.
            self._forget()
        if banner:
            self._add("version", banner[1], text)
        self._facts(text)
        for pattern, compiled in self._absent:
            if pattern not in self.present and compiled.search(text):
                self.present[pattern] = text
        if _NOTABLE.search(text) and text not in self.warnings and len(self.warnings) < _WARNINGS:
            self.warnings.append(text)
        self._end(raw, text, level)

    def _is_late(self, raw: str) -> bool:
        """Whether a line was written when clients could write too."""
        if self.ready and not self._over:
            stamp = _STAMP.match(raw)
            self._over = not (stamp and self.ready_at and nanoseconds(stamp[1]) <= nanoseconds(self.ready_at) + _LAG)
        return self._over

    def _facts(self, text: str) -> None:
        engine, linear, moe, attention = _ENGINE.match(text), _LINEAR.match(text), _MOE.match(text), _ATTENTION.match(text)
        if engine:
            self._engine_seen = True
            self._add("engine_version", engine[1], text)
            speculative = _SPECULATIVE.match(text)
            if speculative:
                self._add("speculative", speculative[1], text)
        if linear:
            self._add("linear_backend", linear[1] or linear[2], text)
        if moe:
            self._add("moe_backend", moe["quoted"] or moe["bare"], text, moe["of"] or moe["of_bare"])
        if attention:
            self._add("attention_backend", attention[1] or attention[2], text)
        for key, pattern in _SECONDS_AND_GIB:
            found = pattern.match(text)
            if found:
                self._add(key, float(found[1]), text)
        memory, tokens, concurrency = _MODEL_MEMORY.match(text), _KV_TOKENS.match(text), _CONCURRENCY.match(text)
        if memory:
            self._add("model_memory_gib", float(memory[1]), text)
            if memory[2]:
                self._add("loading_seconds", float(memory[2]), text)
        if tokens:
            self._add("kv_cache_tokens", int(tokens[1].replace(",", "")), text)
        if concurrency:
            self._add("max_concurrency", float(concurrency[2]), text)

    def _end(self, raw: str, text: str, level: str) -> None:
        if _READY.match(text):
            self._get_ready(raw)
        elif not self.ready and _SERVED.match(text):
            self.begins_late = self._over = True
        # vLLM tries things out and says at these levels what did not work.
        elif level not in ("DEBUG", "INFO", "WARNING"):
            if self.fatal is None:
                self.fatal = recognise(text, self._error_line)
            if self.fatal is None and _ERROR.match(text):
                self._error_line = text

    def _get_ready(self, raw: str) -> None:
        stamp = _STAMP.match(raw)
        self.ready, self.begins_late = True, False
        self.ready_at = stamp[1] if stamp else None

    def _add(self, key: str, value: Any, line: str, kind: str = "") -> None:
        """Keep the first of each value; a start says few different ones."""
        seen = self._found.setdefault(key, [])
        if len(seen) < 8 and all(value != other.value for other in seen):
            seen.append(Seen(value, line, kind))

    def all(self, key: str) -> list[Seen]:
        """All values of a name that this start gave, those of the first one's kind only (a draft model has its own MoE backend)."""
        seen = self._found.get(key) or []
        return [entry for entry in seen if entry.kind == seen[0].kind]

    def first(self, key: str) -> Seen | None:
        """The first value of a name: the model's own, a draft model loads after it."""
        seen = self._found.get(key)
        return seen[0] if seen else None

    @property
    def version(self) -> Seen | None:
        """vLLM's version; the engine's line is preferred because a cut would show there."""
        return self.first("engine_version") or self.first("version")

    @property
    def last_error(self) -> str:
        """The text of the newest line that names a Python exception; empty if there was none."""
        return self._error_line

    def tail(self) -> list[str]:
        """The last lines of the log, without colours and timestamps of Docker; progress bars count once."""
        lines: deque[str] = deque(maxlen=TAIL_LINES)
        for raw in _COLOUR.sub(b"", self._tail).decode("utf-8", "replace").split("\n"):
            text = _STAMP.sub("", raw.rstrip("\r").rpartition("\r")[2]).rstrip()
            if text:
                lines.append(text[:1000])
        return list(lines)

    def progress(self) -> str:
        """What it is doing now, in a few words: C(loading weights 33%)."""
        for line in reversed(re.split(r"[\r\n]+", _COLOUR.sub(b"", self._tail[-8192:]).decode("utf-8", "replace"))):
            for pattern, words in _STAGES:
                found = pattern.search(line)
                if found:
                    return words.format(*found.groups())
        return "starting"


def _all_lines(block: bytes) -> dict[int, int]:
    """{where a line begins: where it ends} of all that have text."""
    return {found.start(): found.end() for found in re.finditer(rb"[^\r\n]+", block)}


def _lines_with(block: bytes, triggers: Sequence[bytes]) -> dict[int, int]:
    """The same of the lines that have one of the triggers."""
    lines: dict[int, int] = {}
    for trigger in triggers:
        at = block.find(trigger)
        while at >= 0:
            if trigger == _KV_CACHE and block[at + len(trigger) : at + len(trigger) + 1] not in (b"m", b"s"):
                # "GPU KV cache usage" stands in a line that comes every ten seconds; memory, size and scaling factors do not.
                at = block.find(trigger, at + len(trigger))
                continue
            start = max(block.rfind(b"\n", 0, at), block.rfind(b"\r", 0, at)) + 1
            end = _line_end(block, at)
            lines[start] = end
            at = block.find(trigger, end)
    return lines


def _line_end(block: bytes, at: int) -> int:
    """Where the line that has position C(at) ends (its line break, or the block's end)."""
    end = block.find(b"\n", at)
    if end < 0:
        end = len(block)
    early = block.find(b"\r", at, end)
    return early if early >= 0 else end
