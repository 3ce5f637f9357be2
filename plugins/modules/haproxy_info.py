#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""What an HAProxy makes of all its servers."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_info
short_description: See what HAProxy makes of its servers
version_added: "0.1.0"
description:
  - Runs on HAProxy's host, asks its runtime API, and returns every server of a backend.
  - A host without HAProxy, or without that backend, is no failure. It has no servers.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.haproxy
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See who takes part
  dgx.spark.haproxy_info:
  register: gateway

- name: Nobody is left out
  ansible.builtin.assert:
    that: gateway.ready | length == gateway.servers | length
"""

RETURN = r"""
servers:
  description: Every server, by name, as M(dgx.spark.haproxy_server) returns one.
  type: dict
  returned: success
ready:
  description: The names of those that were told to take part, whatever their checks say.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._haproxy import ARGUMENTS, Absent, Backend, HaproxyError, Server


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    servers: dict[str, Server] = {}
    try:
        servers = Backend.of(module.params).servers()
    except Absent as exc:
        module.debug(str(exc))
    except HaproxyError as exc:
        module.fail_json(msg=str(exc), exception=exc)
    module.exit_json(
        servers={name: server.described() for name, server in servers.items()},
        ready=sorted(name for name, server in servers.items() if server.state == "ready"),
    )


if __name__ == "__main__":
    main()
