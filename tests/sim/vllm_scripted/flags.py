# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The command line of `vllm serve`, as strict as vLLM's own parser and with its words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

FLAGS = Path(__file__).with_name("flags.txt")
USAGE = "usage: vllm [-h] [-v]\n            {chat,complete,serve,launch,bench,collect-env,run-batch} ...\n"
SERVE_USAGE = "usage: vllm serve [model_tag] [options]\n"
MODEL_OPTION = (
    "With `vllm serve`, you should provide the model as a positional argument or in a config file instead of via the `--model` option."
    " The `--model` option will be removed in "
)
MOE_BACKENDS = [
    "auto",
    "triton",
    "deep_gemm",
    "cutlass",
    "flashinfer_trtllm",
    "flashinfer_cutlass",
    "flashinfer_cutedsl",
    "marlin",
    "aiter",
]
LATER_MOE_BACKENDS = ["flashinfer_b12x", "b12x", "humming", "emulation", "triton_unfused"]
KV_DTYPES = ["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla"]
NUMBERS = {
    "--port": int,
    "--gpu-memory-utilization": float,
    "--max-num-seqs": int,
    "--shutdown-timeout": int,
    "--tensor-parallel-size": int,
    "--seed": int,
}
JSON_FLAGS = (
    *("--speculative-config", "--compilation-config", "--hf-overrides", "--default-chat-template-kwargs", "--kv-transfer-config"),
    "--limit-mm-per-prompt",
)
TOOL_PARSERS = [
    *("deepseek_v3", "deepseek_v31", "functiongemma", "gemma4", "glm45", "granite", "hermes", "kimi_k2", "llama3_json", "llama4_pythonic"),
    *("mistral", "openai", "phi4_mini_json", "pythonic", "qwen3_coder", "qwen3_xml", "xlam"),
]
REASONING_PARSERS = ["deepseek_r1", "gemma4", "glm45", "granite", "kimi_k2", "mistral", "nemotron_v3", "openai_gptoss", "qwen3", "step3"]


def release(version: str) -> tuple[int, int, int]:
    """The numbers of a version: "0.19.1.dev6+g6d4a8e6d2" → (0, 19, 1)."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if not found:
        raise ValueError(f"{version!r} is no version of vLLM")
    return int(found[1]), int(found[2]), int(found[3] or 0)


class UsageError(Exception):
    """The command line is refused: vLLM prints `text` on standard error and ends with code 2."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class FlagError(Exception):
    """The parser took the command line, but the start refuses it; the message is the last line of vLLM's traceback."""


@dataclass(frozen=True)
class Flags:
    """What the server was started with. `given` has each flag that was given, by its first name without dashes."""

    given: dict[str, Any] = field(default_factory=dict)
    model: str = "Qwen/Qwen3-0.6B"
    by_option: bool = False

    def text(self, name: str, default: str = "") -> str:
        """A flag's value as text."""
        value = self.given.get(name)
        return default if value is None else str(value)

    def integer(self, name: str, default: int) -> int:
        """A flag's whole number; vLLM's 128k, 1M … are understood."""
        value = self.given.get(name)
        return default if value is None else human_readable(str(value))

    def number(self, name: str, default: float) -> float:
        """A flag's number."""
        value = self.given.get(name)
        return default if value is None else float(value)

    def on(self, name: str) -> bool:
        """Was a switch given?"""
        return bool(self.given.get(name, False))

    @property
    def served_names(self) -> list[str]:
        """The names that requests may use."""
        names: list[str] = self.given.get("served-model-name") or [self.model]
        return names

    @property
    def max_model_len(self) -> int:
        return self.integer("max-model-len", 262144)

    @property
    def pictures(self) -> int:
        """How many pictures a prompt may have."""
        if self.on("language-model-only"):
            return 0
        limit = self.given.get("limit-mm-per-prompt", {}).get("image", 999)
        return int(limit["count"] if isinstance(limit, dict) else limit)

    @property
    def gemma_tools(self) -> bool:
        """Are Gemma 4's tool calls understood?"""
        return self.on("enable-auto-tool-choice") and self.text("tool-call-parser") == "gemma4"

    @property
    def gemma_reasoning(self) -> bool:
        """Are Gemma 4's thoughts understood?"""
        return self.text("reasoning-parser") == "gemma4"


