# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Plans carried out with the real aria2c against the lab's Hub: nothing half visible, whatever goes wrong."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _checkpoint
from ansible_collections.dgx.spark.plugins.module_utils._aria2 import Patience
from ansible_collections.dgx.spark.plugins.module_utils._fetch import Address, Came, Limits, Refused, Stuck, asked_to_wait, carry_out
from ansible_collections.dgx.spark.plugins.module_utils._manifest import MARKER, PARTIAL, SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import make_plan, partial_path, problem, read_marker
from ansible_collections.dgx.spark.plugins.plugin_utils._hub import Hub, Listing
from huggingface_hub import close_session
from sim.hub import Hub as SimulatedHub

REPO = "org/model"
LARGE = os.urandom(3_000_000)
FILES = {
    "model.safetensors": LARGE,
    "copy.safetensors": LARGE,
    "config.json": b"{}\n",
    "empty.txt": b"",
    "sub/a b.txt": b"notes",
}
LIMITS = Limits(connections=4, timeout=30, rounds=2, pause=0.05, patience=Patience(tries=1, wait=0, silence=2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for path, content in FILES.items():
        target = tmp_path / "root" / REPO / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return tmp_path / "root"


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedHub]:
    for name in ("HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with SimulatedHub(root) as running:
        yield running


class Box:
    """A directory, and what a task does with it."""

    def __init__(self, server: SimulatedHub, folder: Path) -> None:
        self.server = server
        self.endpoint = server.url
        self.dest = folder / "model"
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.fetched = 0
        self.runs = 0
        self.said: list[str] = []

    def listing(self) -> Listing:
        return self.hub().listing(REPO, "main")

    def hub(self) -> Hub:
        """Each run of a playbook has a cache of its own."""
        self.runs += 1
        cache = self.cache / str(self.runs)
        cache.mkdir()
        return Hub(self.endpoint, None, cache)

    def bring(self, limits: Limits = LIMITS, addresses: Callable[[dict[str, Address]], dict[str, Address]] = lambda a: a) -> list[str]:
        """Plan and carry out; the reasons."""
        hub = self.hub()
        listing = hub.listing(REPO, "main")
        plan = make_plan(str(self.dest), listing.manifest, read_marker(str(self.dest)))
        found = hub.addresses(listing, [file.path for file in plan.fetch])
        given = addresses({path: Address(**entry) for path, entry in found.items()})
        self.fetched = 0
        if plan.changed:
            carry_out(str(self.dest), listing.manifest, plan, given, limits, self._count, self.said.append)
        return list(plan.reasons)

    def _count(self, came: Came) -> None:
        self.fetched += came.from_hub + came.from_peers

    def visible(self) -> list[str]:
        """The files that a container would see."""
        found = (path for path in self.dest.rglob("*") if path.is_file() and PARTIAL not in path.parts)
        return sorted(str(path.relative_to(self.dest)) for path in found)

    def right(self) -> bool:
        """Is every file there with its content, and nothing else but the marker?"""
        contents = all((self.dest / path).read_bytes() == content for path, content in FILES.items())
        return contents and self.visible() == sorted([*FILES, MARKER]) and not (self.dest / PARTIAL).exists()

    def part(self, path: str = "model.safetensors") -> Path:
        """Where a file of the snapshot lies while it comes."""
        file = next(file for file in self.listing().manifest.files if file.path == path)
        return Path(partial_path(str(self.dest), file))


@pytest.fixture
def box(server: SimulatedHub, tmp_path: Path) -> Box:
    return Box(server, tmp_path)


def test_a_snapshot_is_brought_once(box: Box) -> None:
    assert len(box.bring()) == len(FILES)
    assert box.right()
    # The content with two names came once.
    assert box.fetched == len(LARGE) + 3 + 5
    modes = {oct(path.stat().st_mode & 0o777) for path in box.dest.rglob("*") if path.is_file()}
    assert modes == {"0o644"}
    assert problem(str(box.dest), read_marker(str(box.dest))) is None
    assert box.bring() == []
    assert box.fetched == 0


def test_a_file_that_went_bad_is_fetched_again_and_only_that(box: Box) -> None:
    box.bring()
    (box.dest / "config.json").write_bytes(b"{ \n")
    os.truncate(box.dest / "copy.safetensors", 1000)
    assert len(box.bring()) == 2
    assert box.right()
    assert box.fetched == len(LARGE) + 3


def test_a_new_revision_changes_what_differs_and_removes_what_is_gone(box: Box, root: Path) -> None:
    box.bring()
    (box.dest / "users.txt").write_text("mine")
    old = (box.dest / "model.safetensors").stat()
    (root / REPO / "config.json").write_bytes(b'{"new": 1}\n')
    (root / REPO / "sub" / "a b.txt").unlink()
    (root / REPO / "sub").rmdir()
    (root / REPO / "sub").write_bytes(b"now a file")
    box.bring()
    assert box.fetched == len(b'{"new": 1}\n') + len(b"now a file")
    assert (box.dest / "sub").read_bytes() == b"now a file"
    assert (box.dest / "users.txt").read_text() == "mine"
    assert (box.dest / "model.safetensors").stat().st_mtime_ns == old.st_mtime_ns
    marker = read_marker(str(box.dest))
    assert marker is not None
    assert marker.commit == box.server.commit(REPO)


def test_nothing_is_visible_before_all_is_verified(box: Box) -> None:
    box.bring()
    before = (box.dest / MARKER).read_bytes()
    (box.server.state.store.root / REPO / "config.json").write_bytes(b'{"new": 1}\n')
    (box.server.state.store.root / REPO / "model.safetensors").write_bytes(b"new" * 100_000)
    box.server.faults.flip = {"model.safetensors": 5}
    with pytest.raises(SnapshotError, match="came wrong twice"):
        box.bring()
    assert (box.dest / MARKER).read_bytes() == before
    assert (box.dest / "config.json").read_bytes() == b"{}\n"
    assert (box.dest / "model.safetensors").stat().st_size == len(LARGE)


def test_a_part_is_continued_by_the_next_run(box: Box) -> None:
    box.server.faults.rate = 600_000
    with pytest.raises(SnapshotError) as caught:
        box.bring(Limits(connections=2, timeout=1.5, rounds=2, pause=0.05, patience=LIMITS.patience))
    text = str(caught.value)
    assert text.startswith("the download did not end within 2 s: fetched ")
    assert " of 3.0 MB, " in text and text.endswith("Run again, it goes on from there; or raise timeout")
    assert box.visible() == []
    first = box.fetched
    assert first > 300_000
    box.server.faults.rate = 0
    box.bring()
    assert box.right()
    assert box.fetched <= len(LARGE) + 8 - first + 100_000


def test_after_a_power_cut_only_what_the_disk_did_not_have_is_fetched_again(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part, on_disk = box.part(), tmp_path / "on_disk"
    real = _checkpoint.keep

    def keep(parts: str, names: Iterable[str]) -> None:
        real(parts, names)
        if part.exists():
            subprocess.run(["cp", "--sparse=always", part, on_disk], check=True)

    monkeypatch.setattr(_checkpoint, "keep", keep)
    box.server.faults.rate = 400_000
    with pytest.raises(SnapshotError, match="did not end within"):
        box.bring(Limits(connections=2, timeout=2.8, patience=LIMITS.patience))
    # The newest record is there, and the checkpoint's copy of an older one; of the content only what was on the disk then.
    there = part.with_name(part.name + ".checkpoint").read_bytes()
    assert (there == part.with_name(part.name + ".aria2").read_bytes()) is False
    on_disk.replace(part)
    (part.parent / _checkpoint.BOOT).write_text("another start of the machine")
    before = part.stat().st_blocks * 512
    assert 0 < before < len(LARGE)
    box.server.faults.rate = 0
    box.bring()
    assert box.right()
    again = box.fetched + before - len(LARGE)
    assert again < len(LARGE) / 2  # without the copy it is all of it


def test_a_record_is_copied_before_the_disk_is_waited_for_and_counts_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"part")
    (tmp_path / "a.aria2").write_bytes(b"record 1")
    steps: list[tuple[str, bool]] = []

    def to_disk(path: str) -> None:
        steps.append((os.path.basename(path), (tmp_path / "a.checkpoint").exists()))
        (tmp_path / "a.aria2").write_bytes(b"record 2")  # aria2 goes on meanwhile

    monkeypatch.setattr(_checkpoint, "to_disk", to_disk)
    _checkpoint.keep(str(tmp_path), ["a"])
    assert steps == [("a", False), ("a.checkpoint.new", False)]
    assert (tmp_path / "a.checkpoint").read_bytes() == b"record 1"


def test_a_checkpoint_leaves_it_to_aria2_to_say_that_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"part")
    (tmp_path / "a.aria2").write_bytes(b"record")
    why = [errno.ENOSPC, errno.EIO]

    def to_disk(path: str) -> None:
        raise OSError(why.pop(0), "the disk says no")

    monkeypatch.setattr(_checkpoint, "to_disk", to_disk)
    _checkpoint.keep(str(tmp_path), ["a"])
    assert not (tmp_path / "a.checkpoint").exists()
    with pytest.raises(OSError, match="the disk says no"):
        _checkpoint.keep(str(tmp_path), ["a"])


def test_a_checkpoint_costs_a_complete_part_nothing(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "a").write_bytes(b"whole")
    (parts / "b").write_bytes(b"part")
    (parts / "b.aria2").write_bytes(b"record 1")
    _checkpoint.restore(str(parts))
    _checkpoint.keep(str(parts), ["a", "b", "none"])
    assert sorted(path.name for path in parts.iterdir()) == ["a", "b", "b.aria2", "b.checkpoint", "boot"]
    (parts / "b.aria2").write_bytes(b"record 2")
    _checkpoint.restore(str(parts))  # the same start of the machine
    assert (parts / "b.aria2").read_bytes() == b"record 2"
    (parts / "boot").write_text("another start")
    _checkpoint.restore(str(parts))
    assert (parts / "b.aria2").read_bytes() == b"record 1"
    # Complete meanwhile: what is on the disk needs no record.
    _checkpoint.keep(str(parts), ["b"])
    (parts / "b.aria2").unlink()
    _checkpoint.keep(str(parts), ["b"])
    assert sorted(path.name for path in parts.iterdir()) == ["a", "b", "boot"]


def test_a_part_that_is_whole_is_not_fetched_again(box: Box) -> None:
    part = box.part()
    part.parent.mkdir(parents=True)
    part.write_bytes(LARGE)
    box.bring()
    assert box.right()
    assert box.fetched == 3 + 5


def test_a_whole_part_that_is_wrong_is_fetched_again(box: Box) -> None:
    part = box.part()
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(LARGE)))
    box.bring()
    assert box.right()
    assert box.fetched == len(LARGE) + 3 + 5


