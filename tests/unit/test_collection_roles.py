# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What holds for every role: its argument specification and its defaults say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").glob("*") if path.is_dir())


def load(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def options(role: Path, entry_point: str = "main") -> dict[str, dict[str, Any]]:
    return load(role / "meta" / "argument_specs.yml").get("argument_specs", {}).get(entry_point, {}).get("options", {})


def is_template(value: object) -> bool:
    return "{{" in str(value)


def commented(role: Path) -> set[str]:
    """The variables that a defaults file shows in comments: inputs that have no value until the user gives one."""
    path = role / "defaults" / "main.yml"
    return set(re.findall(r"^# ([a-z][a-z0-9_]*):", path.read_text(), re.MULTILINE)) if path.exists() else set()


def disagreements(role: Path) -> list[str]:
    """What the specification and the defaults of one role do not agree on."""
    name = role.name
    specs = load(role / "meta" / "argument_specs.yml").get("argument_specs", {})
    if "main" not in specs:
        return [f"{name}: meta/argument_specs.yml does not describe `main`"]
    defaults, found = load(role / "defaults" / "main.yml"), []
    every = {option: spec for entry_point in specs for option, spec in options(role, entry_point).items()}
    found += [f"{name}: {key} has a default and no option" for key in sorted(defaults.keys() - every.keys())]
    for option, spec in every.items():
        if not option.startswith(f"{name}_"):
            found.append(f"{name}: {option} lacks the prefix {name}_")
        if spec.get("required"):
            if option in defaults:
                found.append(f"{name}: {option} is required and has a default")
        elif option not in defaults:
            if "default" in spec:
                found.append(f"{name}: {option} is said to have a default, and has none")
            elif option not in commented(role):
                found.append(f"{name}: {option} is optional; show it, commented, in defaults/main.yml")
        elif is_template(defaults[option]):
            # A value that is computed has no place in a typed `default`; where the specification repeats it, it repeats it exactly.
            if spec.get("default", defaults[option]) != defaults[option]:
                found.append(f"{name}: {option} defaults to {defaults[option]!r}, the specification says {spec['default']!r}")
        elif "default" not in spec or spec["default"] != defaults[option] or type(spec["default"]) is not type(defaults[option]):
            found.append(f"{name}: {option} defaults to {defaults[option]!r}, the specification says {spec.get('default')!r}")
    return found


def every_task(data: object) -> Iterator[dict[str, Any]]:
    """Each mapping in plays, blocks and lists of tasks."""
    if isinstance(data, list):
        for entry in data:
            yield from every_task(entry)
    elif isinstance(data, dict):
        yield data
        for part in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from every_task(data.get(part))


def test_specifications_equal_defaults() -> None:
    assert [line for role in ROLES for line in disagreements(role)] == []


def test_entry_points_are_task_files_and_say_what_they_do() -> None:
    found = []
    for role in ROLES:
        for entry_point, spec in load(role / "meta" / "argument_specs.yml").get("argument_specs", {}).items():
            if not (role / "tasks" / f"{entry_point}.yml").exists():
                found.append(f"{role.name}: no tasks/{entry_point}.yml")
            found += [f"{role.name}: {entry_point} has no {key}" for key in ("short_description", "description") if not spec.get(key)]
            about = options(role, entry_point).items()
            found += [f"{role.name}: {option} has no description" for option, details in about if not details.get("description")]
    assert found == []


def test_every_role_has_a_scenario_that_is_verified() -> None:
    missing = [role.name for role in ROLES if not (ROOT / "molecule" / role.name / "converge.yml").exists()]
    missing += [role.name for role in ROLES if not (ROOT / "tests" / "testinfra" / f"test_{role.name}.py").exists()]
    assert missing == []


def test_secrets_are_marked_as_such() -> None:
    secret = re.compile(r"_(token|api_key|password|secret)$")
    every = {name: about for role in ROLES for name, about in options(role).items()}
    assert [name for name, about in every.items() if secret.search(name) and not about.get("no_log")] == []


def test_a_role_reads_no_other_roles_variables() -> None:
    """The defaults bind the recipe, and playbooks hand over the rest."""
    # A name, but no key of a mapping, no attribute and no literal.
    name = re.compile(r"(?<![\w.'\"])[a-z][a-z0-9_]*\b(?!\s*[:=(])")
    found = []
    for role in ROLES:
        foreign = {key for other in ROLES if other != role for key in load(other / "defaults" / "main.yml")}
        sources = [
            path for folder in ("defaults", "handlers", "tasks", "templates", "vars") for path in sorted((role / folder).rglob("*.*"))
        ]
        for path in sources:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                words = set(name.findall(line.partition("# ")[0]))
                found += [f"{path.relative_to(ROOT)}:{number}: {word}" for word in sorted(words & foreign)]
    assert found == []


def test_an_imported_role_keeps_its_defaults() -> None:
    """Otherwise the whole play sees them, and the playbooks' variables take a default for what the inventory says."""
    imports = []
    for path in sorted((ROOT / "playbooks").rglob("*.yml")):
        imports += [
            (f"{path.relative_to(ROOT)}: {task['name']}", task["ansible.builtin.import_role"].get("public", True))
            for task in every_task(yaml.safe_load(path.read_text()))
            if "ansible.builtin.import_role" in task
        ]
    assert imports and [where for where, public in imports if public] == []


def test_nothing_that_is_rescued_runs_once() -> None:
    """When it fails, all hosts have failed, and the rescue is run for one of them."""
    files = [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "roles").glob("*/tasks/*.yml")]
    tasks = [(path, task) for path in sorted(files) for task in every_task(yaml.safe_load(path.read_text()))]
    rescued = [(path, block) for path, block in tasks if block.get("rescue")]
    assert rescued
    once = [(path, task) for path, block in rescued for task in every_task([block]) if task.get("run_once")]
    assert [f"{path.relative_to(ROOT)}: {task['name']}" for path, task in once] == []


