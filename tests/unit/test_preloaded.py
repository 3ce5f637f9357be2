# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The filter preloaded, in a process as Ansible's: afterwards a fork has everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from ansible.plugins import loader
loader.init_plugin_loader()
from ansible import constants
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
result = Templar(DataLoader(), variables={}).template(trust_as_template(sys.argv[1]))
package = "ansible_collections.dgx.spark.plugins."
loaded = sorted(name.removeprefix(package) for name in sys.modules if name.startswith(package))
read = [name for name in ("ssh", "ansible_collections.ansible.builtin.plugins.connection.ssh")
        if constants.config.has_configuration_definition("connection", name)]
print(json.dumps([result, loaded, read]))
"""


def in_a_process(template: str) -> tuple[str, set[str], list[str]]:
    """(what a template gives, which of the collection's Python is loaded then, by which names the connection's documentation was read)."""
    command = [sys.executable, "-c", SCRIPT, template]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    result, loaded, read = json.loads(done.stdout)
    return result, set(loaded), read


def test_afterwards_all_filters_and_the_connection_are_loaded() -> None:
    filters = {f"filter.{path.stem}" for path in (ROOT / "plugins" / "filter").glob("*.py")}
    result, loaded, read = in_a_process("{{ 'spark:!spark-3' | dgx.spark.preloaded }}")
    assert result == "spark:!spark-3"
    assert filters <= loaded
    assert len(read) == 2
    _result, loaded, read = in_a_process("{{ 'spark' }}")
    assert (filters & loaded, read) == (set(), [])


@pytest.mark.parametrize("name", ["gemma4", "rollback", "verify"])
def test_the_long_playbooks_begin_with_it(name: str) -> None:
    plays = yaml.safe_load((ROOT / "playbooks" / f"{name}.yml").read_text())
    assert "| dgx.spark.preloaded }}" in plays[0]["hosts"]