def test_what_cannot_be_continued_goes(box: Box) -> None:
    part = box.part()
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)  # nobody knows which part of it is written
    part.with_name("f" * 64).write_bytes(b"of another revision")
    part.with_name(part.name + ".aria2__temp").write_bytes(b"")
    part.with_name("folder").mkdir()
    box.bring()
    assert box.right()


def test_a_broken_record_costs_only_the_part(box: Box) -> None:
    part = box.part()
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 100_000)
    part.with_name(part.name + ".aria2").write_bytes(b"")
    box.bring()
    assert box.right()


def test_a_byte_that_flips_once_is_mended(box: Box) -> None:
    box.server.faults.flip = {"model.safetensors": 1_000_000, "copy.safetensors": 1_000_000}
    real = box.server.state.take

    def mend(count: str, path: str) -> bool:
        served = sum(request["origin"] == "cdn" and request["bytes"] > 0 for request in box.server.requests)
        if served >= 1:
            box.server.faults.flip = {}
        return real(count, path)

    box.server.state.take = mend  # type: ignore[method-assign]
    box.bring(Limits(connections=1, timeout=30, rounds=2, pause=0.05, patience=LIMITS.patience))
    assert box.right()
    assert box.fetched >= 2 * len(LARGE)


def test_a_byte_that_flips_always_names_file_host_and_both_hashes(box: Box) -> None:
    box.server.faults.flip = {"model.safetensors": 5, "copy.safetensors": 5}
    with pytest.raises(SnapshotError) as caught:
        box.bring()
    digest = box.part().name
    host = f"127.0.0.1:{box.server.state.cdn_port}"
    assert f".safetensors came wrong twice from {host}: a content with hash " in str(caught.value)
    assert f"the Hub says {digest}" in str(caught.value)
    assert "Signature" not in str(caught.value)
    assert box.visible() == []


