# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""HAProxy's server-state file, from which a worker learns after a reload or a restart who took part and what the checks said.

Run as a program before HAProxy reloads or stops: C(… SOCKET CONFIGURATION STATE_FILE).
"""

from __future__ import annotations

import fcntl
import re
import sys

from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._haproxy import HaproxyError, ask

_SERVER = re.compile(r"^\s*server\s+(\S+)\s+\S+:(\d+)(?:\s|$)", re.MULTILINE)


def save(socket: str, configuration: str, path: str) -> None:
    """Write what HAProxy knows of its servers. Raises HaproxyError and OSError.

    Whoever saves later also reads later, so that two that changed something at once do not lose each other's change.
    """
    with open(f"{path}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = ask(socket, "show servers state")
        if not state.startswith("1\n"):
            raise HaproxyError(f"HAProxy's server state is of a version that is not understood: {state[:40]!r}. {path} was not touched")
        with open(configuration, encoding="utf-8") as file:
            replace_file(path, with_ports(state, file.read()), mode=0o644)


def with_ports(state: str, configuration: str) -> str:
    """The state with the ports of the configuration: HAProxy would bring the old port back for a server that has a new one."""
    ports = dict(_SERVER.findall(configuration))
    columns: list[str] = []
    lines = []
    for line in state.splitlines():
        words = line.split()
        if line.startswith("#"):
            columns = words[1:]
        elif columns and len(words) == len(columns):
            row = dict(zip(columns, words, strict=True))
            row["srv_port"] = ports.get(row["srv_name"], row["srv_port"])
            line = " ".join(row.values())
        lines.append(line)
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    """Nothing to save where HAProxy does not run is no failure of a reload, so it is only said."""
    try:
        save(*argv)
    except (HaproxyError, OSError) as exc:
        sys.stderr.write(f"The server state was not saved: {exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
