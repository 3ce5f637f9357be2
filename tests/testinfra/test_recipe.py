# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A recipe is read on the controller: the box is not even asked, so nothing of it is there."""

from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-2"]


def test_nothing_was_left_on_the_box(host: Host) -> None:
    assert not host.file("/srv/models").exists
    assert not host.file("/var/lib/dgx-spark").exists