def test_a_file_of_the_wrong_length_is_said_to_be_one(box: Box) -> None:
    def shorter(addresses: dict[str, Address]) -> dict[str, Address]:
        return {path: Address(url=addresses["config.json"].url) for path in addresses}

    with pytest.raises(SnapshotError, match="came wrong twice from .*: 3 bytes, the Hub says 3000000"):
        box.bring(addresses=shorter)


def test_an_expired_address_asks_for_a_fresh_one_and_the_part_is_kept(box: Box) -> None:
    box.server.faults.cdn_seconds = -1
    with pytest.raises(Refused) as caught:
        box.bring()
    assert (caught.value.status, caught.value.path) == (403, "model.safetensors")
    assert caught.value.host == f"127.0.0.1:{box.server.state.cdn_port}"
    box.server.faults.cdn_seconds = 60
    box.bring()
    assert box.right()
    assert box.fetched == len(LARGE)  # the small ones were there already


def test_a_link_that_breaks_again_and_again_is_followed_as_long_as_bytes_come(box: Box) -> None:
    real = box.server.state.take
    cut = iter(range(400_000, len(LARGE), 400_000))

    def move(count: str, path: str) -> bool:
        if count == "error" and path.startswith("/cdn"):
            box.server.faults.cut = dict.fromkeys(("model.safetensors", "copy.safetensors"), next(cut, len(LARGE) + 1))
        return real(count, path)

    box.server.state.take = move  # type: ignore[method-assign]
    box.bring(Limits(connections=1, timeout=30, rounds=1, pause=0, patience=LIMITS.patience))
    assert box.right()
    assert sum(request["origin"] == "cdn" for request in box.server.requests) >= 6


