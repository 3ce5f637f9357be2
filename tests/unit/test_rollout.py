# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a rollout: batches as Ansible makes them, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.utils.helpers import pct_to_int
from ansible_collections.dgx.spark.plugins.plugin_utils._rollout import CountError, batch_sizes, number, refusal
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
DEFAULT: list[Any] = [1, "25%", "100%"]


@pytest.mark.parametrize(
    ("serial", "boxes", "sizes"),
    [
        (DEFAULT, 1, [1]),
        (DEFAULT, 4, [1, 1, 2]),
        (DEFAULT, 100, [1, 25, 74]),
        ([1], 3, [1, 1, 1]),
        (2, 5, [2, 2, 1]),
        ("30%", 5, [1, 1, 1, 1, 1]),
        ([1, 0], 5, [1, 4]),
        ([], 3, [3]),
        ([5], 0, []),
    ],
)
def test_batches_are_those_of_ansible(serial: Any, boxes: int, sizes: list[int]) -> None:
    assert batch_sizes(serial, boxes) == sizes


@given(st.integers(0, 200), st.integers(0, 100))
def test_shares_are_rounded_as_ansible_rounds_them(boxes: int, share: int) -> None:
    # Where a float is just below the whole number, Ansible takes one box less, never more.
    assert pct_to_int(f"{share}%", boxes, min_value=0) - number(f"{share}%", boxes) in (-1, 0)


def test_enough_is_no_refusal() -> None:
    assert refusal(4, 4, [1], 3) == ""
    assert refusal(4, 4, DEFAULT, 2) == ""
    assert refusal(4, 4, DEFAULT, 0) == ""
    # Nothing that serves is moved: fresh boxes take nothing away.
    assert refusal(2, 0, DEFAULT, 2) == ""
    assert refusal(10, 2, DEFAULT, "90%") == ""


def test_too_few_is_refused_with_the_arithmetic() -> None:
    text = refusal(4, 4, DEFAULT, 3)
    assert "rollout_min_available is 3. Now 4 boxes serve; 4 of them are to be moved in batches of 1 + 1 + 2" in text
    assert "4 - 2 = 2 would be left to serve: too few. Take smaller batches" in text
    assert "is 4 (70% of 5, rounded up)" in refusal(5, 5, [2], "70%")
    assert "20 batches of up to 5" in refusal(100, 100, [5], 96)
    # One box alone serves: it cannot be spared at all.
    assert "1 - 1 = 0 would be left to serve: too few. No batch is smaller: let more boxes serve first" in refusal(1, 1, [1], 1)


@pytest.mark.parametrize("count", ["many", -1, True, "5 %%", "", 1.5])
def test_what_is_no_number_of_boxes_is_refused(count: Any) -> None:
    with pytest.raises(CountError, match="is not a number of boxes"):
        refusal(4, 4, [1], count)


@pytest.mark.parametrize(("playbook", "group"), [("gemma4", "spark_fresh"), ("gemma4", "spark_serving"), ("rollback", "spark_serving")])
def test_the_batches_are_in_the_order_of_the_inventory(playbook: str, group: str, tmp_path: Path) -> None:
    """Boxes join a group in the order in which they answer; the canary must not depend on it."""
    plays = yaml.safe_load((ROOT / f"playbooks/{playbook}.yml").read_text())
    (rollout,) = (play for play in plays if "serial" in play and f"&{group}" in play["hosts"])
    (tmp_path / "hosts.yml").write_text("spark: {hosts: {spark-1: , spark-2: , spark-3: }}\n")
    inventory = InventoryManager(loader=DataLoader(), sources=[str(tmp_path / "hosts.yml")])
    inventory.add_group(group)
    for name in ("spark-3", "spark-1", "spark-2"):
        inventory.add_host(name, group)
    patterns = [pattern.replace("{{ rollout_hosts | default('spark') }}", "spark") for pattern in rollout["hosts"]]
    assert [host.name for host in inventory.list_hosts(patterns)] == ["spark-1", "spark-2", "spark-3"]
