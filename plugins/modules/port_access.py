#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Lets only some reach a port of the box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: port_access
short_description: Let only some reach a port of the box
version_added: "0.1.0"
description:
  - Loads one table of nftables, C(inet dgx_spark), that looks at one TCP port of the box and at nothing else, before Docker gives a packet
    another destination. Packets for the port from elsewhere are dropped; the box itself always reaches it.
  - A service loads it before the network is up, and again whenever C(nftables.service) has flushed all tables. What somebody else flushed
    is loaded again by the next run.
  - nftables takes the rules in one step, before any file is written. What it refuses changes nothing.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
notes:
  - Needs C(nft), so usually the package C(nftables), and root.
options:
  state:
    description: V(present) restricts the port, V(absent) takes table, service and files away.
    type: str
    choices: [present, absent]
    default: present
  port:
    description: The port. Needed with O(state=present).
    type: int
  allow_from:
    description:
      - Addresses and networks that may reach it (C(192.168.1.20), C(10.0.0.0/8), C(fd00::/8)). Needed with O(state=present), and not empty.
      - A container on the box that uses the box's own address is outside, and needs its network in the list.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Only the gateway reaches vLLM
  dgx.spark.port_access:
    port: 8002
    allow_from: [192.168.1.2]

- name: Leave the port to everybody
  dgx.spark.port_access:
    state: absent
"""

RETURN = r"""
in_force:
  description: Whether the table was there when the module came.
  type: bool
  returned: success
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _port_access
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._port_access import AccessError, units


def read(path: str) -> str | None:
    """The text of a file, None when it is not there. Raises OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


class Box:
    """What nftables and systemd have, and what they are told. Methods raise AccessError."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._systemctl = module.get_bin_path("systemctl", required=True)
        self.nft = module.get_bin_path("nft")

    @property
    def in_force(self) -> bool:
        return bool(self.nft) and self._module.run_command([self.nft, "list", "table", *_port_access.TABLE.split()])[0] == 0

    def service(self) -> tuple[bool, bool]:
        """Is the service enabled and active, and has systemd files that are newer than what it read?"""
        show = [self._systemctl, "show", "--property=UnitFileState,ActiveState,NeedDaemonReload", _port_access.SERVICE, "nftables.service"]
        ours, nftables = units(self._run(show))
        runs = (ours["UnitFileState"], ours["ActiveState"]) == ("enabled", "active")
        return runs, "yes" in (ours["NeedDaemonReload"], nftables["NeedDaemonReload"])

    def load(self, rules: str) -> None:
        self._run([str(self.nft), "--file", "-"], rules)

    def unload(self) -> None:
        self._run([str(self.nft), "delete", "table", *_port_access.TABLE.split()])

    def tell(self, *words: str) -> None:
        self._run([self._systemctl, *words])

    def _run(self, command: list[str], stdin: str | None = None) -> str:
        rc, out, err = self._module.run_command(command, data=stdin, binary_data=True)
        if rc:
            raise AccessError(f"{' '.join(command)} says: {(err or out).strip()}")
        return str(out)


def present(box: Box, wanted: dict[str, str | None], before: dict[str, str | None], in_force: bool, check_mode: bool) -> bool:
    """Restrict the port. Returns whether something was to be done. Raises AccessError and OSError."""
    if not box.nft:
        if check_mode:
            return True  # a box on which the package was only planned
        raise AccessError("there is no nft on this box: install the package nftables. Nothing was changed")
    runs, unread = box.service()
    differ = [path for path in wanted if before[path] != wanted[path]]
    to_do = bool(differ or unread or not in_force or not runs)
    if check_mode or not to_do:
        return to_do
    # First: who is killed here leaves files that differ, and the next run loads the rules again.
    if _port_access.RULES_FILE in differ or not in_force:
        box.load(wanted[_port_access.RULES_FILE] or "")
    for path in differ:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        replace_file(path, wanted[path] or "", 0o644)
    if unread or {_port_access.UNIT_FILE, _port_access.DROP_IN_FILE} & set(differ):
        box.tell("daemon-reload")
    box.tell("enable", "--now", _port_access.SERVICE)
    return True


def absent(box: Box, before: dict[str, str | None], in_force: bool, check_mode: bool) -> bool:
    """Take all of it away. Returns whether something was to be done. Raises AccessError and OSError."""
    there = [path for path in before if before[path] is not None]
    if check_mode or not (there or in_force):
        return bool(there or in_force)
    if before[_port_access.UNIT_FILE] is not None:
        box.tell("disable", "--now", _port_access.SERVICE)
    if box.in_force:
        box.unload()
    for path in there:
        os.unlink(path)
    box.tell("daemon-reload")
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "port": {"type": "int"},
            "allow_from": {"type": "list", "elements": "str"},
        },
        required_if=[("state", "present", ["port", "allow_from"])],
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["state"] == "present" and not params["allow_from"]:
            raise AccessError("allow_from is empty, and nobody would reach the port: state=absent leaves it to everybody")
        before: dict[str, str | None] = {
            path: read(path) for path in (_port_access.RULES_FILE, _port_access.UNIT_FILE, _port_access.DROP_IN_FILE)
        }
        wanted: dict[str, str | None] = dict.fromkeys(before)
        box = Box(module)
        in_force = box.in_force
        if params["state"] == "present":
            wanted = {**wanted, **_port_access.files(params["port"], params["allow_from"])}
            changed = present(box, wanted, before, in_force, module.check_mode)
        else:
            changed = absent(box, before, in_force, module.check_mode)
    except (AccessError, OSError) as exc:
        module.fail_json(msg=f"Cannot say who may reach the port: {exc}", exception=exc)
    diff = [
        {"before": text or "", "after": wanted[path] or "", "before_header": path, "after_header": path}
        for path, text in before.items()
        if text != wanted[path]
    ]
    module.exit_json(changed=changed, in_force=in_force, diff=diff)


if __name__ == "__main__":
    main()
