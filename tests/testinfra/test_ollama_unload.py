# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-4"]


def test_the_service_is_stopped_and_stays_so(host: Host) -> None:
    service = host.service("ollama")
    assert not service.is_running
    assert not service.is_enabled
