# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What holds for every module and filter: documented, in the action group, tested."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T", bound=ast.AST)
MODULES = sorted(path for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__")
FILTERS = sorted((ROOT / "plugins" / "filter").glob("*.yml"))


def ansible_doc(kind: str, names: list[str]) -> dict[str, Any]:
    """What ansible-doc makes of plugins of one kind: {"dgx.spark.x": {"doc": …, "examples": …, "return": …}}."""
    if not names:
        return {}
    environment = os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "NO_COLOR": "1"}
    command = [str(Path(sys.executable).parent / "ansible-doc"), "-t", kind, "--json", *(f"dgx.spark.{name}" for name in names)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    documents: dict[str, Any] = json.loads(result.stdout)
    return documents


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    return ansible_doc("module", [path.stem for path in MODULES])


def constant(path: Path, name: str) -> str:
    """A string that a Python file assigns to a name at its top level; empty if there is none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return str(ast.literal_eval(node.value))
    return ""


def test_every_module_renders_with_examples_and_returns(modules: dict[str, Any]) -> None:
    assert sorted(modules) == [f"dgx.spark.{path.stem}" for path in MODULES]
    assert [name for name, about in modules.items() if not about["examples"] or not about["return"]] == []


def test_every_example_uses_the_full_name_and_existing_options(modules: dict[str, Any]) -> None:
    found = []
    for name, about in modules.items():
        tasks = [task for task in yaml.safe_load(about["examples"]) if isinstance(task, dict)]
        uses = [task[name] for task in tasks if isinstance(task.get(name), dict)]
        if not any(name in task for task in tasks):
            found.append(f"{name}: no example calls it")
        found += [f"{name}: {option} is no option" for use in uses for option in use if option not in about["doc"].get("options", {})]
    assert found == []


def test_every_module_tells_how_it_behaves(modules: dict[str, Any]) -> None:
    found = []
    for name, about in modules.items():
        attributes = about["doc"].get("attributes", {})
        for attribute in ("check_mode", "diff_mode", "idempotent", "action_group"):
            said = attributes.get(attribute, {})
            if said.get("support") not in ("full", "partial", "none"):
                found.append(f"{name}: no support for {attribute} is stated")
            elif said["support"] != "full" and not said.get("details"):
                found.append(f"{name}: {attribute} is {said['support']}, and no details say why")
    assert found == []


def test_the_action_group_has_every_module_and_nothing_else() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    group = runtime["action_groups"]["spark"]
    assert group == sorted(group)
    assert [path.stem for path in MODULES] == group
    fragment = "dgx.spark.attributes.actiongroup_spark"
    documented = {path.stem: yaml.safe_load(constant(path, "DOCUMENTATION")) for path in MODULES}
    assert [name for name, about in documented.items() if fragment not in about.get("extends_documentation_fragment", [])] == []


def test_every_module_has_a_unit_test() -> None:
    tests = [path for path in (ROOT / "tests" / "unit").glob("test_*.py") if not path.name.startswith("test_collection_")]
    sources = "\n".join(path.read_text() for path in tests)
    assert [path.stem for path in MODULES if not re.search(rf"\b{path.stem}\b", sources)] == []


def test_every_filter_is_documented_and_every_documented_filter_is_there() -> None:
    sources = [path for path in sorted((ROOT / "plugins" / "filter").glob("*.py")) if path.stem != "__init__"]
    # In a process of its own: a filter brings in the controller's half of Ansible, and modules that are tested after it behave differently.
    script = "import importlib, json, sys; load = importlib.import_module; names = sys.argv[1:]\n"
    script += "print(json.dumps([name for plugin in names for name in load(plugin).FilterModule().filters()]))"
    command = [sys.executable, "-c", script, *(f"ansible_collections.dgx.spark.plugins.filter.{path.stem}" for path in sources)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".collections")}
    filters = set(json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout))
    # A filter documents itself in a file of its name, .yml or .py.
    documented = {path.stem for path in FILTERS} | {path.stem for path in sources if constant(path, "DOCUMENTATION")}
    assert filters == documented


def test_every_filter_renders_with_examples() -> None:
    filters = ansible_doc("filter", [path.stem for path in FILTERS])
    assert [name for name, about in filters.items() if not about["examples"] or not about["return"]] == []


def test_the_knowledge_does_not_know_ansible_module() -> None:
    utils = sorted((ROOT / "plugins" / "module_utils").glob("*.py"))
    assert [path.name for path in utils if "ansible.module_utils.basic" in path.read_text()] == []
    assert [path.name for path in utils if not path.name.startswith("_")] == []


def nodes(tree: ast.AST, kind: type[T]) -> list[T]:
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def test_only_main_fails_a_module_and_once() -> None:
    found = []
    for path in MODULES:
        for function in nodes(ast.parse(path.read_text()), ast.FunctionDef):
            calls = [call for call in nodes(function, ast.Call) if isinstance(call.func, ast.Attribute) and call.func.attr == "fail_json"]
            if len(calls) > (1 if function.name == "main" else 0):
                found.append(f"{path.name}: {function.name} calls fail_json {len(calls)} times")
    assert found == []


def test_nothing_swallows_every_exception() -> None:
    found = []
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for handler in nodes(ast.parse(path.read_text()), ast.ExceptHandler):
            blanket = handler.type is None or getattr(handler.type, "id", "") in ("Exception", "BaseException")
            if blanket and not (isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None):
                found.append(f"{path.relative_to(ROOT)}:{handler.lineno}")
    assert found == []
