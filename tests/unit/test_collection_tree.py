# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What holds for the checkout: it names nobody's machine, ignores no finding, and the archive built from it works alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent

# A checkout works wherever it lies, and takes packages from where the machine's configuration says. The brackets keep this file out.
FOREIGN = re.compile(
    r"(?<![\w.-])/wor[k]/|/opt/(?:pyp[i]|wheel[s])|/tmp/brie[f]|pythonhoste[d]|pyp[i]\.org|registry\.npm[j]s|(?:deb|security)\.debia[n]\.org"
)
# What belongs to the checkout and not to the archive that users install.
WORKBENCH = {"tests", "molecule", "tools", "inventories", "reports", "Makefile", "ansible.cfg", "pyproject.toml", "requirements-dev.txt"}


def files() -> list[Path]:
    """The files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def run(*command: str | Path, cwd: Path, collections: Path | None = None) -> str:
    """Run one of Ansible's programs as a user with an empty home would: no collections path but the given one."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    with tempfile.TemporaryDirectory() as home:
        environment |= {"HOME": home, "PATH": f"{PROGRAMS}:{environment['PATH']}", "NO_COLOR": "1"}
        if collections:
            environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
        result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}"
    return result.stdout


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in files():
        content = path.read_bytes()
        if b"\0" not in content:
            for number, line in enumerate(content.decode().splitlines(), 1):
                found += [f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"] if FOREIGN.search(line) else []
    assert found == []


def test_no_finding_is_ignored() -> None:
    assert [path.name for path in files() if path.match("tests/sanity/ignore-*.txt") or path.name == ".ansible-lint-ignore"] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    first_screen = "\n".join(readme.splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert "@@" not in readme, "a placeholder is still to be filled"


def test_playbooks_resolve_from_a_plain_checkout() -> None:
    playbooks = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "playbooks").glob("*.yml"))]
    run("ansible-playbook", "--syntax-check", "-i", "inventories/lab", *playbooks, cwd=ROOT)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("build")
    run("ansible-galaxy", "collection", "build", "--output-path", target, cwd=ROOT)
    return next(target.glob("dgx-spark-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive installed into an empty path, as a user without network does."""
    target = tmp_path_factory.mktemp("installed")
    run("ansible-galaxy", "collection", "install", archive, "-p", target, "--offline", cwd=target)
    assert (target / "ansible_collections" / "dgx" / "spark" / "MANIFEST.json").exists()
    return target


def test_the_archive_has_what_a_user_needs_and_no_more(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        top = {name.partition("/")[0] for name in opened.getnames()}
    present = {name for name in ("roles", "plugins", "playbooks", "meta", "README.md", "LICENSE", "CHANGELOG.md") if (ROOT / name).exists()}
    assert present <= top
    assert [name for name in sorted(top) if name.startswith(".") or name in WORKBENCH] == []


def test_the_archive_runs_where_it_is_installed(installed: Path) -> None:
    assert "playbook: " in run("ansible-playbook", "--syntax-check", "-i", "box,", "dgx.spark.gemma4", cwd=installed, collections=installed)


def test_every_action_and_role_of_the_installed_playbooks_resolves(installed: Path) -> None:
    """A role that is included is looked up when a play runs, so a syntax check does not see that it lacks."""
    home = installed / "ansible_collections" / "dgx" / "spark"
    text = "\n".join(path.read_text() for folder in ("playbooks", "roles") for path in sorted((home / folder).rglob("*.yml")))
    roles = set(re.findall(r"name: dgx\.spark\.(\w+)", text)) | set(re.findall(r"role: dgx\.spark\.(\w+)", text))
    assert [role for role in sorted(roles) if not (home / "roles" / role).is_dir()] == []
    modules = set(re.findall(r"^\s*(?:- )?dgx\.spark\.(\w+):", text, re.MULTILINE))
    assert [name for name in sorted(modules) if not (home / "plugins" / "modules" / f"{name}.py").exists()] == []


def test_the_installed_report_finds_its_template_and_evaluates_nothing_that_a_model_said(installed: Path, tmp_path: Path) -> None:
    answer = "{{ 6 * 7 }} <b>"
    row = {"box": "spark-1", "evidence": {"probes": [{"name": "fact", "ok": True, "answer": answer}]}}
    (tmp_path / "rows.json").write_text(json.dumps({"rows": [row]}))
    content = "{{ (lookup('file', 'rows.json') | from_json).rows | dgx.spark.report_page(run='now', recipe={'name': 'r'}) }}"
    task = {"ansible.builtin.copy": {"content": content, "dest": str(tmp_path / "index.html"), "mode": "0644"}}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [task],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run("ansible-playbook", "-i", "localhost,", "play.yml", cwd=tmp_path, collections=installed)
    assert "{{ 6 * 7 }} &lt;b&gt;" in (tmp_path / "index.html").read_text()


def test_an_execution_environment_gets_what_the_controller_needs(installed: Path) -> None:
    introspected = yaml.safe_load(run("ansible-builder", "introspect", installed, cwd=installed))
    packages = {kind: {re.split(r"[\s<>=]", line)[0] for line in lines} for kind, lines in introspected.items()}
    assert packages == {"python": {"huggingface_hub"}, "system": {"openssh-client", "openssh-clients"}}


def test_the_collection_stands_on_ansible_core_alone() -> None:
    """What playbooks and roles use of other collections would have to be installed first."""
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"] == {}
    sources = [path for folder in ("playbooks", "roles") for path in sorted((ROOT / folder).rglob("*.yml"))]
    used = {name for path in sources for name in re.findall(r"^\s*(?:- )?(\w+\.\w+)\.\w+:", path.read_text(), re.MULTILINE)}
    assert used == {"ansible.builtin", "dgx.spark"}
