# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from faults.box import ROOT, Box, Served


@pytest.fixture(scope="session")
def box() -> Iterator[Box]:
    subprocess.run([sys.executable, str(ROOT / "tests/sim/lab.py"), "up", "--boxes", "1", "--no-real-vllm"], check=True)
    yield Box()
    subprocess.run([sys.executable, str(ROOT / "tests/sim/lab.py"), "down"], check=True)


@pytest.fixture
def served(box: Box) -> Served:
    """The article's recipe serves and is proven; a run that finds it so costs no restart."""
    run = box.play()
    assert run.rc == 0, run.output[-6000:]
    container = box.container()
    return Served(box, container["Id"], container["State"]["StartedAt"])
