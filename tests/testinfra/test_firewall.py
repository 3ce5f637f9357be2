# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["docker://spark-sim-5"]


def test_only_this_port_is_looked_at_and_only_some_may_reach_it(host: Host) -> None:
    chains = [
        chain["chain"] for chain in json.loads(host.check_output("nft --json list table inet dgx_spark"))["nftables"] if "chain" in chain
    ]
    assert {chain["name"]: chain.get("hook") for chain in chains} == {"port": "prerouting", "callers": None}
    rules = [" ".join(line.split()) for line in host.check_output("nft --stateless list table inet dgx_spark").splitlines()]
    assert [rule for rule in rules if rule.endswith(("accept", "drop", "goto callers"))] == [
        'iifname != "lo" fib daddr type local tcp dport 8002 goto callers',
        "ip saddr 192.0.2.20 accept",
        "ip saddr 198.51.100.0/24 accept",
        "ip6 saddr 2001:db8::/32 accept",
        "counter drop",
    ]


def test_they_come_back_with_the_box_and_with_nftables(host: Host) -> None:
    assert host.service("dgx-spark-firewall").is_enabled
    for deed in ("start", "reload", "restart"):
        host.check_output(f"systemctl {deed} nftables")
        host.check_output("nft list table inet dgx_spark")
    # It flushes all tables, and Docker's do not come back by themselves.
    host.check_output("systemctl stop nftables && systemctl restart docker")
