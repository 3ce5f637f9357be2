# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from testinfra.host import Host

testinfra_hosts = ["ansible://spark-sim-5"]


def test_the_rules_are_in_force_for_both_families(host: Host) -> None:
    rules = host.check_output("nft list table inet dgx_spark")
    for rule in (
        "tcp dport != 8002 accept",
        "ip saddr 192.0.2.20 accept",
        "ip saddr 198.51.100.0/24 accept",
        "ip6 saddr 2001:db8::/32 accept",
    ):
        assert rule in rules
    assert rules.rstrip("}\n\t ").endswith("drop")


def test_they_come_back_with_the_box_and_with_nftables(host: Host) -> None:
    assert host.service("dgx-spark-firewall").is_enabled
    for deed in ("start", "reload", "restart"):
        host.check_output(f"systemctl {deed} nftables")
        host.check_output("nft list table inet dgx_spark")
    # It flushes all tables, and Docker's do not come back by themselves.
    host.check_output("systemctl stop nftables && systemctl restart docker")
