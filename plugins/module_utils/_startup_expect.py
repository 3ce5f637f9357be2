# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a recipe expects of a startup log, and what is wrong with one that says something else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog
from ansible_collections.dgx.spark.plugins.module_utils._versions import VersionError, satisfies

NAMES = ("linear_backend", "moe_backend", "attention_backend")
BOUNDS = ("model_memory_gib", "kv_cache_memory_gib", "kv_cache_tokens", "max_concurrency", "weights_seconds", "compile_seconds")
KEYS = ("vllm_version", *NAMES, *BOUNDS, "absent")

# The canonical names, as vLLM's flags write them in capitals. Newer versions log the class of the linear kernel instead.
_CANONICAL = [
    "FLASHINFER_CUTLASS",
    "FLASHINFER_TRTLLM",
    "FLASHINFER_CUDNN",
    "FLASHINFER_CUTEDSL",
    "FLASHINFER_CUTEDSL_BATCHED",
    "FLASHINFER_CUTEDSL_W4A16",
    "FLASHINFER_B12X",
    "VLLM_CUTLASS",
    "MARLIN",
    "B12X",
    "HUMMING",
    "TORCH",
    "EMULATION",
    "FBGEMM",
    "TRITON",
    "DEEP_GEMM",
    "TRITON_ATTN",
    "FLASH_ATTN",
    "FLASHINFER",
    "FLEX_ATTENTION",
    "CPU",
    "CPU_ATTN",
    "TORCH_SDPA",
]

_FLAG = {"moe_backend": "--moe-backend", "linear_backend": "--linear-backend", "attention_backend": "--attention-backend"}
_UNITS = {
    "model_memory_gib": "GiB",
    "kv_cache_memory_gib": "GiB",
    "kv_cache_tokens": "tokens",
    "weights_seconds": "s",
    "compile_seconds": "s",
}
_REMEDIES = {
    "model_memory_gib": "other weights or another quantization were loaded than the recipe is for: compare the model's revision and"
    " --quantization",
    "kv_cache_memory_gib": (
        "something else holds memory ('ollama ps', 'docker ps', 'nvidia-smi'), or --gpu-memory-utilization is not what the recipe says:"
        " free it and start again"
    ),
    "kv_cache_tokens": "see --max-model-len, --kv-cache-dtype and --gpu-memory-utilization; the count means something else in every"
    " vLLM version",
    "max_concurrency": "see --max-model-len, --kv-cache-dtype and --gpu-memory-utilization",
    "weights_seconds": "the disk or the page cache is slower than expected",
    "compile_seconds": "keep vLLM's compile cache (~/.cache/vllm) between starts",
}
_UNLOGGED = "the log has no such line: this start does not use it, or this vLLM words it in a way that is not known yet"


class ExpectError(ValueError):
    """The expectations cannot be read; the message lists every problem."""


def check(expect: Mapping[str, Any]) -> dict[str, Any]:
    """The expectations, checked and made uniform: names as lists, bounds with both ends. Raises ExpectError with all problems."""
    problems: list[str] = []
    checked: dict[str, Any] = {}
    for key, value in expect.items():
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            problems.append(f"{key} is nothing that can be expected" + (f" (did you mean {near[0]}?)" if near else ""))
        elif value is None or value == [] or value == {} or value == "":
            continue
        elif key == "vllm_version":
            checked[key] = _version(value, problems)
        elif key in BOUNDS:
            checked[key] = _bounds(key, value, problems)
        else:
            checked[key] = _texts(key, value, problems)
    for pattern in checked.get("absent", ()):
        try:
            re.compile(pattern)
        except re.error as exc:
            problems.append(f"absent: {pattern!r} is not a regular expression: {exc}")
    # A range without an upper end holds versions that count otherwise.
    ends = [clause.strip()[:1] in ("<", "=") for clause in checked.get("vllm_version", "").split(",")]
    if "kv_cache_tokens" in checked and not any(ends):
        problems.append(
            "kv_cache_tokens needs vllm_version with an upper end beside it, such as >=0.19,<0.20: vLLM counts them differently in every"
            " version (714,768 on 0.19 are about five million on 0.24)"
        )
    if problems:
        raise ExpectError("; ".join(problems))
    return checked


def _version(value: Any, problems: list[str]) -> str:
    text = str(value)
    try:
        satisfies("0.0.0", text)
    except VersionError as exc:
        problems.append(f"vllm_version: {exc}")
    return text


def _texts(key: str, value: Any, problems: list[str]) -> list[str]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(entry, str) and entry for entry in values):
        problems.append(f"{key} must be a text or a list of texts, it is {value!r}")
        return []
    return list(values)


def _bounds(key: str, value: Any, problems: list[str]) -> dict[str, float | None]:
    if not isinstance(value, Mapping) or not value or set(value) - {"min", "max"}:
        problems.append(f"{key} must be a mapping with min, max or both, it is {value!r}")
        return {"min": None, "max": None}
    bounds: dict[str, float | None] = {}
    for end in ("min", "max"):
        bound = value.get(end)
        # Templates hand over numbers as text.
        try:
            bounds[end] = None if bound is None else float(bound)
        except (TypeError, ValueError):
            problems.append(f"{key}.{end} must be a number, it is {bound!r}")
            bounds[end] = None
    low, high = bounds["min"], bounds["max"]
    if low is not None and high is not None and low > high:
        problems.append(f"{key}: min {low:g} is more than max {high:g}")
    return bounds


