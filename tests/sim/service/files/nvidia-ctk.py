# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test stand-in for nvidia-ctk: `--version`, `runtime configure` (merges daemon.json), `cdi generate`, `cdi list`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

VERSION = "@VERSION@"
CDI = 'cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n  containerEdits: {}\n- name: all\n  containerEdits: {}\n'


def configure(options: argparse.Namespace) -> None:
    path = Path(options.config)
    text = path.read_text() if path.exists() else ""
    config = json.loads(text) if text.strip() else {}
    config.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
    if options.set_as_default:
        config["default-runtime"] = "nvidia"
    new = json.dumps(config, indent=4) + "\n"
    if options.dry_run:
        print(new, end="")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(new)
    print(f'time="now" level=info msg="Wrote updated config to {path}"', file=sys.stderr)
    print('time="now" level=info msg="It is recommended that docker daemon be restarted."', file=sys.stderr)


def generate(options: argparse.Namespace) -> None:
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        Path(options.output).write_text(CDI)
    else:
        print(CDI, end="")


def main() -> None:
    parser = argparse.ArgumentParser(prog="nvidia-ctk")
    parser.add_argument("--version", "-v", action="version", version=f"NVIDIA Container Toolkit CLI version {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    runtime = commands.add_parser("runtime").add_subparsers(dest="what", required=True).add_parser("configure")
    runtime.add_argument("--runtime", default="docker", choices=["docker"])
    runtime.add_argument("--config", default="/etc/docker/daemon.json")
    runtime.add_argument("--set-as-default", "--nvidia-set-as-default", action="store_true")
    runtime.add_argument("--dry-run", action="store_true")
    runtime.set_defaults(run=configure)
    cdi = commands.add_parser("cdi").add_subparsers(dest="what", required=True)
    make = cdi.add_parser("generate")
    make.add_argument("--output")
    make.set_defaults(run=generate)
    cdi.add_parser("list").set_defaults(run=lambda options: print("nvidia.com/gpu=0\nnvidia.com/gpu=all"))
    options = parser.parse_args()
    options.run(options)


main()