@pytest.mark.parametrize(
    ("faults", "texts"),
    [
        ({"cut": {"model.safetensors": 1_500_000, "copy.safetensors": 1_500_000}}, ["Got EOF from the server (fetched ", "proxy"]),
        ({"error": 999, "only": "^/cdn"}, ["answers HTTP 503 for ", "The server is at fault: run again later"]),
        (
            {"too_many": 999, "only": "^/cdn", "retry_after": 0},
            ["lets this box make no more requests for now (HTTP 429): fetched 8 bytes of"],
        ),
        ({"silent": 9, "only": "^/cdn"}, ["Timeout (fetched ", "it goes on from there"]),
    ],
)
def test_what_does_not_get_better_ends_with_cause_progress_and_remedy(box: Box, faults: dict[str, Any], texts: list[str]) -> None:
    def break_it(addresses: dict[str, Address]) -> dict[str, Address]:
        for name, value in faults.items():
            setattr(box.server.faults, name, value)
        return addresses

    with pytest.raises(SnapshotError) as caught:
        box.bring(Limits(4, 30, rounds=1, pause=0, patience=Patience(1, 1, 1)), addresses=break_it)
    assert [text for text in texts if text not in str(caught.value)] == [], str(caught.value)
    assert "Signature" not in str(caught.value)
    assert box.visible() == []


def test_it_says_how_far_it_is_while_bytes_come(box: Box) -> None:
    box.server.faults.rate = 400_000
    box.bring(Limits(connections=2, timeout=60, patience=LIMITS.patience))
    assert box.right()
    pattern = r"\d\.\d of 3\.0 MB \(\d+ %\), \d+(\.\d)? kB/s, \d+ s left"
    assert any(re.fullmatch(pattern, text) for text in box.said), box.said
    assert "http" not in str(box.said)


def test_a_transfer_on_which_nothing_comes_is_given_up_with_file_host_and_progress(box: Box) -> None:
    box.server.faults.stall = {"model.safetensors": 1_000_000, "copy.safetensors": 1_000_000}
    patience = Patience(tries=99, wait=0, silence=1)  # aria2 by itself would connect again for two minutes
    with pytest.raises(Stuck) as caught:
        box.bring(Limits(connections=1, timeout=60, patience=patience))
    host = f"127.0.0.1:{box.server.state.cdn_port}"
    assert re.search(rf"safetensors cannot be fetched from {host}: no byte came for \d s \(fetched \d", str(caught.value))
    # The connection was made again first.
    assert sum(request["origin"] == "cdn" for request in box.server.requests) >= 2
    assert box.visible() == []
    box.server.faults.stall = {}
    box.bring()
    assert box.right()
    assert box.fetched < 2_200_000