def human_readable(text: str) -> int:
    """vLLM's sizes: 131072, 128k (1000), 128K (1024), 1m, 1M …; "auto" is the model's own maximum."""
    if text in ("auto", "-1"):
        return 262144
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text)
    if not found:
        raise ValueError(text)
    factors = {"": 1, "k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20, "g": 10**9, "G": 2**30}
    return int(float(found[1]) * factors[found[2]])


@dataclass(frozen=True)
class _Flag:
    kind: str
    name: str


def known_flags(version: str) -> dict[str, _Flag]:
    """Every flag of that version, by each of its names."""
    number = release(version)
    known: dict[str, _Flag] = {}
    for line in FLAGS.read_text().splitlines():
        if line.startswith("#"):
            continue
        kind, *words = line.split()
        names = [word for word in words if re.match(r"--?[a-z]", word)]
        limit = words[-1] if words[-1] not in names else ""
        if limit.startswith("-") and number >= release(limit[1:]):
            continue
        if limit and not limit.startswith("-") and number < release(limit):
            continue
        flag = _Flag(kind, names[0].lstrip("-"))
        known |= dict.fromkeys(names, flag)
        if kind == "switch":
            known |= {f"--no-{name[2:]}": flag for name in names if name.startswith("--")}
    return known


def _serve_error(message: str) -> NoReturn:
    raise UsageError(f"{SERVE_USAGE}vllm serve: error: {message}\n")


def _choices(name: str, version: str) -> list[str]:
    if name == "moe-backend":
        return MOE_BACKENDS + (LATER_MOE_BACKENDS if release(version) >= (0, 20, 0) else [])
    return KV_DTYPES if name == "kv-cache-dtype" else []


def _check(name: str, value: str, version: str) -> Any:
    flag = f"--{name}"
    choices = _choices(name, version)
    if choices and value not in choices:
        _serve_error(f"argument {flag}: invalid choice: {value!r} (choose from {', '.join(map(repr, choices))})")
    try:
        if flag in NUMBERS:
            return NUMBERS[flag](value)
        if flag in JSON_FLAGS:
            return json.loads(value)
        if name in ("max-model-len", "max-num-batched-tokens"):
            return human_readable(value)
    except json.JSONDecodeError:
        _serve_error(f"argument {flag}: Value {value} cannot be converted to <function loads>.")
    except ValueError:
        kind = getattr(NUMBERS.get(flag), "__name__", "human_readable_int")
        _serve_error(f"argument {flag}: invalid {kind} value: {value!r}")
    return value


def parse(argv: Sequence[str], version: str) -> Flags:
    """Understand `vllm serve ARGV`. Raises UsageError as vLLM's parser refuses, FlagError as its start refuses."""
    known = known_flags(version)
    given: dict[str, Any] = {}
    positional: list[str] = []
    unknown: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--?[a-zA-Z]", word):
            (unknown if unknown and positional else positional).append(word)
            continue
        head, equals, value = word.partition("=")
        name, dot, key = head.partition(".")
        name = name.replace("_", "-")
        flag = known.get(name)
        if flag is None:
            unknown.append(word)
            while rest and not rest[0].startswith("-"):
                unknown.append(rest.pop(0))
            continue
        if flag.kind == "switch" and not dot:
            given[flag.name] = not name.startswith("--no-") or flag.name.startswith("no-")
            continue
        values = [value] if equals else []
        while rest and not equals and not re.match(r"--?[a-zA-Z]", rest[0]) and (flag.kind == "list" or not values):
            values.append(rest.pop(0))
        if not values:
            _serve_error(f"argument --{flag.name}: expected {'at least one' if flag.kind == 'list' else 'one'} argument")
        if dot:
            nested: dict[str, Any] = given.setdefault(flag.name, {})
            nested[key] = values[0]
        elif flag.kind == "list":
            given[flag.name] = values
        else:
            given[flag.name] = _check(flag.name, values[0], version)
    if unknown or len(positional) > 1:
        raise UsageError(f"{USAGE}vllm: error: unrecognized arguments: {' '.join([*unknown, *positional[1:]])}\n")
    by_option = "model" in given
    model = given.pop("model", None) or (positional[0] if positional else "Qwen/Qwen3-0.6B")
    flags = Flags(given, model, by_option)
    _validate(flags)
    return flags


def _validate(flags: Flags) -> None:
    """What vLLM notices after parsing."""
    tools, reasoning = flags.text("tool-call-parser"), flags.text("reasoning-parser")
    if flags.on("enable-auto-tool-choice") and not tools:
        raise FlagError("TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser")
    if flags.on("enable-auto-tool-choice") and tools not in TOOL_PARSERS:
        raise FlagError(f"KeyError: 'invalid tool call parser: {tools} (chose from {{ {','.join(TOOL_PARSERS)} }})'")
    if reasoning and reasoning not in REASONING_PARSERS:
        raise FlagError(f"KeyError: 'invalid reasoning parser: {reasoning} (chose from {{ {','.join(REASONING_PARSERS)} }})'")
    share = flags.number("gpu-memory-utilization", 0.9)
    if not 0 < share <= 1:
        raise FlagError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\ngpu_memory_utilization\n"
            f"  Input should be less than or equal to 1 [type=less_than_equal, input_value={share}, input_type=float]"
        )
