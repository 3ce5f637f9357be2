#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Brings the packages of a bundle to the box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_packages
short_description: The packages of a bundle as a repository on the box
version_added: "0.1.0"
description:
  - Carries the packages that M(dgx.spark.bundle) collected to a directory of the box, compares each with its sha256, and makes of them a
    repository for apt. Nothing is installed.
  - The box's own sources stay as they are, and are not asked. A task that is to install from the repository has RV(apt_config) as
    C(APT_CONFIG) in its environment.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - apt on the box
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
    details: Nothing is carried, so RV(apt_config) is empty where the packages are not on the box yet.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: dgx.spark.bundle
options:
  bundle:
    description: A directory on the controller that M(dgx.spark.bundle) made.
    type: str
    required: true
  path:
    description: The directory of the repository. It belongs to this module; other packages in it are removed.
    type: path
    default: /var/lib/dgx-spark/packages
  wanted:
    description: For the module's action half, which carries the packages. Not for tasks.
    type: dict
"""

EXAMPLES = r"""
- name: Bring the packages of the bundle
  dgx.spark.bundle_packages:
    bundle: /media/disk/bundle
  register: brought

- name: Install one of them
  ansible.builtin.apt:
    name: python3-docker
  environment:
    APT_CONFIG: "{{ brought.apt_config }}"
"""

RETURN = r"""
apt_config:
  description: The configuration with which apt reads the repository and nothing else; empty when it is not there yet, in check mode.
  type: str
  returned: success
  sample: /var/lib/dgx-spark/packages/apt.conf
packages:
  description: The files of the packages.
  type: list
  elements: str
  returned: success
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _debs


def run(path: str, wanted: dict[str, str], check_mode: bool) -> dict[str, Any]:
    """What the module returns; with C(needed), the names of files that must come first, for the action half. Raises DebsError, OSError."""
    before = sorted(_debs.files(path))
    lacking = _debs.lacking(path, wanted)
    changed = bool(lacking) or not _debs.is_open(path, wanted)
    result: dict[str, Any] = {
        "changed": changed,
        "apt_config": "" if changed and check_mode else os.path.join(path, _debs.CONFIG),
        "packages": sorted(name for name in wanted if name != _debs.INDEX),
        "diff": {"before": "".join(f"{name}\n" for name in before), "after": "".join(f"{name}\n" for name in sorted(wanted))},
    }
    if changed and not check_mode:
        os.makedirs(path, mode=0o755, exist_ok=True)
        if lacking:
            return {**result, "needed": {name: os.path.join(path, name) for name in lacking}}
        _debs.open_repository(path, wanted)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "bundle": {"type": "str", "required": True},
            "path": {"type": "path", "default": "/var/lib/dgx-spark/packages"},
            "wanted": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["wanted"] is None:
            raise _debs.DebsError("nothing says what is in the bundle: call dgx.spark.bundle_packages as a task, which reads it")
        result = run(params["path"], params["wanted"], module.check_mode)
    except (_debs.DebsError, OSError) as exc:
        module.fail_json(msg=f"Cannot bring the packages of {params['bundle']}: {exc}. Nothing was installed", exception=exc)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