def test_a_disagreement_is_seen(tmp_path: Path) -> None:
    role = tmp_path / "demo"
    for folder in ("meta", "defaults"):
        (role / folder).mkdir(parents=True)
    spec = {
        "demo_same": {"default": 1},
        "demo_other": {"default": 1},
        "demo_type": {"default": "1"},
        "demo_bound": {},
        "demo_lost": {"default": 1},
        "demo_hidden": {},
        "demo_shown": {},
        "demo_must": {"required": True},
        "foreign": {"required": True},
    }
    (role / "meta" / "argument_specs.yml").write_text(yaml.safe_dump({"argument_specs": {"main": {"options": spec}}}, sort_keys=False))
    (role / "defaults" / "main.yml").write_text(
        "demo_same: 1\ndemo_other: 2\ndemo_type: 1\ndemo_bound: '{{ recipe_spec.x }}'\n# demo_shown: 3\ndemo_must: 1\ndemo_more: 1\n"
    )
    assert disagreements(role) == [
        "demo: demo_more has a default and no option",
        "demo: demo_other defaults to 2, the specification says 1",
        "demo: demo_type defaults to 1, the specification says '1'",
        "demo: demo_lost is said to have a default, and has none",
        "demo: demo_hidden is optional; show it, commented, in defaults/main.yml",
        "demo: demo_must is required and has a default",
        "demo: foreign lacks the prefix demo_",
    ]


def test_a_bundle_has_every_package_that_roles_install() -> None:
    """Those of the toolkit are versioned, and come by their own way."""
    packages = {
        name for role in ROLES for key, value in load(role / "defaults/main.yml").items() if key.endswith("_packages") for name in value
    }
    found = re.search(r"bundle_packages \| default\((\[.*?\])\)", (ROOT / "playbooks/bundle.yml").read_text())
    assert found
    assert set(yaml.safe_load(found[1])) == packages
