# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""What of this package a program needs that runs on a host without Ansible: its source, and that of all it imports from here."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable

PACKAGE = __name__.rpartition(".")[0]


def sources(names: Iterable[str]) -> dict[str, str]:
    """Source by name, of these modules of the package and of all that they import from it, sorted. Raises ImportError.

    Inside a module it finds what Ansible has sent along, so the module must import the programs itself.
    """
    found: dict[str, str] = {}
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found[name] = _source(f"{PACKAGE}.{name}")
        waiting |= _imported(found[name]) - found.keys()
    return dict(sorted(found.items()))


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    text = spec.loader.get_source(name) if spec and spec.loader and hasattr(spec.loader, "get_source") else None
    if text is None:
        raise ImportError(f"{name} has no source here")
    return str(text)


def _imported(text: str) -> set[str]:
    """The package's modules that a source imports. All of the collection is written `from package.module import …`."""
    modules = (node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    return {name.removeprefix(f"{PACKAGE}.") for name in modules if name.startswith(f"{PACKAGE}.")}
