# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What a recipe is: its schema, its defaults, and what is wrong with one that a user wrote."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _probes
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import ExpectError, check
from ansible_collections.dgx.spark.plugins.module_utils._throughput import contradictions
from ansible_collections.dgx.spark.plugins.module_utils._versions import VersionError, satisfies

ENGINES = ("vllm", "ollama")


class RecipeError(ValueError):
    """The recipe is not usable; the message lists every problem."""


@dataclass(frozen=True)
class Field:
    """One key of a recipe. C(keys) describes a mapping, C(items) a list; a mapping without C(keys) is free.

    One that is left out gets its C(default): null, a value, or for a mapping with C(keys) and the default {} that of every key in it.
    """

    kind: type | tuple[type, ...]
    required: bool = False
    default: Any = None
    keys: Mapping[str, Field] | None = None
    items: Field | None = None
    choices: tuple[str, ...] = ()


NUMBER = (int, float)


def _text(required: bool = False, default: str | None = None, choices: tuple[str, ...] = ()) -> Field:
    return Field(str, required=required, default=default, choices=choices)


def _number(required: bool = False, default: float | None = None) -> Field:
    return Field(NUMBER, required=required, default=default)


def _mapping(required: bool = False, **keys: Field) -> Field:
    return Field(dict, required=required, default={}, keys=keys)


_TEXTS = Field(list, default=[], items=Field(str))
_SNAPSHOT = {"repo": _text(required=True), "revision": _text(default="main"), "size_gb": _number(required=True), "files": _TEXTS}
_RUN = {"tokens": Field(int, required=True)}

_COMMON: Mapping[str, Field] = {
    "name": _text(required=True),
    "engine": _text(default="vllm", choices=ENGINES),
    "summary": _text(required=True),
    "served_model_name": _text(required=True),
}

SCHEMA: Mapping[str, Field] = {
    **_COMMON,
    "model": _mapping(required=True, **_SNAPSHOT, quantization=_text(default=""), mount=_text(default="/models/model")),
    "draft": Field(dict, keys={**_SNAPSHOT, "mount": _text(default="/models/draft")}),
    "image": _mapping(
        required=True,
        name=_text(required=True),
        digest=_text(),
        vllm_versions=_text(default=""),
        size_gb=_number(default=0),
    ),
    "patches": Field(
        list,
        default=[],
        items=_mapping(
            file=_text(required=True),
            module=_text(required=True),
            vllm_versions=_text(required=True),
            sha256=_text(),
        ),
    ),
    "args": Field(dict, required=True),
    "container": _mapping(
        required=True,
        name=_text(required=True),
        port=Field(int, default=8002),
        gpus=_text(default="all", choices=("all", "none")),
        ipc=_text(default="host"),
        shm_size=_text(default="64gb"),
        memory_gib=_number(),
        env=Field(dict, default={}),
    ),
    "hardware": _mapping(
        architectures=_TEXTS,
        compute_capability=_text(default=""),
        memory_gib=_number(default=0),
        bandwidth_gb_s=_number(default=273),
    ),
    "startup": _mapping(timeout=Field(int, default=900), expect=Field(dict, default={})),
    "probes": Field(list, default=list(_probes.OF_TEXT), items=_text(choices=_probes.NAMES)),
    "throughput": _mapping(
        warmup=Field(int, default=1),
        ignore_eos=Field(bool, default=True),
        sequential=Field(dict, keys={"runs": Field(int, required=True), **_RUN}),
        long=Field(dict, keys=_RUN),
        parallel=Field(dict, keys={"requests": Field(int, required=True), **_RUN}),
        thresholds=_mapping(
            decode_tok_s_min=_number(),
            aggregate_tok_s_min=_number(),
            ttft_ms_max=_number(),
            roofline_share_min=_number(),
        ),
    ),
    "decode_bytes": _mapping(weights_gb=_number(), kv_gb=_number(default=0)),
}

# Ollama is compared with and not deployed: it brings, keeps and starts its models itself.
OLLAMA_SCHEMA: Mapping[str, Field] = {
    **_COMMON,
    "model": _mapping(required=True, size_gb=_number(required=True), quantization=_text(required=True)),
}

