# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the role gateway brings to its host: the programs that it copies are all that they import."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / "plugins" / "module_utils"
PACKAGE = "ansible_collections.dgx.spark.plugins.module_utils."
PROGRAMS = ("_haproxy_agent.py", "_haproxy_state.py")


def imported(path: Path) -> tuple[set[str], set[str]]:
    """(files of the collection, other top-level packages) that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    own = {f"{name.removeprefix(PACKAGE)}.py" for name in names if name.startswith(PACKAGE)}
    return own, {name.partition(".")[0] for name in names if not name.startswith(PACKAGE)}


def test_the_programs_that_are_copied_are_the_two_and_all_that_they_import() -> None:
    copied = yaml.safe_load((ROOT / "roles" / "gateway" / "vars" / "main.yml").read_text())["__gateway_programs"]
    needed: set[str] = set()
    waiting = set(PROGRAMS)
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting |= imported(UTILS / name)[0] - needed
    assert copied == sorted(needed)


def test_they_need_python_s_standard_library_alone() -> None:
    copied = yaml.safe_load((ROOT / "roles" / "gateway" / "vars" / "main.yml").read_text())["__gateway_programs"]
    assert {package for name in copied for package in imported(UTILS / name)[1]} <= sys.stdlib_module_names
