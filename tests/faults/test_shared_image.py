# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Three boxes of one play bring an image, over SSH and through a mirror that counts: once, and whatever fails, each has it in the end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults.box import BOX, BOXES, FLEET, ROOT, Box, Run
from faults.registry import Mirror
from sim.names import PUSH_TO, REGISTRY_STORAGE

REPOSITORY = "vllm/fleet-test"
PORTS = range(6881, 6890)
LAYERS = 2
LARGE = 12_000_000  # bytes of a layer, which nothing compresses
DAEMON = "/etc/docker/daemon.json"


class Fleet:
    """The boxes, an image of random bytes in the lab's registry, and the module run on all boxes at once."""

    def __init__(self, mirror: Mirror, folder: Path) -> None:
        self.mirror = mirror
        self.names = [BOX, *(f"spark-sim-{BOXES + number}" for number in range(1, FLEET + 1))]
        self.folder = folder
        self.image = f"{REPOSITORY}:{secrets.token_hex(4)}"
        self.digest = self.push(self.image)

    def push(self, image: str, upon: str = "", layers: int = LAYERS) -> str:
        """Make an image that nobody has seen, with layers of its own upon those of another one, and give it to the registry; its digest."""
        context = self.folder / image.replace("/", "-")
        context.mkdir()
        for number in range(layers):
            (context / f"layer-{number}").write_bytes(os.urandom(LARGE))
        below = f"{PUSH_TO}/{upon}" if upon else "scratch"
        (context / "Dockerfile").write_text(f"FROM {below}\n" + "".join(f"COPY layer-{number} /\n" for number in range(layers)))
        name = f"{PUSH_TO}/{image}"
        environment = os.environ | {"DOCKER_BUILDKIT": "0"}
        subprocess.run(["docker", "build", "-q", "-t", name, str(context)], check=True, capture_output=True, env=environment)
        pushed = subprocess.run(["docker", "push", name], check=True, capture_output=True, text=True).stdout
        subprocess.run(["docker", "rmi", name, *([below] if upon else [])], check=True, capture_output=True)
        return re.findall(r"sha256:[0-9a-f]{64}", pushed)[-1]

    def bring(self, image: str = "", meanwhile: Callable[[], None] = lambda: None) -> Run:
        """Run the module; C(meanwhile) is called beside it."""
        book = self.folder / "play.yml"
        packages = {"name": ["python3-docker", "aria2"], "install_recommends": False, "update_cache": True, "cache_valid_time": 86400}
        tasks = [
            {"name": "Install what it needs", "ansible.builtin.apt": packages},
            {"name": "Bring the image", "dgx.spark.vllm_image": {"image": image or self.image, "share": True}},
        ]
        variables = {"spark_progress_seconds": 1}
        book.write_text(yaml.safe_dump([{"hosts": self.names, "gather_facts": False, "become": True, "vars": variables, "tasks": tasks}]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/sim", str(book), "-v"]
        thread = threading.Thread(target=meanwhile, daemon=True)
        thread.start()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        thread.join(30)
        return Run(done.returncode, done.stdout)

    def sh(self, name: str, command: str) -> str:
        done = subprocess.run(["docker", "exec", name, "sh", "-c", command], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def ids(self, image: str = "") -> dict[str, str]:
        """Docker's id of the image on each box that has it by this name."""
        found = {name: self.sh(name, f"docker image inspect -f '{{{{.Id}}}}' {image or self.image} 2>/dev/null") for name in self.names}
        return {name: image_id for name, image_id in found.items() if image_id}

    def forget(self, *names: str) -> None:
        """These boxes never had it."""
        for name in names:
            self.sh(name, f"docker images -q {REPOSITORY} | sort -u | xargs -r docker rmi -f; docker image prune -f")

    def left(self) -> list[str]:
        """What is still there of it on any box: processes, listening ports, archives. Ansible's wrapper ends some seconds later."""
        ports = "|".join(f"{port:04X}" for port in PORTS)
        processes = "ps -ww -eo args | grep -E '[a]ria2c|[v]llm_image' | grep -v async_wrapper"
        # The packages of a bundle stay on a box.
        find = "find /var/lib/dgx-spark -path /var/lib/dgx-spark/packages -prune -o"
        files = f"{find} '(' -size +1000k -o -path '/var/lib/dgx-spark/fleet*' ')' -print; ls /var/lib/docker/tmp"
        look = f"{processes}; grep -E ':({ports}) 00000000:0000 0A' /proc/net/tcp /proc/net/tcp6; ({files}) 2>/dev/null"
        return [f"{name}: {text}" for name in self.names if (text := self.sh(name, look))]


@pytest.fixture
def fleet(box: Box, tmp_path: Path) -> Iterator[Fleet]:
    gateway = box.address.rpartition(".")[0] + ".1"
    # One process at a time has the boxes that belong to none.
    with (ROOT / ".cache" / "fleet.lock").open("w") as held, Mirror(gateway) as mirror:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = Fleet(mirror, tmp_path)
        settings = json.loads((ROOT / "tests/sim/box/files/etc/docker/daemon.json").read_text())
        for name in found.names:
            before = found.sh(name, f"cat {DAEMON}")
            changed = json.dumps({**json.loads(before), "registry-mirrors": [mirror.url]})
            found.sh(name, f"cat > {DAEMON} <<'END'\n{changed}\nEND\nsystemctl reload docker")
        yield found
        for name in found.names:
            changed = json.dumps({**json.loads(found.sh(name, f"cat {DAEMON}")), "registry-mirrors": settings["registry-mirrors"]})
            found.sh(name, f"cat > {DAEMON} <<'END'\n{changed}\nEND\nsystemctl reload docker")
        found.forget(*found.names)
        # Nobody else has these layers.
        repository = REGISTRY_STORAGE / "docker/registry/v2/repositories" / REPOSITORY
        for digest in {link.read_text().partition(":")[2] for link in repository.rglob("link")}:
            shutil.rmtree(REGISTRY_STORAGE / "docker/registry/v2/blobs/sha256" / digest[:2] / digest)
        shutil.rmtree(repository)


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + 120
    while not (found := condition()):
        if time.monotonic() > end:
            return None
        time.sleep(0.2)
    return found


def took(sent: dict[str, dict[str, int]]) -> list[int]:
    """How many boxes took each large blob."""
    return [len(boxes) for boxes in sent.values() if sum(boxes.values()) > LARGE]


def test_a_fleet_takes_an_image_from_the_registry_once_and_a_box_that_comes_later_takes_none(fleet: Fleet) -> None:
    run = fleet.bring()
    assert run.rc == 0, run.why
    run.says("takes the image from")
    assert took(fleet.mirror.blobs()) == [1] * LAYERS
    ids = fleet.ids()
    assert (len(ids), len(set(ids.values()))) == (3, 1)
    # One that pulled it and two that loaded it say the same.
    assert re.findall(r"digest: (sha256:\w+)", run.output).count(fleet.digest) == 3, run.why
    assert fleet.left() == []
    assert not re.search(r"http://[\d.]+:688\d/", run.output)

    again = fleet.bring()
    assert again.rc == 0, again.why
    assert len(re.findall(r"changed=0 ", again.output)) == 3, again.why
    assert "gives the image" not in again.output
    assert fleet.mirror.blobs() == {}

    fleet.forget(*fleet.names[1:])
    late = fleet.bring(f"{fleet.image}@{fleet.digest}")
    assert late.rc == 0, late.why
    late.says(f"{fleet.names[0]}: gives the image to the other boxes")
    assert fleet.mirror.blobs() == {}
    assert set(fleet.ids(f"{REPOSITORY}:{fleet.digest.replace(':', '-')}").values()) == set(ids.values())
    assert fleet.left() == []
    locked = fleet.bring(f"{fleet.image}@{fleet.digest}")
    assert len(re.findall(r"changed=0 ", locked.output)) == 3, locked.why


def test_what_a_new_version_shares_with_the_one_before_does_not_travel_again(fleet: Fleet) -> None:
    before = fleet.bring()
    assert before.rc == 0, before.why
    fleet.mirror.blobs()
    new = f"{REPOSITORY}:new"
    fleet.push(new, upon=fleet.image, layers=1)
    run = fleet.bring(new)
    assert run.rc == 0, run.why
    run.says(f"({LAYERS} of {LAYERS + 1} layers are here)")
    # Docker does not know of a layer that was loaded which one of the registry's it is: who pulls may pull them all.
    assert set(took(fleet.mirror.blobs())) == {1}
    came = sorted(int(number) for number in re.findall(r"bytes_from_peers: (\d+)", run.output))
    assert [LARGE <= number < LARGE + 100_000 for number in came] == [False, True, True], came
    assert (came[0], len(set(fleet.ids(new).values())), fleet.left()) == (0, 1, [])


@pytest.mark.long
def test_a_box_that_is_killed_while_it_pulls_for_the_others_is_replaced(fleet: Fleet) -> None:
    fleet.mirror.rate = 1_000_000
    killed: list[str] = []

    def kill() -> None:
        halfway = until(lambda: next((boxes for boxes in fleet.mirror.sent.values() if sum(boxes.values()) > LARGE / 2), None))
        killed.append(next(name for name in fleet.names if Box(name).address in halfway))
        fleet.sh(killed[0], "pkill -9 -f '[v]llm_image'")
        fleet.mirror.rate = None

    run = fleet.bring(meanwhile=kill)
    assert killed, run.why
    others = [name for name in fleet.names if name not in killed]
    assert run.rc == 2
    run.says(f"fatal: [{killed[0]}]: FAILED!", "it does not work on the box any more: was it killed, or did the box restart?")
    run.says(f"waiting for {killed[0]}, which says: pulling {fleet.image}: ", f"{killed[0]} was not seen alive for 20 s. Pulling it")
    assert set(fleet.ids()) >= set(others), run.why
    # One of them took its place.
    assert [len(boxes.keys() - {Box(killed[0]).address}) for boxes in fleet.mirror.blobs().values() if sum(boxes.values()) > LARGE] == [
        1
    ] * LAYERS
    assert fleet.left() == []

    again = fleet.bring()
    assert again.rc == 0, again.why
    assert (len(fleet.ids()), fleet.mirror.blobs()) == (3, {})


@pytest.mark.long
def test_a_box_that_is_killed_while_it_gives_has_its_image_and_leaves_no_archive(fleet: Fleet) -> None:
    giver = fleet.names[0]
    fleet.sh(giver, f"docker pull -q {fleet.image}")
    fleet.mirror.blobs()
    killed: list[bool] = []

    def kill() -> None:
        listens = "|".join(f":{port:04X}" for port in PORTS)
        until(lambda: fleet.sh(giver, f"grep -E '({listens}) 00000000:0000 0A' /proc/net/tcp"))
        fleet.sh(giver, "pkill -9 -f '[v]llm_image'")
        killed.append(True)

    run = fleet.bring(meanwhile=kill)
    assert killed, run.why
    assert run.rc == 0, run.why
    run.says(f"{giver}: cannot give the image to the other boxes: it does not work on the box any more")
    assert (len(fleet.ids()), took(fleet.mirror.blobs()), fleet.left()) == (3, [1] * LAYERS, [])


@pytest.mark.long
def test_a_box_whose_image_is_another_one_is_not_believed_and_the_others_pull(fleet: Fleet) -> None:
    liar, *believers = fleet.names[1], fleet.names[0], fleet.names[2]
    other = f"{REPOSITORY}:other"
    fleet.push(other)
    # Its Docker says of another image that it is the one of that digest.
    store = "/var/lib/docker/image/overlay2/repositories.json"
    lie = f"""
import json
with open("{store}") as file: known = json.load(file)
known["Repositories"]["{REPOSITORY}"]["{REPOSITORY}@{fleet.digest}"] = known["Repositories"]["{REPOSITORY}"]["{other}"]
with open("{store}", "w") as file: json.dump(known, file)
"""
    fleet.sh(liar, f"docker pull -q {other}; systemctl stop docker.socket docker; python3 -c '{lie}'; systemctl start docker")
    assert fleet.ids(f"{REPOSITORY}@{fleet.digest}").keys() == {liar}
    fleet.mirror.blobs()

    run = fleet.bring(f"{fleet.image}@{fleet.digest}")
    assert run.rc == 0, run.why
    run.says(f"the archive of {fleet.image} is not the image {fleet.digest}: its configuration is sha256:", "Pulling it from the registry")
    ids = fleet.ids(f"{REPOSITORY}@{fleet.digest}")
    assert ids.keys() == set(fleet.names)
    assert len({ids[name] for name in believers} - {ids[liar]}) == 1
    assert took(fleet.mirror.blobs()) == [2] * LAYERS
    # What was not believed never reached Docker.
    assert fleet.ids(f"{REPOSITORY}:{fleet.digest.replace(':', '-')}").keys() == {liar}
    assert fleet.left() == []


@pytest.mark.long
def test_boxes_that_do_not_reach_each_other_pull_the_image(fleet: Fleet) -> None:
    rule = f"INPUT -p tcp --dport {PORTS[0]}:{PORTS[-1]} -j REJECT"
    for name in fleet.names:
        fleet.sh(name, f"iptables -I {rule}")
    try:
        run = fleet.bring()
    finally:
        for name in fleet.names:
            fleet.sh(name, f"iptables -D {rule}")
    assert run.rc == 0, run.why
    run.says("does not answer", "(do the boxes reach each other by TCP on peer_ports?). Pulling it from the registry")
    assert (len(fleet.ids()), took(fleet.mirror.blobs()), fleet.left()) == (3, [3] * LAYERS, [])