_NAMES = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a mapping", NUMBER: "a number"}
# The role passes these itself; a second one in args would contradict it.
_RESERVED_ARGS = ("model", "served-model-name", "host", "port", "api-key")
_OTHER_ENGINE = {
    "ollama": "its engine is ollama, which playbooks/compare.yml compares with and nothing deploys: choose one for vLLM",
    "vllm": "its engine is vllm, and recipe_ollama_name means Ollama's side of a comparison: choose one with 'engine: ollama'",
}
_ARG_NAME = re.compile(r"^[a-z0-9]+(-[a-z0-9]+|\.[a-z0-9_]+)*$")


@dataclass
class _Check:
    schema: Mapping[str, Field]
    problems: list[str] = field(default_factory=list)

    def value(self, path: str, value: Any, spec: Field) -> Any:
        """The value with its defaults filled in; problems are collected, not raised."""
        wanted = spec.kind if isinstance(spec.kind, tuple) else (spec.kind,)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            self.problems.append(f"{path} must be {_NAMES[spec.kind]}, it is {value!r}")
            return value
        if spec.choices and value not in spec.choices:
            self.problems.append(f"{path} must be one of {', '.join(spec.choices)}, it is {value!r}{_hint(str(value), spec.choices)}")
        if isinstance(value, Mapping) and spec.keys is not None:
            return self.mapping(path, value, spec.keys)
        if isinstance(value, list) and spec.items is not None:
            return [self.value(f"{path}[{i}]", item, spec.items) for i, item in enumerate(value)]
        return value

    def mapping(self, path: str, value: Mapping[str, Any], keys: Mapping[str, Field]) -> dict[str, Any]:
        prefix = f"{path}." if path else ""
        for key in value:
            if key not in keys:
                self.problems.append(f"{prefix}{key} is not a key of a recipe{_hint(str(key), keys) or self.elsewhere(str(key))}")
        filled: dict[str, Any] = {}
        for key, spec in keys.items():
            given = value.get(key)
            if given is not None:
                filled[key] = self.value(prefix + key, given, spec)
            elif spec.required:
                self.problems.append(f"{prefix}{key} is missing")
            elif spec.default == {} and spec.keys is not None:
                filled[key] = self.mapping(prefix + key, {}, spec.keys)
            else:
                filled[key] = spec.default
        return filled

    def elsewhere(self, word: str) -> str:
        """Where a key belongs that stands at the wrong place."""
        places = [path for path in paths(self.schema) if path.rpartition(".")[2] == word]
        return f" (did you mean {' or '.join(places)}?)" if places else ""


