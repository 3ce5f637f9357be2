# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""An image travels between two boxes on this machine: a real seed, a real aria2, and Docker in memory on both sides."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image, _image_share, _loaded, _peer, _room
from ansible_collections.dgx.spark.plugins.module_utils._archive import ArchiveError
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import EngineError
from ansible_collections.dgx.spark.plugins.module_utils._fetch import alone
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError
from ansible_collections.dgx.spark.plugins.module_utils._image_share import Offered, OfferedLayer, Part, clear, give, take
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError, digest_of
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding
from ansible_collections.dgx.spark.plugins.module_utils._registry import Registry, RegistryError
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed
from ansible_collections.dgx.spark.plugins.modules import vllm_image
from unit.fake_engine import FakeEngine
from unit.run_module import run_module
from unit.saved_image import NAME, SavedImage

PORTS = "26921-26939"
LARGE, SMALL = 5_000_000, 2_000_000  # bytes of layers
FRAME = 50_000  # bytes, at most


class Two:
    """A box that has an image and gives it, and one that lacks it."""

    def __init__(self, folder: Path) -> None:
        # The first layer is larger than what comes whole: it comes as a torrent.
        self.image = SavedImage(content=(os.urandom(LARGE), os.urandom(SMALL)))
        self.giver, self.taker = FakeEngine(), FakeEngine()
        self.giver.add_image(NAME, "0.19.1", self.image.digest)
        self.giver.archive = self.image.archive()
        self.folder = folder
        self.told: dict[str, Any] = {}
        self.enough = threading.Event()
        self.came = 0

    def give(self) -> None:
        with Seed("secret", range(26900, 26920), "127.0.0.1") as seed:
            give(self.giver, NAME, self.image.digest, seed, 60, self.told, lambda: not self.enough.is_set(), lambda text: None)

    def take(self, reference: str, **changes: Any) -> None:
        """What the taker does while the other one gives."""
        thread = threading.Thread(target=self.give)
        thread.start()
        try:
            while "url" not in self.told:
                assert thread.is_alive()
            offered = replace(Offered.read(self.told["about"], None), **changes)
            take(self.taker, reference, offered, Seeding(self.told["url"], PORTS), 60, lambda text: None, self.count)
        finally:
            self.enough.set()
            thread.join(10)

    def count(self, came: int) -> None:
        self.came = came

    def left(self) -> list[str]:
        """What is still there of an archive, on either box."""
        found = [str(path) for path in self.folder.rglob("*") if path.is_file() and path.stat().st_size > 1_000_000]
        return found + ([str(self.folder / "fleet")] if (self.folder / "fleet").exists() else [])


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Two]:
    made = Two(tmp_path)
    monkeypatch.setattr(_image_share, "DIRECTORY", str(tmp_path / "fleet"))
    monkeypatch.setattr(_loaded, "DIRECTORY", str(tmp_path / "loaded"))
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    monkeypatch.setattr(Registry, "document", lambda self, digest: made.image.documents[digest].encode())
    yield made


def test_it_arrives_is_proven_and_has_the_name_that_was_asked_and_nothing_stays(two: Two) -> None:
    two.take(NAME)
    assert two.giver.deeds == [f"tag {two.image.tag}", f"save {two.image.tag}"]
    assert LARGE + SMALL < two.came < LARGE + SMALL + FRAME
    assert two.taker.deeds == ["load", f"tag {NAME}"]
    found, _name = _image.find(two.taker, NAME)
    assert (found.id, _loaded.proven_digest(found.id)) == (two.image.id, two.image.digest)
    assert two.left() == []


def test_what_is_asked_by_its_digest_leaves_the_tag_alone(two: Two) -> None:
    two.take(f"{NAME}@{two.image.digest}")
    assert two.taker.deeds == ["load"]
    assert _image.find(two.taker, f"{NAME}@{two.image.digest}")[1] == two.image.tag


def test_layers_that_the_taker_has_do_not_travel(two: Two) -> None:
    before = SavedImage(content=(two.image.content[0], b"of the version before"))
    two.taker.stacks["the version before"] = json.loads(before.config)["rootfs"]["diff_ids"]
    two.take(NAME)
    assert SMALL < two.came < SMALL + FRAME
    assert [name for name in two.taker.loaded if name.endswith("layer.tar")] == ["1/layer.tar"]
    found, _name = _image.find(two.taker, NAME)
    assert (found.id, _loaded.proven_digest(found.id), two.left()) == (two.image.id, two.image.digest, [])


