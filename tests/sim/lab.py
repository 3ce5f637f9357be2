# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The simulated lab: boxes with their own Docker engine, and the services around them, as containers on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from sim import boxes, engine, images, repos, services
from sim.names import CACHE, GATEWAY_HOST, LABEL, MAX_BOXES, NETWORK, PUSH_TO
from sim.shell import LabError, as_root, docker, fail, run, say

# Set where several people or processes use one lab: nothing that another one may use is taken away.
SHARED = bool(os.environ.get("SIM_SHARED"))


def make_cache() -> None:
    """The lab's cache, which git does not see."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n")


def ensure_images(*, real_vllm: bool) -> tuple[str, str]:
    """All images are built, and pushed to the running registry. The ids of the box and the service image."""
    state = images.State.load()
    base, box, service = images.base(), images.box(), images.service()
    for image in (base, service, box):
        images.build(image, state)
    ids = {image.tag: state.built[image.tag]["id"] for image in (box, service)}
    repos.ensure()
    services.ensure(ids[service.tag], services.running())
    images.push(base, state)
    for image in images.scripted():
        images.build(image, state)
        images.push(image, state)
    if real_vllm:
        images.build(images.cpu(), state)
        images.push(images.cpu(), state)
        images.train(state)
        repos.ensure()
    return ids[box.tag], ids[service.tag]


def up(options: argparse.Namespace) -> None:
    """`up`."""
    started = time.monotonic()
    engine.require()
    boxes.require_folder()
    make_cache()
    box_id, _service_id = ensure_images(real_vllm=not options.no_real_vllm)
    containers = services.running()
    count = max(options.boxes, *boxes.numbers(list(containers)), 0) if SHARED else options.boxes
    gateway = options.gateway or (SHARED and GATEWAY_HOST[0] in containers)
    boxes.ensure(count, box_id, containers, fresh=options.fresh and not SHARED, gateway=gateway)
    say(f"{count} boxes and 3 services are up ({time.monotonic() - started:.1f} s)")


def build(options: argparse.Namespace) -> None:
    """`images`."""
    engine.require()
    make_cache()
    ensure_images(real_vllm=not options.no_real_vllm)
    say("all images are there")


def down(options: argparse.Namespace) -> None:
    """`down`."""
    if SHARED:
        say("SIM_SHARED is set: nothing is removed")
        return
    engine.require()
    names = list(services.running())
    if names:
        say(f"removing {' '.join(sorted(names))}")
        boxes.remove(names)
    boxes.remove_cgroups()
    volumes = docker("volume", "ls", "-q", "--filter", f"label={LABEL}").split()
    if volumes:
        docker("volume", "rm", *volumes)
    if docker("network", "ls", "-q", "--filter", f"name=^{NETWORK}$").strip():
        docker("network", "rm", NETWORK)
    if options.all:
        images.remove_all()
        try:
            shutil.rmtree(CACHE)
        except PermissionError:  # what a build wrote as root
            run(as_root(["rm", "-rf", str(CACHE)]))
        except FileNotFoundError:
            pass
    say("nothing of the lab runs" + ("; images and cache are gone" if options.all else "; images and cache are kept (--all removes them)"))


def status(_options: argparse.Namespace) -> None:
    """`status`."""
    if not engine.answers():
        print("engine    none answers (tests/sim/lab.py engine installs and starts one)")
        return
    print(f"engine    Docker {engine.version()}")
    state, ids = images.State.load(), images.image_ids()
    for image in images.every():
        words = "current" if images.current(image, state, ids) else "outdated" if image.tag in ids else "not built"
        print(f"image     {image.tag:<34} {words}")
    containers = services.running()
    for service in services.services():
        print(f"service   {service.name:<34} {containers.get(service.name, ('absent', ''))[0]:<10} {service.url}")
    print(f"          images are pushed to {PUSH_TO}")
    for row in boxes.rows():
        print(f"box       {row['name']:<34} {row['state']:<10} {row['address']}")


def box_count(text: str) -> int:
    """A number of boxes. Raises ArgumentTypeError."""
    if not text.isdigit() or int(text) > MAX_BOXES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {MAX_BOXES}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="lab.py", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("engine", help="install and start a Docker engine, if this machine has none")
    command.set_defaults(run=lambda options: engine.ensure())

    command = commands.add_parser("images", help="build the images and push them to the lab's registry")
    command.add_argument("--no-real-vllm", action="store_true", help="leave out the real vLLM and the training of its model")
    command.set_defaults(run=build)

    command = commands.add_parser("up", help="services and exactly N boxes run")
    command.add_argument("--boxes", type=box_count, default=1, metavar="N", help="how many (1)")
    command.add_argument("--gateway", action="store_true", help="a host for a gateway before them, too")
    command.add_argument("--fresh", action="store_true", help="make the boxes anew")
    command.add_argument("--no-real-vllm", action="store_true", help="leave out the real vLLM and the training of its model")
    command.set_defaults(run=up)

    command = commands.add_parser("down", help="remove boxes, services, volumes and network")
    command.add_argument("--all", action="store_true", help="the images and the cache too")
    command.set_defaults(run=down)

    command = commands.add_parser("status", help="what is there")
    command.set_defaults(run=status)
    return top


def main() -> int:
    """Run one command; the exit code."""
    options = parser().parse_args()
    try:
        options.run(options)
    except LabError as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
