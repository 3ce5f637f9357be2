# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.sources: from which addresses the hosts of a gateway reach a box."""

from __future__ import annotations

DOCUMENTATION = r"""
name: sources
short_description: The addresses from which hosts come
version_added: "0.1.0"
description:
  - Takes the variables of hosts and returns the addresses from which a box sees them, and those that are given beside them.
  - A host's address is its variable C(gateway_address) when it has one, else C(ansible_host), else its name. Names are resolved on the
    controller, to all addresses that they have.
options:
  _input:
    description: The variables of the hosts.
    type: list
    elements: dict
    required: true
  others:
    description: Addresses and networks that are returned with them.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Who may reach the port?
  ansible.builtin.debug:
    msg: "{{ groups['gateway'] | map('extract', hostvars) | dgx.spark.sources(['10.0.0.0/8']) }}"
"""

RETURN = r"""
_value:
  description: Addresses and networks, sorted, each once.
  type: list
  elements: str
"""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def sources(hosts: Iterable[Mapping[str, Any]], others: Iterable[str] = ()) -> list[str]:
    return sorted({*(address for host in hosts for address in _resolved(host)), *map(_network, others)})


def _network(text: str) -> str:
    """An address or a network as nftables writes it."""
    try:
        found = ipaddress.ip_network(str(text).strip(), strict=False)
    except ValueError as exc:
        raise AnsibleFilterError(
            f"{text!r} is neither an address nor a network such as 192.168.1.20 or 10.0.0.0/8: see vllm_allow_from"
        ) from exc
    return str(found.network_address) if found.num_addresses == 1 else str(found)


def _resolved(host: Mapping[str, Any]) -> set[str]:
    name = str(host.get("gateway_address") or host.get("ansible_host") or host["inventory_hostname"])
    gateway, remedy = host["inventory_hostname"], "set gateway_address there to the address from which the boxes see it"
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError as exc:
        raise AnsibleFilterError(f"{name}, the address of the gateway {gateway}, does not resolve here ({exc}): {remedy}") from exc
    if all(ipaddress.ip_address(address).is_loopback for address in found):
        raise AnsibleFilterError(f"{name}, the address of the gateway {gateway}, is this machine's loopback: {remedy}")
    return found


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"sources": sources}
