# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from faults.box import ROOT
from fleet.behind_gateway import BOXES, Clients, Fleet, new_version

LAB = [sys.executable, str(ROOT / "tests/sim/lab.py")]


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """All boxes serve, behind the gateway."""
    subprocess.run([*LAB, "up", "--boxes", str(len(BOXES)), "--gateway", "--no-real-vllm"], check=True)
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    run = made.play(vllm_env=new_version(), rollout_fresh_batches=[4], rollout_batches=[4])
    assert run.rc == 0, run.why
    yield made
    subprocess.run([*LAB, "down"], check=True)


@pytest.fixture(scope="session")
def clients(fleet: Fleet) -> Iterator[Clients]:
    """They ask from the first test to the last."""
    made = Clients(fleet.url, fleet.key)
    yield made
    made.stop()
