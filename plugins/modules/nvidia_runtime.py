#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Registers the nvidia runtime with Docker."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_runtime
short_description: Register the nvidia runtime with Docker
version_added: "0.1.0"
description:
  - Merges the runtime C(nvidia) into Docker's C(daemon.json). Everything else in the file stays as it is, in its order.
  - Docker reads the file, and looks for the hook that serves C(--gpus), only when it starts. This module never restarts Docker, because
    that stops its containers; RV(restart_needed) says when somebody has to.
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
options:
  state:
    description:
      - V(present) registers the runtime.
      - V(absent) takes it out, also as the default runtime, because Docker does not start with a default that it does not know.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The runtime's program, found through Docker's PATH when it is no absolute path.
    type: str
    default: nvidia-container-runtime
  config:
    description: Docker's configuration file. It is made when it is not there.
    type: path
    default: /etc/docker/daemon.json
  set_default:
    description:
      - Make it the default runtime, for containers that ask for no GPU too.
      - V(false) leaves the default runtime as it is, whatever it is.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Register the runtime
  dgx.spark.nvidia_runtime:
  register: runtime

- name: Restart Docker
  ansible.builtin.systemd_service:
    name: docker
    state: restarted
  when: runtime.restart_needed

- name: Take it out again
  dgx.spark.nvidia_runtime:
    state: absent
"""

RETURN = r"""
restart_needed:
  description:
    - Whether Docker has to be restarted before it works as the file says. True when the file changed, and also when the file was right
      already but the running Docker does not have it yet (somebody stopped between the two).
  type: bool
  returned: success
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._daemon_json import (
    RUNTIME,
    DaemonJsonError,
    load,
    render,
    with_runtime,
    without_runtime,
)


def read(path: str) -> str:
    """The file's text; a file that is not there is empty."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def docker_has_it(module: AnsibleModule) -> bool | None:
    """Does the running Docker know the runtime? None when no Docker answers."""
    docker = module.get_bin_path("docker")
    if not docker:
        return None
    rc, out, _err = module.run_command([docker, "info", "--format", "{{json .Runtimes}}"])
    try:
        runtimes = json.loads(out) if rc == 0 else None
    except json.JSONDecodeError:
        return None
    return RUNTIME in runtimes if isinstance(runtimes, dict) else None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "str", "default": "nvidia-container-runtime"},
            "config": {"type": "path", "default": "/etc/docker/daemon.json"},
            "set_default": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    config, present = params["config"], params["state"] == "present"
    try:
        before = read(config)
        document = load(before, config)
        wanted = with_runtime(document, params["path"], params["set_default"]) if present else without_runtime(document)
        changed = wanted != document
        after = render(wanted, like=before) if changed else before
        if changed and not module.check_mode:
            os.makedirs(os.path.dirname(config), exist_ok=True)
            replace_file(config, after, mode=0o644)
    except (DaemonJsonError, OSError, UnicodeDecodeError) as exc:
        module.fail_json(msg=f"Cannot set the runtime {RUNTIME} to {params['state']} in {config}: {exc}", exception=exc)
    known = docker_has_it(module)
    module.exit_json(
        changed=changed,
        restart_needed=changed or (known is not None and known != present),
        diff={"before": before, "after": after, "before_header": config, "after_header": config},
    )


if __name__ == "__main__":
    main()
