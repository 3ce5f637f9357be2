#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Puts the agent beside HAProxy, with all that it needs to run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_agent
short_description: Put the agent that asks boxes for tokens beside HAProxy
version_added: "0.1.0"
description:
  - Brings the collection's two programs to a gateway's host, with every module of the collection that they import. One is the agent that
    HAProxy's C(agent-check) asks, the other saves the server state before a reload. They need Python's standard library alone.
  - Writes the agent's settings, the key that it sends to the boxes, and the units that run both. Starting them is left to
    M(ansible.builtin.systemd_service); RV(restart_needed) and RV(reload_needed) say what has to be done, also when an earlier run was
    killed between the two.
  - Every file is replaced in one step, and only when it differs. A module that no program imports any more is removed.
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
    details: Of a program its name and sha256 are shown, of the key nothing.
  idempotent:
    support: full
options:
  boxes:
    description: The boxes that the agent asks.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The box's name, as HAProxy's server is called.
        type: str
        required: true
      address:
        description: Where the gateway reaches it.
        type: str
        required: true
      port:
        description: Where vLLM listens.
        type: int
        required: true
      maxconn:
        description: How many requests it answers at once. The agent does not need it.
        type: int
  listen:
    description: Address and port on which HAProxy asks the agent.
    type: str
    required: true
  interval:
    description: So often a box is asked for a token, in seconds.
    type: int
    required: true
  timeout:
    description: So long it may take, in seconds.
    type: int
    required: true
  failures:
    description: After so many failures in a row a box is put out.
    type: int
    required: true
  successes:
    description: After so many answers in a row it takes part again.
    type: int
    required: true
  api_key:
    description: The key that the boxes ask for; empty where they ask for none. It is kept in O(key_file), for O(user) alone.
    type: str
    default: ""
  user:
    description: Who runs the agent.
    type: str
    required: true
  units:
    description: Unit files of systemd, and additions to them, path to text.
    type: dict
    default: {}
  service:
    description: The agent's service.
    type: str
    required: true
  configuration:
    description: HAProxy's configuration file. It is looked at, not written.
    type: path
    default: /etc/haproxy/haproxy.cfg
  socket:
    description: HAProxy's socket for commands.
    type: path
    default: /run/haproxy/admin.sock
  settings_file:
    description: Where the agent reads its settings.
    type: path
    required: true
  key_file:
    description: Where the agent reads the key.
    type: path
    required: true
  library:
    description: The directory below which the programs lie; it is their C(PYTHONPATH).
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Put the agent beside HAProxy
  dgx.spark.haproxy_agent:
    boxes:
      - {name: spark-1, address: 192.0.2.11, port: 8002}
    listen: 127.0.0.1:8406
    interval: 10
    timeout: 20
    failures: 3
    successes: 1
    user: dgx-spark-gateway
    service: dgx-spark-gateway-agent
    settings_file: /etc/dgx-spark/gateway-agent.json
    key_file: /etc/dgx-spark/gateway-api-key
    library: /usr/local/lib/dgx-spark
    units:
      /etc/systemd/system/dgx-spark-gateway-agent.service: "{{ lookup('ansible.builtin.template', 'agent.service.j2') }}"
  register: agent

- name: Run it
  ansible.builtin.systemd_service:
    name: dgx-spark-gateway-agent
    state: "{{ 'restarted' if agent.restart_needed else 'started' }}"
    daemon_reload: "{{ agent.restart_needed }}"
"""

RETURN = r"""
restart_needed:
  description:
    - Whether systemd has to read its units again and to restart the agent. True when a file changed, and also when the running agent was
      started before the newest of them was written.
  type: bool
  returned: success
reload_needed:
  description: Whether the running HAProxy was started, or reloaded, before its configuration was written.
  type: bool
  returned: success
"""

import hashlib
import json
import os
import pwd
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Ansible sends along what a module imports, and only that: these two are brought to the host as they are.
from ansible_collections.dgx.spark.plugins.module_utils import _haproxy_agent, _haproxy_state
from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._haproxy import HaproxyError, ask
from ansible_collections.dgx.spark.plugins.module_utils._programs import PACKAGE, sources

PROGRAMS = tuple(module.__name__.rpartition(".")[2] for module in (_haproxy_agent, _haproxy_state))


class AgentError(Exception):
    """The agent cannot be put there; the message says why."""


@dataclass(frozen=True)
class File:
    """A file as it has to be; C(text) is None for one that has to go. C(kind) is program, settings, key or unit."""

    kind: str
    path: str
    text: str | None

    @property
    def before(self) -> str | None:
        """What is there now. Raises OSError."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None

    @property
    def mode(self) -> int:
        return 0o600 if self.kind == "key" else 0o644


def settings(params: Mapping[str, Any]) -> str:
    """What the agent reads, as module_utils._haproxy_agent.Settings."""
    document = {name: params[name] for name in ("listen", "interval", "timeout", "failures", "successes")}
    boxes = [{name: value for name, value in box.items() if value is not None} for box in params["boxes"]]
    key_file = params["key_file"] if params["api_key"] else ""
    return json.dumps({**document, "boxes": boxes, "key_file": key_file}, indent=4, sort_keys=True) + "\n"