def test_a_proxy_of_the_environment_is_the_only_way(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", box.server.url)  # which answers for any host that it is asked for
    box.endpoint = "http://hub.invalid"
    close_session()  # what this process had before knows of no proxy
    box.bring()
    close_session()
    assert box.right()
    assert {request["path"].split("/")[2].partition(":")[0] for request in box.server.requests} == {"hub.invalid"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs root to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_becomes_full_on_the_way_is_said_with_what_is_missing(box: Box, small_disk: Path) -> None:
    box.dest = small_disk / "model"
    with pytest.raises(SnapshotError) as caught:
        box.bring()  # the plan's own check of the room is not asked here
    text = str(caught.value)
    assert text.startswith(f"the disk became full: {box.dest} has ")
    assert " MB are still to be fetched (fetched " in text
    assert "Make room there and run again" in text
    assert box.visible() == []


def test_a_limit_is_said_while_it_is_waited_for(box: Box) -> None:
    box.server.faults.too_many, box.server.faults.only, box.server.faults.retry_after = 3, "^/cdn", 1
    box.bring(Limits(connections=1, timeout=60, rounds=9, pause=0, patience=LIMITS.patience))
    assert box.right()
    host = f"127.0.0.1:{box.server.state.cdn_port}"
    assert any(f"; waiting 1 s, because {host} takes no more requests for now (HTTP 429)" in text for text in box.said)


def test_a_limit_of_too_long_a_time_is_not_waited_for_and_its_time_is_named(box: Box) -> None:
    box.server.faults.too_many, box.server.faults.only, box.server.faults.retry_after = 999, "^/cdn", 1200
    with pytest.raises(SnapshotError, match=r"no more requests for now \(HTTP 429\): fetched .*\. Wait 1200 s and run again"):
        box.bring()


def test_a_host_that_asks_to_wait_is_waited_for(server: SimulatedHub) -> None:
    server.faults.too_many, server.faults.retry_after = 1, 17
    assert asked_to_wait(f"{server.url}/x") == 17
    assert asked_to_wait("http://127.0.0.1:9/x") is None


def test_contents_that_the_controller_hands_over_are_verified_too(box: Box) -> None:
    def hand_over(addresses: dict[str, Address], content: bytes) -> dict[str, Address]:
        return {**addresses, "config.json": Address(content=base64.b64encode(content).decode())}

    box.bring(addresses=lambda addresses: hand_over(addresses, b"{}\n"))
    assert box.right()
    assert box.fetched == len(LARGE) + 5
    (box.dest / "config.json").unlink()
    with pytest.raises(SnapshotError, match="config.json came wrong from the controller: a content with hash"):
        box.bring(addresses=lambda addresses: hand_over(addresses, b"[]\n"))


def test_two_runs_do_not_fetch_into_one_directory(box: Box) -> None:
    box.dest.mkdir()
    handle = os.open(box.dest, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(SnapshotError, match="another run is fetching into .*/model: wait for it"):
            box.bring()
    finally:
        os.close(handle)
    box.bring()
    assert box.right()


def test_a_link_out_of_the_directory_is_not_followed(box: Box, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    box.dest.mkdir()
    (box.dest / "sub").symlink_to(outside)
    with pytest.raises(SnapshotError, match="sub in .* is a link to .*outside, outside of it"):
        box.bring()
    assert list(outside.iterdir()) == []
    assert not (box.dest / MARKER).exists()


def test_the_marker_has_every_sha256(box: Box) -> None:
    box.bring()
    document = json.loads((box.dest / MARKER).read_text())
    assert all(len(entry["sha256"]) == 64 for entry in document["files"])
    assert {entry["path"]: entry["git_sha1"] is None for entry in document["files"]} == {
        path: path.endswith(".safetensors") for path in FILES
    }
