#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""One server behind an HAProxy: in rotation, drained, or under maintenance."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_server
short_description: Drain a server behind HAProxy, or let it take part again
version_added: "0.1.0"
description:
  - Runs on HAProxy's host and talks to its runtime API.
  - Sessions are counted over all workers of HAProxy. One that was replaced by a reload goes on with its streams, and the statistics of the
    new one do not show them.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.haproxy
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  state_file:
    description: HAProxy's server-state file. A change is written there at once, so that it survives a crash of the host too.
    type: path
  configuration:
    description: HAProxy's configuration, whose ports go into O(state_file).
    type: path
    default: /etc/haproxy/haproxy.cfg
  server:
    description: The server's name.
    type: str
    required: true
  state:
    description:
      - V(ready) lets it take part, and waits until all its checks pass.
      - V(drained) gives it nothing new, and waits until no session is left. A server under maintenance gets nothing new already, and
        stays so.
      - V(maintenance) gives it nothing new and stops its health check. It does not wait.
    type: str
    choices: [ready, drained, maintenance]
    required: true
  timeout:
    description:
      - The bound of the wait in seconds. When it is over the module fails, says how many sessions are left or what the checks say, and
        leaves the server in the state that was asked for.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Take this box out of rotation, and wait for its streams
  dgx.spark.haproxy_server:
    server: "{{ inventory_hostname }}"
    state: drained
    timeout: 600
  delegate_to: gateway-1

- name: Let it take part again
  dgx.spark.haproxy_server:
    server: "{{ inventory_hostname }}"
    state: ready
  delegate_to: gateway-1
"""

RETURN = r"""
server:
  description: The server as it is, or in check mode as it was found.
  type: dict
  returned: when HAProxy knows the server, and in check mode
  contains:
    name:
      description: Its name.
      type: str
    state:
      description: What it was told to be, in the words of O(state). In check mode also V(absent), when HAProxy does not know it yet.
      type: str
    status:
      description: What HAProxy makes of that and of the checks, in its own words.
      type: str
    sessions:
      description: How many run on it, or wait for it, over all workers.
      type: int
    checks:
      description: What the health check and the agent say, each as C(status) and C(text). The status is empty where there is no such check.
      type: dict
  sample:
    name: spark-1
    state: drained
    status: DRAIN
    sessions: 0
    checks: {health: {status: L7OK, text: Layer7 check passed}, agent: {status: L7OK, text: Layer7 check passed}}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._haproxy import ARGUMENTS, Absent, Backend, HaproxyError, NotYet, Server
from ansible_collections.dgx.spark.plugins.module_utils._haproxy_state import save
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress

# A little longer than between two checks of a server, as the role `gateway` has them.
SETTLE_S = 2.5


def needs_telling(server: Server, state: str) -> bool:
    """Is a command needed? A server under maintenance gets nothing new, which is all that a drain asks for."""
    return server.state != state and not (state == "drained" and server.state == "maintenance")


def make(backend: Backend, params: dict[str, Any], check_mode: bool, result: dict[str, Any]) -> None:
    """Plan and apply; fills C(result) as it goes, so that a failure still returns what was found. Raises HaproxyError and OSError."""
    name, state = params["server"], params["state"]
    try:
        server = backend.server(name)
    except Absent:
        if not check_mode:
            raise
        # A gateway that this run has only planned.
        result.update(changed=True, server={"name": name, "state": "absent"})
        return
    result["server"] = server.described()
    result["changed"] = needs_telling(server, state)
    after = state if result["changed"] else server.state
    result["diff"] = {"before": f"{server.state}\n", "after": f"{after}\n", "before_header": name, "after_header": name}
    if check_mode:
        return
    if result["changed"]:
        backend.tell(name, state)
        if params["state_file"]:
            save(params["socket"], params["configuration"], params["state_file"])
    tell = Progress(params["progress_file"])
    if state == "drained":
        server = backend.wait_idle(name, params["timeout"], tell)
    elif state == "ready":
        server = backend.wait_up(name, params["timeout"], SETTLE_S if result["changed"] else 0, tell)
    else:
        server = backend.server(name)
    result["server"] = server.described()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "state_file": {"type": "path"},
            "configuration": {"type": "path", "default": "/etc/haproxy/haproxy.cfg"},
            "server": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["ready", "drained", "maintenance"], "required": True},
            "timeout": {"type": "int", "default": 300},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    result: dict[str, Any] = {"changed": False}
    try:
        make(Backend.of(params), params, module.check_mode, result)
    except (HaproxyError, OSError) as exc:
        if isinstance(exc, NotYet):
            result["server"] = exc.server.described()
        module.fail_json(msg=str(exc), exception=exc, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
