# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""How the boxes of a play reach each other, for modules that let them share what they bring."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of the network between the boxes."""

    DOCUMENTATION = r"""
options:
  peer_ports:
    description: The TCP ports on which boxes reach each other, from the first to the last. A box uses one that is free.
    type: str
    default: 6881-6889
  peer_address:
    description: The IPv4 address at which the other boxes reach this one. Without it, it is the one of its route to the world.
    type: str
"""