def test_all_layers_may_be_there(two: Two) -> None:
    two.taker.stacks["the same with other settings"] = [digest_of(layer) for layer in two.image.content]
    two.take(NAME)
    assert (0 < two.came < FRAME, _image.find(two.taker, NAME)[0].id) == (True, two.image.id)


def test_a_layer_that_only_stands_higher_elsewhere_travels(two: Two) -> None:
    """A layer is what it is upon those below it."""
    two.taker.stacks["another"] = [digest_of(b"below"), *(digest_of(layer) for layer in two.image.content)]
    two.take(NAME)
    assert two.came > LARGE + SMALL


def test_layers_that_are_alike_travel_once(two: Two) -> None:
    two.image = SavedImage(content=(two.image.content[0], b"", two.image.content[0]))
    two.giver, two.taker = FakeEngine(), FakeEngine()
    two.giver.add_image(NAME, "0.19.1", two.image.digest)
    two.giver.archive = two.image.archive()
    two.take(NAME)
    assert (LARGE < two.came < LARGE + FRAME, _image.find(two.taker, NAME)[0].id) == (True, two.image.id)


def test_a_giver_that_lies_about_its_layers_is_not_believed(two: Two) -> None:
    """It says that a layer is one that the taker has."""
    have = digest_of(b"what the taker has")
    two.taker.stacks["another"] = [have]
    with pytest.raises(ImageError, match=f"is not the image {two.image.digest}: its part 0/layer.tar is missing"):
        two.take(NAME, layers=[OfferedLayer("a" * 64, LARGE, "0/layer.tar", have)])
    assert (two.taker.deeds, two.left()) == ([], [])


@pytest.mark.parametrize("place", ["frame", "layers"])
def test_a_part_whose_name_leads_elsewhere_is_refused(two: Two, engine: FakeEngine, capsys: pytest.CaptureFixture[str], place: str) -> None:
    two.enough.set()
    two.give()
    about = two.told["about"]
    part_of_it = about["frame"] if place == "frame" else about["layers"][1]
    part_of_it["sha256"] = "../../../etc/passwd"
    lost = part(capsys, follow="http://127.0.0.1:9/secret", about=about)
    assert "is called '../../../etc/passwd', which is no sha256" in lost["lost"]
    assert (lost["changed"], engine.deeds) == (False, [])


def test_what_is_no_archive_is_not_given(two: Two) -> None:
    two.giver.archive = b"no archive at all"
    with pytest.raises(ArchiveError, match="it cannot be read"):
        two.give()
    assert ("url" in two.told, two.left()) == (False, [])


def test_another_image_is_not_loaded_and_nothing_of_it_stays(two: Two) -> None:
    two.image.layers = (two.image.content[0], b"a back door")
    two.giver.archive = two.image.archive()
    with pytest.raises(ImageError, match=f"the archive of {NAME} is not the image {two.image.digest}: its layer 2 is sha256:"):
        two.take(NAME)
    assert (two.taker.deeds, two.left()) == ([], [])


def test_documents_of_another_digest_load_nothing(two: Two) -> None:
    with pytest.raises(ImageError, match=r"is missing\. It was not loaded") as caught:
        two.take(NAME, digest="sha256:" + "0" * 64)
    assert isinstance(caught.value.__cause__, ChainError)
    assert (two.taker.deeds, two.left()) == ([], [])


def test_no_room_is_said_before_a_byte_comes(two: Two) -> None:
    with pytest.raises(ImageError, match=rf"the image needs .* in {two.folder}/fleet, and .* are free while it is loaded: make room"):
        two.take(NAME, frame=Part("a" * 64, 10**18))
    assert (two.came, two.taker.deeds, two.left()) == (0, [], [])


def test_a_giver_needs_room_for_the_archive_and_for_dockers_copy_of_it(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_room, "free_bytes", lambda path: 39_999)
    with pytest.raises(ImageError, match=rf"the archive of {NAME} needs 40\.0 kB in {two.folder}, and 40\.0 kB are free: make room there"):
        two.give()
    assert (two.giver.deeds, two.told, two.left()) == ([], {}, [])