def wanted(params: Mapping[str, Any]) -> Iterator[File]:
    """Every file; what the package's directory has besides goes."""
    home = os.path.join(params["library"], *PACKAGE.split("."))
    programs = {f"{name}.py": text for name, text in sources(PROGRAMS).items()}
    there = os.listdir(home) if os.path.isdir(home) else []
    for name in sorted({*programs, *(name for name in there if name.endswith(".py"))}):
        yield File("program", os.path.join(home, name), programs.get(name))
    yield File("settings", params["settings_file"], settings(params))
    yield File("key", params["key_file"], f"{params['api_key']}\n" if params["api_key"] else None)
    for path, text in params["units"].items():
        yield File("unit", path, text)


def put(file: File, uid: int | None) -> None:
    """Make it so. Raises OSError."""
    if file.text is None:
        os.unlink(file.path)
        return
    os.makedirs(os.path.dirname(file.path), mode=0o755, exist_ok=True)
    if os.path.exists(file.path):
        os.chmod(file.path, file.mode)  # first: what replaces it has its mode, and a key that others may read gets no new text
    replace_file(file.path, file.text, file.mode)
    if file.kind == "key" and uid is not None:
        os.chown(file.path, uid, -1)


def is_right(file: File, before: str | None, uid: int | None) -> bool:
    """Is it so already? A key that others may read is not. Raises OSError."""
    if before != file.text:
        return False
    if file.kind != "key" or before is None:
        return True
    seen = os.stat(file.path)
    return (seen.st_mode & 0o7777, seen.st_uid) == (file.mode, uid)


def uid_of(user: str) -> int | None:
    """None for a user that is not there."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def written(paths: Iterable[str]) -> float:
    """When the newest of these files was written, in seconds since the epoch; 0 when there is none. Raises OSError."""
    return max((os.stat(path).st_mtime for path in paths if os.path.exists(path)), default=0.0)


def agent_started(module: AnsibleModule, service: str) -> float | None:
    """When the service was started, in seconds since the epoch; None when it does not run."""
    systemctl = module.get_bin_path("systemctl", required=True)
    _rc, out, _err = module.run_command([systemctl, "show", "--value", "--property=ActiveEnterTimestampMonotonic", service])
    since_boot = int(out.strip() or 0) / 1e6
    return since_boot + time.time() - time.monotonic() if since_boot else None


def haproxy_started(socket: str) -> float | None:
    """When the worker that answers was started, in seconds since the epoch and not later than a second after it; None when none answers."""
    try:
        uptime = re.search(r"^Uptime_sec: (\d+)", ask(socket, "show info"), re.MULTILINE)
    except HaproxyError:
        return None
    return time.time() - int(uptime[1]) if uptime else None


def shown(file: File, text: str | None) -> str:
    """What a diff may have of it."""
    if text is None or file.kind == "key":
        return ""
    return f"sha256 {hashlib.sha256(text.encode()).hexdigest()}\n" if file.kind == "program" else text


def main() -> None:
    box = {
        "name": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "maxconn": {"type": "int"},
    }
    module = AnsibleModule(
        argument_spec={
            "boxes": {"type": "list", "elements": "dict", "required": True, "options": box},
            "listen": {"type": "str", "required": True},
            **{name: {"type": "int", "required": True} for name in ("interval", "timeout", "failures", "successes")},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "user": {"type": "str", "required": True},
            "units": {"type": "dict", "default": {}},
            "service": {"type": "str", "required": True},
            "configuration": {"type": "path", "default": "/etc/haproxy/haproxy.cfg"},
            "socket": {"type": "path", "default": "/run/haproxy/admin.sock"},
            **{name: {"type": "path", "required": True} for name in ("settings_file", "library")},
            "key_file": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    diff: list[dict[str, str]] = []
    try:
        uid = uid_of(params["user"])
        if uid is None and params["api_key"] and not module.check_mode:
            raise AgentError(f"there is no user {params['user']} on this host, for whom the key would be kept. Nothing was written")
        files = list(wanted(params))
        for file in files:
            before = file.before
            if is_right(file, before, uid):
                continue
            headers = {"before_header": file.path, "after_header": file.path}
            diff.append({"before": shown(file, before), "after": shown(file, file.text), **headers})
            if not module.check_mode:
                put(file, uid)
        agent, haproxy = agent_started(module, params["service"]), haproxy_started(params["socket"])
        module.exit_json(
            changed=bool(diff),
            restart_needed=bool(diff) or (agent is not None and agent < written(file.path for file in files)),
            reload_needed=haproxy is not None and haproxy < written([params["configuration"]]),
            diff=diff,
        )
    except (AgentError, OSError) as exc:
        module.fail_json(msg=f"Cannot put the agent beside HAProxy: {exc}", exception=exc)


if __name__ == "__main__":
    main()
