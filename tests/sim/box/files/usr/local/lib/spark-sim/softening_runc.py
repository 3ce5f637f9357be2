# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test stand-in for an OCI runtime: takes out what the outer machine cannot grant, counts the GPU's memory, then runs runc.

Without CAP_SYS_RESOURCE the kernel refuses rlimits above the hard limit and a negative oom_score_adj. Docker still
records what was asked, so `docker inspect` shows it; the limits are not in force.

A container with a GPU and a --gpu-memory-utilization takes that share of the box's memory from /proc/meminfo when it is
created, and gives it back some time after it is gone, as a GB10 does.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import memory

LOG = "/var/log/oci-runtime.jsonl"
WITH_VALUE = {"--root", "--log", "--log-format", "--criu", "--rootless"}


def command(args: list[str]) -> tuple[str, list[str]]:
    """The OCI command among runc's global options, and its arguments."""
    i = 0
    while i < len(args) and args[i].startswith("-"):
        i += 2 if args[i] in WITH_VALUE else 1
    return (args[i], args[i + 1 :]) if i < len(args) else ("", [])


def option(args: list[str], *names: str) -> str | None:
    """The value of an option that has several names."""
    for i, arg in enumerate(args):
        if arg in names:
            return args[i + 1]
        for name in names:
            if arg.startswith(name + "="):
                return arg.split("=", 1)[1]
    return None


def soften(process: dict[str, Any]) -> None:
    """Leave out of a process what the outer machine does not grant."""
    kept = []
    for limit in process.get("rlimits") or []:
        hard = resource.getrlimit(getattr(resource, limit["type"]))[1]
        if hard == resource.RLIM_INFINITY or limit["hard"] <= hard:
            kept.append(limit)
    process["rlimits"] = kept
    if (process.get("oomScoreAdj") or 0) < 0:
        process["oomScoreAdj"] = 0


def share(process: dict[str, Any]) -> float:
    """The share of memory that the container's vLLM reserves; 0 for any other container."""
    env = dict(e.split("=", 1) for e in process.get("env") or [] if "=" in e)
    if env.get("NVIDIA_VISIBLE_DEVICES", "void") in ("", "void", "none"):
        return 0.0
    try:
        return float(option(process.get("args") or [], "--gpu-memory-utilization") or 0)
    except ValueError:
        return 0.0


def main(args: list[str]) -> None:
    """Adapt the container's or the process's document, and become runc."""
    verb, rest = command(args)
    path = None
    if verb in ("create", "run"):
        path = os.path.join(option(rest, "--bundle", "-b") or ".", "config.json")
    elif verb == "exec":
        path = option(rest, "--process", "-p")
    elif verb == "delete" and rest:
        memory.release("container-" + rest[-1], after=memory.setting("container_release_s", 2.0))
    if path:
        with open(path) as file:
            spec = json.load(file)
        process = spec.get("process", spec)
        with open(LOG, "a") as file:
            file.write(json.dumps({"argv": sys.argv, "process": process}) + "\n")
        soften(process)
        with open(path, "w") as file:
            json.dump(spec, file)
        if verb != "exec" and share(process):
            memory.claim("container-" + rest[-1], int(share(process) * memory.TOTAL_KIB))
    os.execvp("runc", ["runc", *args])


if __name__ == "__main__":
    main(sys.argv[1:])
