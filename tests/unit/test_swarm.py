# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A fleet's download on this machine: real aria2 processes, the lab's Hub, one box that seeds and others that follow.

A box is a directory here.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _peer, _seed
from ansible_collections.dgx.spark.plugins.module_utils._aria2 import Patience
from ansible_collections.dgx.spark.plugins.module_utils._fetch import Address, Came, Fleet, Limits, carry_out
from ansible_collections.dgx.spark.plugins.module_utils._manifest import PARTIAL, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import make_plan, problem, read_marker, read_one
from ansible_collections.dgx.spark.plugins.module_utils._verify import Verifier
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, Listing
from sim.hub import Hub as SimulatedHub

REPO = "org/model"
FILES = {
    "model-1.safetensors": os.urandom(9_000_001),
    "model-2.safetensors": os.urandom(6_000_000),
    "config.json": b"{}\n",
    "empty.txt": b"",
}
SIZES = {path: len(content) for path, content in FILES.items()}  # an assertion about a content would print it
SIZE = sum(SIZES.values())
PORTS = "26881-26899"
SECRET = "fleet-secret"
LIMITS = Limits(connections=2, timeout=60, rounds=2, pause=0.05, patience=Patience(tries=1, wait=0, silence=5))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedHub]:
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for path, content in FILES.items():
        target = tmp_path / "root" / REPO / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    with SimulatedHub(tmp_path / "root") as running:
        yield running


@pytest.fixture
def seed() -> Iterator[Seed]:
    with Seed(SECRET, range(26860, 26880), "127.0.0.1") as running:
        yield running


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that does not answer is gone sooner."""
    monkeypatch.setattr(_peer, "GONE_S", 2.0)
    monkeypatch.setattr(_peer, "ANSWER_S", 1.0)


class Box:
    """A directory, and what a task does with it."""

    def __init__(self, server: SimulatedHub, folder: Path, name: str) -> None:
        self.server = server
        self.dest = folder / name
        self.cache = folder / f"cache-{name}"
        self.cache.mkdir()
        self.came = Came()
        self.said: list[str] = []

    def hub(self) -> Hub:
        return Hub(self.server.url, None, self.cache)

    def listing(self) -> Listing:
        return self.hub().listing(REPO, "main")

    def bring(self, fleet: Fleet, limits: Limits = LIMITS) -> None:
        """Plan and carry out; a box that follows has no addresses of the Hub."""
        hub = self.hub()
        listing = self.listing()
        plan = make_plan(str(self.dest), listing.manifest, read_marker(str(self.dest)))
        found = {} if fleet.seeding else hub.addresses(listing, [file.path for file in plan.fetch])
        addresses = {path: Address(**entry) for path, entry in found.items()}
        carry_out(str(self.dest), listing.manifest, plan, addresses, limits, self._count, self.said.append, fleet)

    def _count(self, came: Came) -> None:
        self.came = came

    def right(self) -> bool:
        """Is it complete, and nothing left over?"""
        if problem(str(self.dest), read_marker(str(self.dest))) or (self.dest / PARTIAL).exists():
            return False
        return all((self.dest / path).read_bytes() == content for path, content in FILES.items())


@pytest.fixture
def make(server: SimulatedHub, tmp_path: Path) -> Callable[[str], Box]:
    return lambda name: Box(server, tmp_path, name)


def together(*works: Callable[[], Any]) -> list[BaseException | None]:
    """Do several things at the same time; what each raised."""
    raised: list[BaseException | None] = [None] * len(works)

    def one(number: int) -> None:
        try:
            works[number]()
        except BaseException as exc:  # noqa: BLE001  the test looks at it
            raised[number] = exc

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def from_hub(server: SimulatedHub) -> int:
    """Bytes of files that the Hub sent."""
    return sum(request["bytes"] for request in server.requests)


def arguments() -> list[str]:
    """Those of every process that works for these boxes."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if f"--listen-port={PORTS}" in line]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_byte_comes_from_the_hub_once_and_nothing_is_left_running(
    make: Callable[[str], Box], seed: Seed, server: SimulatedHub
) -> None:
    server.faults.link = 6_000_000
    first, *others = (make(f"box{number}") for number in range(4))
    following = Fleet(seeding=Seeding(seed.url, PORTS))
    seen: list[str] = []

    def watch() -> None:
        until(lambda: len(arguments()) == 3)
        seen.extend(arguments())

    raised = together(lambda: first.bring(Fleet(seed=seed)), *(lambda box=box: box.bring(following) for box in others), watch)
    assert raised == [None] * 5
    assert all(box.right() for box in (first, *others))
    assert from_hub(server) <= 1.02 * SIZE
    assert first.came == Came(from_hub=SIZE)
    assert [box.came for box in others] == [Came(from_peers=SIZE)] * 3
    assert any("waiting for the seed, which says: " in text for text in others[0].said)
    # Neither the way to the seed nor aria2's own secret is among its arguments.
    assert not any(SECRET in line or "rpc-secret" in line for line in seen)
    assert arguments() == []
    assert not any(map(listens, range(26881, 26900)))


