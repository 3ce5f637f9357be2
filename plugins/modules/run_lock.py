#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Holds a box for one run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lock
short_description: Hold a box for one run
version_added: "0.1.0"
description:
  - Keeps two runs, also of two controllers, from changing a box at the same time. The lock is a file on the box that names the run, its
    owner and since when. It is taken and given back in one step.
  - Who holds it already may ask again, which is how a run sees that nobody has broken its lock.
  - A run that was killed leaves its lock. The controller on which it ran knows that its process is over, and takes the lock over with a
    warning. Another controller cannot know, so it fails and names the owner and the age. O(force) takes the lock all the same.
  - A box that restarts lets go of every lock.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
    details: Takes no lock. Another run's is a warning.
  diff_mode:
    support: none
    details: There is nothing to compare. RV(holder) says who holds it.
  idempotent:
    support: full
options:
  run:
    description: The name of the run. A name that several runs have is no harm, as long as O(owner) or O(process) differs.
    type: str
    required: true
  state:
    description: V(present) holds the box, V(absent) lets it go. A lock of another run stays.
    type: str
    choices: [present, absent]
    default: present
  force:
    description: Take the lock from the run that holds it. Make sure that it is over.
    type: bool
    default: false
  path:
    description: The file.
    type: path
    default: /run/lock/dgx-spark/run.json
  owner:
    description: Who runs it. The action plugin sets it to C(USER@HOST) of the controller.
    type: str
    default: unknown
  process:
    description: Which process runs it. The action plugin sets it.
    type: str
    default: ""
  instead_of:
    description: The O(process) of a run that is known to be over. The action plugin sets it.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Hold the box for this run
  dgx.spark.run_lock:
    run: 2026-11-24T180000Z

- name: Let it go
  dgx.spark.run_lock:
    run: 2026-11-24T180000Z
    state: absent
"""

RETURN = r"""
holder:
  description:
    - The C(run) that held the box before, with its C(owner) and C(process), C(since) in seconds of the box's clock, and C(age_s).
    - V(null) when nobody did.
  type: dict
  returned: always
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._exclusive import Occupied, exclusive
from ansible_collections.dgx.spark.plugins.module_utils._run_lock import LOCK, Holder, about, holder, may_take, same

GUARD_S = 10.0  # what two modules that ask at the same time wait for each other


class Held(Exception):
    """Another run holds the box."""


def read(path: str) -> Holder | None:
    """Who holds it; None when nobody does."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return holder(file.read())
    except FileNotFoundError:
        return None


def hold(module: AnsibleModule, result: dict[str, Any]) -> None:
    """Take the lock or let it go; fills C(result). Raises Held, Occupied, OSError."""
    params = module.params
    path = params["path"]
    with exclusive(f"{path}.guard", GUARD_S):
        now = time.time()
        found = read(path)
        result["holder"] = about(found, now)
        asks = Holder(params["run"], params["owner"], now, params["process"])
        mine = found is not None and same(found, asks)
        if params["state"] == "absent":
            result["changed"] = mine
            if mine and not module.check_mode:
                os.unlink(path)
            elif found is not None and not mine:
                module.warn(f"the box is held by {found.words(now)}: that lock stays")
            return
        result["changed"] = not mine
        if not may_take(found, asks, params["instead_of"], params["force"]):
            words = f"the box is held by {found.words(now) if found else ''}"
            if not module.check_mode:
                raise Held(
                    f"{words}. Wait until it is over. If it was killed and left this lock, run again with -e rollout_break_lock=true"
                )
            module.warn(words)
        if not mine and not module.check_mode:
            replace_file(path, asks.text(), mode=0o644)
            if found is not None:
                module.warn(f"the lock was taken over from {found.words(now)}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "run": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "force": {"type": "bool", "default": False},
            "path": {"type": "path", "default": LOCK},
            "owner": {"type": "str", "default": "unknown"},
            "process": {"type": "str", "default": ""},
            "instead_of": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "holder": None}
    try:
        hold(module, result)
    except (Held, Occupied, OSError) as exc:
        module.fail_json(msg=str(exc), exception=exc, **(result | {"changed": False}))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
