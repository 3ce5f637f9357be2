# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What vLLM says while it starts, from 0.19.0 to 0.33, read as a stream of bytes in constant memory.

Nothing is anchored to what stands before the text (process names, levels, timestamps, colours), and a value counts only when the words on
both of its sides are there, so that a line that was cut or mixed with another gives no value rather than a wrong one.
"""

from __future__ import annotations

import re
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

# A line is looked at only when it has one of these, which is what makes the parser fast: bytes.find() runs at memory speed, a regular
# expression does not. Every pattern below, and every one of _startup_fatal, needs at least one of them in its line; a test checks it.
_KV_CACHE = b"KV cache "
TRIGGERS = (
    b"ackend",
    b"took ",
    _KV_CACHE,
    b" GEMM",
    b"LLM engine (",
    b"version ",
    b"concurrency for ",
    b"startup complete",
    b'HTTP/1.1" ',
    b"rror",
    b"WARN",
)

_NUMBER = r"(\d+(?:\.\d+)?)"
_COUNT = r"(\d{1,3}(?:,\d{3})*|\d+)"
_VERSION = r"\d+\.\d+\.\d+[0-9A-Za-z.+_-]*"

_COLOUR = re.compile(rb"\x1b\[[0-9;]*[A-Za-z]")
_STAMP = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ")
# What stands before the text: level, time and place in the source with all that stands before them (compose's service name, Docker's
# timestamp, the process), or without a level Docker's timestamp and the process.
_PREFIX = re.compile(
    r"^(?:.{0,160}?\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d [\d:]+ \[[^\]]*\]"
    r"|(?:\d{4}-\d\d-\d\dT\S+Z )?(?:\S+ +\| )?(?:\([A-Za-z][^()]*pid=\d+\) )*)"
)
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d ")

# The logo's row ends with the version; without the logo it is a sentence.
_BANNER = re.compile(rf"(?:█.*  version |vLLM (?:API )?server version )({_VERSION})(?:, serving model .*)?\s*$")
_ENGINE = re.compile(rf"Initializing a V1 LLM engine \(v({_VERSION})\)")
_SPECULATIVE = re.compile(r"speculative_config=SpeculativeConfig\(([^()]*)\)")
_LINEAR = re.compile(r"Using (?:NvFp4LinearBackend\.)?([A-Za-z0-9_]+) for NVFP4 GEMM")
# The list of candidates after it names every backend, so only the name right after "Using" counts.
_MOE = re.compile(r"Using (?:'([A-Z0-9_]+)'|([A-Z0-9_]+)) ([A-Za-z0-9]+) MoE backend")
_ATTENTION = re.compile(r"Using (?:([A-Z0-9_]+) attention backend out of|AttentionBackendEnum\.([A-Z0-9_]+) backend\b)")
_MODEL_MEMORY = re.compile(rf"Model loading took {_NUMBER} GiB\b(?:(?: memory)? and {_NUMBER} seconds)?")
_WEIGHTS = re.compile(rf"Loading weights took {_NUMBER} seconds")
_COMPILE = re.compile(rf"torch\.compile took {_NUMBER} s in total")
_CAPTURE = re.compile(rf"Graph capturing finished in {_NUMBER} secs")
_INIT = re.compile(rf"init engine \([^()]*\) took {_NUMBER} s")
_KV_MEMORY = re.compile(rf"Available KV cache memory: {_NUMBER} GiB")
_KV_TOKENS = re.compile(rf"KV cache size: {_COUNT} tokens")
_CONCURRENCY = re.compile(rf"Maximum concurrency for {_COUNT} tokens per request: {_NUMBER}x")
_READY = re.compile(r"Application startup complete\.")
# Uvicorn takes requests only once it is ready, so this line without an earlier ready line means that the log begins too late.
_SERVED = re.compile(r'"(?:GET|POST) /\S* HTTP/1\.1" \d{3}')
_ERROR = re.compile(r"\b((?:[a-z_]+\.)*[A-Z][A-Za-z]*(?:Error|Exception|Interrupt)): (.+)")
_NOTABLE = re.compile(
    r"does not have native support for FP4|uncalibrated q_scale|Using KV cache scaling factor 1\.0|[Cc]alculate_kv_scales"
    r"|Checkpoint does not provide a q scaling factor"
)

_PATTERNS = (
    *(_BANNER, _ENGINE, _LINEAR, _MOE, _ATTENTION, _MODEL_MEMORY, _WEIGHTS, _COMPILE, _CAPTURE),
    *(_INIT, _KV_MEMORY, _KV_TOKENS, _CONCURRENCY, _READY, _SERVED),
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
    return _PREFIX.sub("", line, count=1).strip()


class StartupLog:
    """Reads one start. C(feed) takes bytes as they come; everything else can be asked at any time."""

    def __init__(self, absent: Sequence[str] = ()) -> None:
        """C(absent) are regular expressions of lines that must not be there. Raises re.error for one that is none."""
        self._absent = [(pattern, re.compile(pattern)) for pattern in absent]
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
        """Look at the lines of a block that have a trigger, in their order."""
        if b"\x1b" in block:
            block = _COLOUR.sub(b"", block)
        lines: dict[int, int] = {}
        for trigger in TRIGGERS:
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
        for start in sorted(lines):
            # The cut is for a block that came as one line; what is looked for stands at a line's beginning.
            self._line(block[start : lines[start]][:_LINE_BYTES].decode("utf-8", "replace"), complete)
        self._forbidden(block)

    def _forbidden(self, block: bytes) -> None:
        missing = [(pattern, compiled) for pattern, compiled in self._absent if pattern not in self.present]
        if not missing:
            return
        for raw in re.split(r"[\r\n]+", block.decode("utf-8", "replace")):
            text = plain(raw[:_LINE_BYTES])
            for pattern, compiled in missing:
                if pattern not in self.present and compiled.search(text):
                    self.present[pattern] = text

    def _line(self, raw: str, complete: bool) -> None:
        text = plain(raw)
        banner = _BANNER.search(text) if complete else None
        engine = _ENGINE.search(text)
        if banner and (self._engine_seen or self.ended):
            # An old start's good line never passes a new, bad one.
            self._forget()
        if banner:
            self._add("version", banner[1], text)
        if engine:
            self._engine_seen = True
            self._add("engine_version", engine[1], text)
            speculative = _SPECULATIVE.search(text)
            if speculative:
                self._add("speculative", speculative[1], text)
        linear, moe, attention = _LINEAR.search(text), _MOE.search(text), _ATTENTION.search(text)
        if linear:
            self._add("linear_backend", linear[1], text)
        if moe:
            self._add("moe_backend", moe[1] or moe[2], text, moe[3])
        if attention:
            self._add("attention_backend", attention[1] or attention[2], text)
        self._numbers(text)
        if _NOTABLE.search(text) and text not in self.warnings and len(self.warnings) < _WARNINGS:
            self.warnings.append(text)
        self._end(raw, text)

    def _numbers(self, text: str) -> None:
        for key, pattern in (
            ("weights_seconds", _WEIGHTS),
            ("compile_seconds", _COMPILE),
            ("graph_capture_seconds", _CAPTURE),
            ("engine_seconds", _INIT),
            ("kv_cache_memory_gib", _KV_MEMORY),
        ):
            found = pattern.search(text)
            if found:
                self._add(key, float(found[1]), text)
        memory, tokens, concurrency = _MODEL_MEMORY.search(text), _KV_TOKENS.search(text), _CONCURRENCY.search(text)
        if memory:
            self._add("model_memory_gib", float(memory[1]), text)
            if memory[2]:
                self._add("loading_seconds", float(memory[2]), text)
        if tokens:
            self._add("kv_cache_tokens", int(tokens[1].replace(",", "")), text)
        if concurrency:
            self._add("max_concurrency", float(concurrency[2]), text)

    def _end(self, raw: str, text: str) -> None:
        level = _LEVEL.search(raw)
        if _READY.search(text):
            self.ready = True
            stamp = _STAMP.match(raw)
            self.ready_at = stamp[1] if stamp else None
        elif not self.ready and _SERVED.search(text):
            self.begins_late = True
        # vLLM tries things out and says at these levels what did not work.
        elif not (level and level[1] in ("DEBUG", "INFO", "WARNING")):
            if self.fatal is None:
                self.fatal = recognise(text, self._error_line)
            if self.fatal is None and _ERROR.search(text):
                self._error_line = text

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


def _line_end(block: bytes, at: int) -> int:
    """Where the line that has position C(at) ends (its line break, or the block's end)."""
    end = block.find(b"\n", at)
    if end < 0:
        end = len(block)
    early = block.find(b"\r", at, end)
    return early if early >= 0 else end
