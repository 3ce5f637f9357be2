# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "docker: needs a Docker engine that answers")