def test_a_box_that_has_some_files_gives_them_at_once(make: Callable[[str], Box], seed: Seed, server: SimulatedHub) -> None:
    """The seed has all but one file in place; another box has a part of one, from an interrupted download of its own."""
    first, other = make("first"), make("other")
    first.bring(Fleet())
    (first.dest / "model-2.safetensors").unlink()
    server.faults.rate = 1_000_000
    with pytest.raises(SnapshotError, match="did not end within"):
        other.bring(Fleet(), replace(LIMITS, timeout=2.5))
    had = other.came.from_hub
    assert 0 < had < SIZE
    server.faults.rate, before = 0, from_hub(server)
    kept = make_plan(str(first.dest), first.listing().manifest, read_marker(str(first.dest))).keep
    with Verifier(seed) as verifier:
        verifier.look_all({path: str(first.dest / path) for path in kept}, first.listing().manifest.files)
        raised = together(lambda: other.bring(Fleet(seeding=Seeding(seed.url, PORTS))), lambda: first.bring(Fleet(seed=seed)))
    assert raised == [None, None]
    assert first.right() and other.right()
    # aria2 closes a connection when another one has reached the same place, and some bytes are under way then.
    assert from_hub(server) - before <= SIZES["model-2.safetensors"] + 300_000
    # What it had, it did not fetch again.
    assert other.came.from_peers <= SIZE - had + 2 * 2**20


def test_bytes_that_are_wrong_on_a_peer_are_caught_and_come_from_elsewhere(
    make: Callable[[str], Box], seed: Seed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another box gives pieces with a flipped byte each, and does so sooner than the seed gives right ones."""
    whole, box = make("whole"), make("box")
    whole.bring(Fleet())
    for file in whole.listing().manifest.files:
        path = str(whole.dest / file.path)
        seed.offer(file, path, read_one(path, file, in_pieces=True).pieces)
    large = next(file for file in whole.listing().manifest.files if file.path == "model-1.safetensors")
    rotten = bytearray(FILES[large.path])
    for at in range(500_000, large.size, 2**20):
        rotten[at] ^= 0xFF
    (tmp_path / large.digest).write_bytes(rotten)
    torrent = base64.b64encode(urllib.request.urlopen(f"{seed.url}/{large.digest}.torrent", timeout=5).read()).decode()
    peer = _peer._Aria2(PORTS, 5)
    try:
        gid = peer.call("addTorrent", torrent, [], {"dir": str(tmp_path), "bt-seed-unverified": "true"})
        until(lambda: any(seed._peers.values()))  # the tracker knows it
        real = _seed._Handler._file

        def late(handler: Any, offer: Any) -> None:
            time.sleep(3 if offer.size == large.size else 0)
            real(handler, offer)

        monkeypatch.setattr(_seed._Handler, "_file", late)
        box.bring(Fleet(seeding=Seeding(seed.url, PORTS)))
        assert int(peer.call("tellStatus", gid, ["uploadLength"])["uploadLength"]) > 0
    finally:
        peer.stop()
    assert box.right()


def test_what_the_seed_will_never_have_is_not_waited_for(make: Callable[[str], Box], seed: Seed) -> None:
    seed.ended = True
    with pytest.raises(PeersLost, match=r"the seed 127.0.0.1:\d+ does not have config.json"):
        make("box").bring(Fleet(seeding=Seeding(seed.url, PORTS)))


def test_a_seed_that_gives_something_else_is_not_believed(make: Callable[[str], Box], seed: Seed, tmp_path: Path) -> None:
    """Its torrent fits its bytes, and they are not the Hub's."""
    box = make("box")
    file = next(file for file in box.listing().manifest.files if file.path == "model-2.safetensors")
    (tmp_path / "other").write_bytes(bytes(file.size))
    seed.offer(file, str(tmp_path / "other"), read_one(str(tmp_path / "other"), file, in_pieces=True).pieces)
    with pytest.raises(PeersLost, match=r"model-2.safetensors came wrong from the fleet") as caught:
        box.bring(Fleet(seeding=Seeding(seed.url, PORTS)))
    assert not caught.value.seed_gone
    box.bring(Fleet())
    assert box.right()


@pytest.mark.usefixtures("_impatient")
def test_where_the_seed_ends_on_the_way_the_rest_comes_from_the_hub(make: Callable[[str], Box], server: SimulatedHub) -> None:
    whole, box = make("whole"), make("box")
    whole.bring(Fleet())
    file = next(file for file in whole.listing().manifest.files if file.path == "model-1.safetensors")
    path = str(whole.dest / file.path)
    with Seed(SECRET, range(26860, 26880), "127.0.0.1") as seed:
        seed.offer(file, path, read_one(path, file, in_pieces=True).pieces)
        following = Fleet(seeding=Seeding(seed.url, PORTS))

        def leave() -> None:
            until(lambda: any("9.0 of 15.0 MB" in text for text in box.said))
            seed.__exit__(None, None, None)

        raised = together(lambda: box.bring(following), leave)
    assert isinstance(raised[0], PeersLost) and raised[0].seed_gone
    assert "does not answer" in str(raised[0])
    assert SECRET not in str(raised[0])
    assert box.came.from_peers == file.size
    before = from_hub(server)
    box.bring(Fleet())
    assert box.right()
    assert from_hub(server) - before <= SIZE - file.size + 300_000


@pytest.mark.usefixtures("_impatient")
def test_a_seed_that_cannot_be_reached_is_said_soon(make: Callable[[str], Box]) -> None:
    began = time.monotonic()
    with pytest.raises(PeersLost, match=r"the seed 127.0.0.1:9 does not answer \(.*refused.*\)") as caught:
        make("box").bring(Fleet(seeding=Seeding("http://127.0.0.1:9/x", PORTS)))
    assert caught.value.seed_gone
    assert time.monotonic() - began < LIMITS.timeout
    assert arguments() == []