def canonical(name: str) -> str:
    """One name for what flags, logs and articles call differently: C(FlashInferCutlassNvFp4LinearKernel), C(flashinfer-cutlass) and
    C(NvFp4LinearBackend.FLASHINFER_CUTLASS) are all C(FLASHINFER_CUTLASS); an unknown name comes back in capitals."""
    key = _key(name)
    for known in _CANONICAL:
        if _key(known) == key:
            return known
    return name.rpartition(".")[2].upper().replace("-", "_")


def _key(name: str) -> str:
    """What of a name tells it from others."""
    squeezed = re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower())
    squeezed = squeezed.removesuffix("linearkernel").replace("nvfp4", "")
    # "cutlass" is the flag of vLLM's own kernel, "CUTLASS_FP4" is what articles call it.
    return {"cutlass": "vllmcutlass", "cutlassfp4": "vllmcutlass"}.get(squeezed, squeezed)


def startup(log: StartupLog, seconds: float | None) -> dict[str, Any]:
    """What the log says, with null for what it lacks. C(seconds) passed from the container's start to its ready line."""

    def value(key: str) -> Any:
        seen = log.first(key)
        return seen.value if seen else None

    speculative = log.first("speculative")
    return {
        "vllm_version": log.version.value if log.version else None,
        **{name: canonical(value(name)) if value(name) else None for name in NAMES},
        "model_memory_gib": value("model_memory_gib"),
        "kv_cache_memory_gib": value("kv_cache_memory_gib"),
        "kv_cache_tokens": value("kv_cache_tokens"),
        "max_concurrency": value("max_concurrency"),
        "weights_seconds": value("weights_seconds") if value("weights_seconds") is not None else value("loading_seconds"),
        "compile_seconds": value("compile_seconds"),
        "graph_capture_seconds": value("graph_capture_seconds"),
        "speculative": speculative.value if speculative else None,
        "warnings": list(log.warnings),
        "ready": log.ready,
        "seconds": seconds,
    }


def unmet(log: StartupLog, expect: Mapping[str, Any]) -> list[dict[str, str]]:
    """Which checked expectations the log does not meet: [{expected, seen, line, remedy}]."""
    failures = [*_version_unmet(log, expect)]
    for name in NAMES:
        if name in expect:
            failures += _name_unmet(log, name, expect[name])
    for key in BOUNDS:
        if key in expect:
            failures += _bounds_unmet(log, key, expect[key])
    for pattern in expect.get("absent", ()):
        if pattern in log.present:
            line = log.present[pattern]
            failures.append(failure(f"no line like {pattern!r}", "one", line, "the recipe says that this line means trouble"))
    return failures


def failure(expected: str, seen: str, line: str, remedy: str) -> dict[str, str]:
    """One failure in the shape that modules return."""
    return {"expected": expected, "seen": seen, "line": line, "remedy": remedy}


def _version_unmet(log: StartupLog, expect: Mapping[str, Any]) -> list[dict[str, str]]:
    wanted = expect.get("vllm_version")
    if not wanted:
        return []
    seen = log.version
    if seen is None:
        return [failure(f"vllm_version {wanted}", "nothing", "", _UNLOGGED)]
    try:
        fits = satisfies(seen.value, wanted)
    except VersionError:
        fits = False
    if fits:
        return []
    remedy = "the image contains another vLLM than the recipe is for (tags do not tell the version): compare the image's name and digest"
    return [failure(f"vllm_version {wanted}", str(seen.value), seen.line, remedy)]


def _name_unmet(log: StartupLog, name: str, wanted: Sequence[str]) -> list[dict[str, str]]:
    names = [canonical(entry) for entry in wanted]
    expected = f"{name} {' or '.join(names)}"
    flag = f"`{_FLAG[name]} {names[0].lower().removeprefix('vllm_')}`"
    found = log.all(name)
    if not found:
        return [failure(expected, "nothing", "", _UNLOGGED)]
    for seen in found:
        if canonical(seen.value) not in names:
            remedy = f"{flag} was not picked up: see that the flag is among the container's arguments and that this vLLM knows it"
            if name == "moe_backend" and "MARLIN" in names:
                remedy += "; on GB10 the other FP4 MoE kernels compute garbage, so do not serve with it"
            if name == "linear_backend":
                remedy = (
                    f"vLLM chose another kernel than expected: {flag} asks for it (from 0.22 on), VLLM_DISABLED_KERNELS keeps one out, or"
                    " the image was built without it for SM 12.1"
                )
            return [failure(expected, canonical(seen.value), seen.line, remedy)]
    return []


def _bounds_unmet(log: StartupLog, key: str, bounds: Mapping[str, float | None]) -> list[dict[str, str]]:
    low, high = bounds["min"], bounds["max"]
    limits = [f"at least {_amount(low, key)}" if low is not None else "", f"at most {_amount(high, key)}" if high is not None else ""]
    expected = f"{key} {' and '.join(filter(None, limits))}"
    seen = log.first(key)
    if seen is None:
        return [failure(expected, "nothing", "", _UNLOGGED)]
    if (low is None or seen.value >= low) and (high is None or seen.value <= high):
        return []
    return [failure(expected, _amount(seen.value, key), seen.line, _REMEDIES[key])]


def _amount(value: float, key: str) -> str:
    number = f"{int(value):,}" if float(value).is_integer() else f"{value:g}"
    return f"{number} {_UNITS[key]}" if key in _UNITS else number
