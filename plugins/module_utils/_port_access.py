# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Who may reach a port of this box: a table of nftables of its own, and the service that loads it before the network is up."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

TABLE = "inet dgx_spark"
SERVICE = "dgx-spark-firewall.service"
RULES_FILE = "/etc/dgx-spark/firewall.nft"
UNIT_FILE = f"/etc/systemd/system/{SERVICE}"
DROP_IN_FILE = "/etc/systemd/system/nftables.service.d/dgx-spark.conf"

_BY = "# Made by dgx.spark.port_access"
# The first two lines make loading it again replace what is there, in one step. Its hook is before Docker gives the packet another
# destination, and apart from the tables of Docker and ufw, which come and go.
_RULES = """{by}: who may reach vLLM's port.
table {table}
delete table {table}

table {table} {{
    chain port {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "lo" fib daddr type local tcp dport {port} goto callers
    }}
    chain callers {{
{callers}
        counter drop
    }}
}}
"""
# nftables.service, which a box need not use, flushes all tables when it starts, reloads and stops.
_UNIT = """{by}.
[Unit]
Description=Who may reach vLLM's port
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft --file {rules}
ExecReload=/usr/sbin/nft --file {rules}
ExecStop=-/usr/sbin/nft delete table {table}

[Install]
WantedBy=sysinit.target nftables.service
"""
_DROP_IN = """{by}.
[Service]
ExecStartPost=-/usr/sbin/nft --file {rules}
"""


class AccessError(Exception):
    """The port cannot be restricted; the message says why."""


def files(port: int, allow_from: Iterable[str]) -> dict[str, str]:
    """Every file, path to text. Raises AccessError for what is no address and no network."""
    callers = "\n".join(f"        {family} saddr {address} accept" for family, address in _families(allow_from))
    return {
        RULES_FILE: _RULES.format(by=_BY, table=TABLE, port=port, callers=callers),
        UNIT_FILE: _UNIT.format(by=_BY, table=TABLE, rules=RULES_FILE),
        DROP_IN_FILE: _DROP_IN.format(by=_BY, rules=RULES_FILE),
    }


def units(text: str) -> Iterator[Mapping[str, str]]:
    """The properties of each unit, from C(systemctl show) of several."""
    for block in text.strip().split("\n\n"):
        yield dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _families(allow_from: Iterable[str]) -> list[tuple[str, str]]:
    """Each once, those of IPv4 first, as nftables calls the families."""
    found = set()
    for address in allow_from:
        try:
            version = ipaddress.ip_network(address, strict=False).version
        except ValueError as exc:
            raise AccessError(f"{address!r} is no address and no network, such as 192.168.1.20, 10.0.0.0/8 or fd00::/8") from exc
        found.add(("ip" if version == 4 else "ip6", address))
    return sorted(found)