@pytest.mark.parametrize("fault", ["save", "slow", "documents"])
def test_a_giver_that_fails_says_why_and_leaves_nothing(two: Two, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Iterator[bytes]:
        yield b"half of it"
        raise EngineError(f"Docker failed to save image {name}: no space left on device")

    def silent(self: Registry, digest: str) -> bytes:
        raise RegistryError("no registry gives the manifest")

    clock = itertools.count(0, 40)
    if fault == "save":
        two.giver.save = broken  # type: ignore[method-assign]
    elif fault == "slow":
        monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    else:
        monkeypatch.setattr(Registry, "document", silent)
    said = {"save": "no space left", "slow": "was not saved within 60 s", "documents": "no registry gives"}[fault]
    with pytest.raises((EngineError, RegistryError, ImageError), match=said):
        two.give()
    assert ("url" in two.told, two.left()) == (False, [])


def test_a_giver_that_is_gone_is_said_to_be_and_nothing_stays(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peer, "GONE_S", 2.0)
    monkeypatch.setattr(_peer, "ANSWER_S", 0.5)
    offered = Offered(two.image.digest, two.image.documents, Part("a" * 64, 1000), ())
    with pytest.raises(PeersLost, match=r"the seed 127\.0\.0\.1:9 does not answer") as caught:
        take(two.taker, NAME, offered, Seeding("http://127.0.0.1:9/secret", PORTS), 60, lambda text: None, two.count)
    assert (caught.value.seed_gone, two.came, two.taker.deeds, two.left()) == (True, 0, [], [])


def test_what_a_killed_taker_left_is_removed_unless_one_is_at_it(two: Two) -> None:
    directory = two.folder / "fleet"
    directory.mkdir()
    (directory / ("a" * 64)).write_bytes(b"half an archive")
    with alone(str(directory)):
        clear()
        assert directory.exists()
    clear()
    assert not directory.exists()
    clear()


# ---------------------------------------------------------------------------- the module
@pytest.fixture
def engine(two: Two, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr(vllm_image, "DockerEngine", lambda: two.taker)
    two.taker.registry = {NAME: [{"vllm": "0.19.1"}]}
    return two.taker


def part(capsys: pytest.CaptureFixture[str], image: str = NAME, **asked: Any) -> dict[str, Any]:
    return run_module(
        vllm_image.main, capsys, image=image, share=True, peer_ports="26940-26959", peer_address="127.0.0.1", part=json.dumps(asked)
    )


def test_it_looks_before_it_pulls(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    looked = part(capsys, look=True)
    assert (looked["changed"], looked["needed"], engine.deeds) == (False, True, [])
    pulled = part(capsys, pull=True)
    assert (pulled["changed"], pulled["image"]["vllm_version"], engine.deeds) == (True, "0.19.1", [f"pull {NAME}"])
    again = part(capsys, look=True)
    assert (again["changed"], "needed" in again, again["image"]) == (False, False, pulled["image"])


def test_what_the_fleet_does_not_give_is_told_and_is_no_failure(
    two: Two, engine: FakeEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(two.folder))
    two.enough.set()
    two.give()
    lost = part(capsys, follow="http://127.0.0.1:9/secret", about=two.told["about"])
    assert (lost["changed"], lost["lost"].partition(":")[0], lost["seed_gone"]) == (False, "the seed 127.0.0.1", True)
    # A giver that says it has another digest than the one that is asked.
    asked = "sha256:" + "0" * 64
    told: list[str] = []
    monkeypatch.setattr(vllm_image, "take", lambda engine, reference, offered, *more: told.append(offered.digest))
    part(capsys, image=f"{NAME}@{asked}", follow="http://127.0.0.1:9/secret", about=two.told["about"])
    assert told == [asked]


def test_a_giver_without_a_free_port_has_its_image_all_the_same(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    digest = SavedImage().digest
    engine.add_image(NAME, "0.19.1", digest)
    with Seed("other", range(26940, 26941), "127.0.0.1"):
        arguments: dict[str, Any] = {"image": NAME, "peer_address": "127.0.0.1", "part": json.dumps({"seed": "s", "digest": digest})}
        result = run_module(vllm_image.main, capsys, **arguments, peer_ports="26940")
    assert ("failed" in result, result["changed"]) == (False, False)
    assert result["lost"] == "none of the ports 26940 to 26940 is free on 127.0.0.1: set peer_ports to others"
