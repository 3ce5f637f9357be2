# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import fcntl
import subprocess
import sys

import pytest
from faults.box import BOXES, FLEET, ROOT, Box, Served

LAB = [sys.executable, str(ROOT / "tests/sim/lab.py")]


@pytest.fixture(scope="session")
def box() -> Box:
    """This process' box. The first process makes those of all, and those that a fleet has besides."""
    lock = ROOT / ".cache" / "faults.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        subprocess.run([*LAB, "up", "--boxes", str(BOXES + FLEET), "--no-real-vllm"], check=True)
    return Box()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take the lab away when all processes have ended, and not after a mere look at which tests there are."""
    if not hasattr(session.config, "workerinput") and not session.config.option.collectonly:
        subprocess.run([*LAB, "down"], check=True)


@pytest.fixture
def served(box: Box) -> Served:
    """The article's recipe serves and is proven; a run that finds it so costs no restart."""
    run = box.play()
    assert run.rc == 0, run.why
    container = box.container()
    return Served(box, container["Id"], container["State"]["StartedAt"])