def _hint(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def paths(keys: Mapping[str, Field], prefix: str = "") -> list[str]:
    """Every key of a schema, dotted; those of the mappings in a list as C(list[].key)."""
    found = []
    for key, spec in keys.items():
        path = prefix + key
        found.append(path)
        if spec.keys is not None:
            found += paths(spec.keys, f"{path}.")
        elif spec.items is not None and spec.items.keys is not None:
            found += paths(spec.items.keys, f"{path}[].")
    return found


def _check_args(args: Any, draft: Any) -> list[str]:
    if not isinstance(args, Mapping):
        return []
    problems = _check_speculation(args.get("speculative-config"), draft)
    for name in map(str, args):
        plain = name.lstrip("-").replace("_", "-").lower()
        if not _ARG_NAME.match(name):
            problems.append(f"args.{name} is not written as vLLM's flag (did you mean {plain}?)")
        elif plain in _RESERVED_ARGS:
            problems.append(f"args.{name} is set by the collection itself: use the recipe's own key for it")
    return problems


def _check_speculation(config: Any, draft: Any) -> list[str]:
    """A draft model comes with the recipe, pinned and mounted: vLLM itself would fetch one at every start, whatever its name means then."""
    if config is not None and not isinstance(config, Mapping):
        return [f"args.speculative-config must be a mapping, it is {config!r}"]
    if config is not None and config.get("model") is not None:
        return ["args.speculative-config.model is set by the collection itself: use the recipe's key draft for the draft model"]
    if config is None and draft is not None:
        return [
            "draft needs args.speculative-config, such as {method: mtp, num_speculative_tokens: 2}: without it nothing uses the draft model"
        ]
    return []


def _check_versions(raw: Mapping[str, Any]) -> list[str]:
    """Version ranges that cannot be read."""
    patches = raw.get("patches")
    ranges = {"image": raw.get("image"), **{f"patches[{i}]": patch for i, patch in enumerate(patches if isinstance(patches, list) else [])}}
    problems = []
    for path, holder in ranges.items():
        wanted = holder.get("vllm_versions") if isinstance(holder, Mapping) else None
        if isinstance(wanted, str) and wanted:
            try:
                satisfies("0.0.0", wanted)
            except VersionError as exc:
                problems.append(f"{path}.vllm_versions: {exc}")
    return problems


def _check_mounts(recipe: Mapping[str, Any]) -> list[str]:
    mounts = {f"{key}.mount": recipe[key]["mount"] for key in ("model", "draft") if recipe[key]}
    problems = [f"{path} must be an absolute path, it is {mount!r}" for path, mount in mounts.items() if not mount.startswith("/")]
    if len(set(mounts.values())) < len(mounts):
        problems.append(f"model.mount and draft.mount are both {recipe['model']['mount']}: one would hide the other")
    return problems


def _check_thresholds(recipe: Mapping[str, Any]) -> list[str]:
    """Thresholds that nothing would be held against; bandwidth_gb_s of 0 says that no limit follows from it."""
    workload = recipe["throughput"]
    parts = {**workload, "roofline": recipe["hardware"]["bandwidth_gb_s"]}
    return [f"throughput.{problem}" for problem in contradictions(workload["thresholds"], parts)]


def _check_expect(startup: Any) -> list[str]:
    """What is wrong with the expectations of the startup log, found before anything is deployed."""
    expect = startup.get("expect") if isinstance(startup, Mapping) else None
    if isinstance(expect, Mapping):
        try:
            check(expect)
        except ExpectError as exc:
            return [f"startup.expect: {exc}"]
    return []


def load(raw: Mapping[str, Any], models_root: str, engine: str = "vllm", overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A recipe for C(engine), checked, with every default filled in. One for vLLM gets C(model.path), where its weights lie on a box, and
    C(draft.path) if it has a draft model; C(draft) is null if not.

    Each revision has its own directory, so a container that is kept to go back to still finds its weights. C(overrides) is what somebody
    wants instead, with the recipe's keys; a null in it says nothing. C(lock) is empty until the recipe is held to one.

    Raises RecipeError with all problems at once.
    """
    raw = _overridden(raw, overrides or {})
    name = raw.get("name") or "recipe"
    given = raw.get("engine") or "vllm"
    if given in ENGINES and given != engine:
        raise RecipeError(f"{name}: {_OTHER_ENGINE[given]}")
    checker = _Check(OLLAMA_SCHEMA if given == "ollama" else SCHEMA)
    recipe = checker.mapping("", raw, checker.schema)
    problems = checker.problems + _check_args(raw.get("args"), raw.get("draft")) + _check_expect(raw.get("startup")) + _check_versions(raw)
    if not problems and engine == "vllm":
        # What follows from values of the right types only.
        problems = _check_mounts(recipe) + _check_thresholds(recipe)
    if problems:
        raise RecipeError(f"{name}: " + "; ".join(problems))
    if engine == "vllm":
        root = f"{models_root.rstrip('/')}/{recipe['name']}"
        recipe["model"]["path"] = f"{root}/{recipe['model']['revision']}"
        if recipe["draft"]:
            recipe["draft"]["path"] = f"{root}.draft/{recipe['draft']['revision']}"
        recipe["lock"] = {}
    return recipe


def _overridden(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(raw)
    for key, value in overrides.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = _overridden(result[key], value)
        elif value is not None:
            result[key] = value
    return result


def decode_limit_tok_s(recipe: Mapping[str, Any]) -> float | None:
    """The memory-bound limit in tok/s: bandwidth over the bytes one token costs. None when the recipe does not say its bytes.

    Source: performance notes; 273 GB/s over 3.235 + 0.048 GB is 83.2 tok/s, the article's 52 is 62.5 % of it.
    """
    weights = recipe["decode_bytes"]["weights_gb"]
    if not weights:
        return None
    return recipe["hardware"]["bandwidth_gb_s"] / (weights + recipe["decode_bytes"]["kv_gb"])
