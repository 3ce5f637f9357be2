# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Docker's daemon.json: put a runtime in, take it out, and leave the rest as it is. Pure; the file belongs to the module."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

RUNTIME = "nvidia"


class DaemonJsonError(ValueError):
    """daemon.json cannot be merged; the message says where, and that the file was left alone."""


def load(text: str, path: str) -> dict[str, Any]:
    """The document as a mapping in its own order; an empty file counts as an empty one, as for dockerd. Raises DaemonJsonError."""
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:
        raise DaemonJsonError(
            f"{path} is not valid JSON (line {exc.lineno}, column {exc.colno}: {exc.msg}): repair it by hand. It was not touched"
        ) from exc
    if not isinstance(document, dict):
        raise DaemonJsonError(f"{path} must contain a JSON object, it contains {_kind(document)}: repair it by hand. It was not touched")
    runtimes = document.get("runtimes", {})
    if not isinstance(runtimes, dict) or not isinstance(runtimes.get(RUNTIME, {}), dict):
        raise DaemonJsonError(f"{path}: runtimes must map a name to an object: repair it by hand. It was not touched")
    return document


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a plain value")


def with_runtime(document: dict[str, Any], path: str, default: bool) -> dict[str, Any]:
    """A copy in which the nvidia runtime is C(path), and the default one if C(default). Its other settings and its arguments stay."""
    merged = copy.deepcopy(document)
    merged.setdefault("runtimes", {}).setdefault(RUNTIME, {"args": []})["path"] = path
    if default:
        merged["default-runtime"] = RUNTIME
    return merged


def without_runtime(document: dict[str, Any]) -> dict[str, Any]:
    """A copy without the nvidia runtime. As the default it goes too: dockerd does not start with a default that it does not know."""
    merged = copy.deepcopy(document)
    runtimes = merged.get("runtimes", {})
    if runtimes.pop(RUNTIME, None) is not None and not runtimes:
        del merged["runtimes"]
    if merged.get("default-runtime") == RUNTIME:
        del merged["default-runtime"]
    return merged


def render(document: dict[str, Any], like: str) -> str:
    """The document as text with the indentation of C(like) (the text it replaces); four spaces when that shows none."""
    found = re.search(r"\n([ \t]+)\S", like)
    return json.dumps(document, indent=found[1] if found else 4, ensure_ascii=False) + "\n"
