# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A bundle as the controller makes, opens and judges it, and the box's half that gives its parts."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _debs, _image, _load, _loaded
from ansible_collections.dgx.spark.plugins.module_utils._registry import Registry
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import Digests
from ansible_collections.dgx.spark.plugins.modules import bundle as bundle_module
from ansible_collections.dgx.spark.plugins.plugin_utils import _bundle_make as make
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle import About, Bundle, BundleError, about_from, differences, open_bundle
from ansible_collections.dgx.spark.plugins.plugin_utils._bundle_make import Image, Wanted
from ansible_collections.dgx.spark.plugins.plugin_utils._lock import SCHEMA, Document, render
from unit.fake_engine import FakeEngine
from unit.run_module import run_module
from unit.saved_image import NAME, SavedImage

ROOT = Path(__file__).resolve().parents[2]
RECIPE, REPO, COMMIT = "gemma4-26b-a4b-nvfp4", "org/model", "c" * 40
FILES = {"config.json": b"{}", "sub/weights.safetensors": b"weights" * 100, ".gitattributes": b""}
TOOLKIT = {"nvidia-container-toolkit": "1.19.0-1"}
MACHINE, RELEASE = os.uname().machine, "ubuntu 24.04"


def entry(image: SavedImage, commit: str = COMMIT) -> Document:
    files = {path: {"size": len(content), "git_sha1": Digests.of(content).git_sha1} for path, content in FILES.items()}
    weights = FILES["sub/weights.safetensors"]
    files["sub/weights.safetensors"] = {"size": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    return {
        "image": {"name": NAME, "digest": image.digest, "vllm_version": "0.19.1"},
        "model": {"repo": REPO, "revision": "main", "commit": commit, "files": files},
        "patches": {},
    }


@dataclasses.dataclass
class Maker:
    """What an engineer has where a network is, and a box that gives all that is asked."""

    path: Path
    image: SavedImage
    lock: Document

    def wanted(self, recipe: str = RECIPE, **changes: Any) -> Wanted:
        image = Image(NAME, self.image.digest, 5000)
        text = render(self.lock)
        return dataclasses.replace(Wanted(recipe, self.lock, text, MACHINE, RELEASE, image, (), ("python3-docker",)), **changes)

    def run(self, wanted: Wanted | None = None) -> tuple[tuple[str, ...], str]:
        """As the action half does it: the reasons, and what has changed of the description."""
        wanted = wanted or self.wanted()
        before = make.read_about(self.path)
        lacking = make.lack(self.path, wanted, before)
        if lacking.reasons:
            make.begin(self.path, wanted, before)
        for name in lacking.weights:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_bytes(FILES[wanted.weights[name].path])
        for image in lacking.images:
            make.write_documents(self.path, image, self.image.documents)
            self.image.write(self.path / image.archive)
        if lacking.packages:
            make.forget_packages(self.path)
            (self.path / "packages").mkdir()
            (self.path / "packages/a.deb").write_bytes(b"a package")
            sha256 = hashlib.sha256(b"a package").hexdigest()
            (self.path / "packages/Packages").write_text(
                f"Package: a\nDescription: made up\n Filename: no\nFilename: ./a.deb\nSHA256: {sha256}\n"
            )
        return lacking.reasons, make.finish(self.path, wanted, before)

    def text(self) -> str:
        return (self.path / "SHA256SUMS").read_text()


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    image = SavedImage()
    return Maker(tmp_path / "bundle", image, {"schema": SCHEMA, "recipes": {RECIPE: entry(image)}, "toolkit": TOOLKIT})


@pytest.fixture
def made(maker: Maker) -> Bundle:
    maker.run()
    return open_bundle(maker.path)


def test_a_bundle_has_all_of_it_and_sums_that_anybody_may_check(maker: Maker) -> None:
    reasons, _news = maker.run()
    assert f"the image {NAME} is missing" in reasons
    subprocess.run(["sha256sum", "--quiet", "--strict", "--check", "SHA256SUMS"], cwd=maker.path, check=True)
    bundle = open_bundle(maker.path)
    folder = f"models/{REPO}/{COMMIT}"
    image = f"images/{maker.image.digest.partition(':')[2]}"
    documents = [f"{image}/{digest.partition(':')[2]}.json" for digest in maker.image.documents]
    need = [f"{folder}/{path}" for path in FILES] + [f"{image}/image.tar", *documents, "packages/a.deb", "packages/Packages"]
    assert bundle.need(RECIPE) == sorted(need)
    assert bundle.documents(maker.image.digest) == maker.image.documents
    assert bundle.archives() == [hashlib.sha256(maker.image.archive()).hexdigest()]
    assert bundle.packages().keys() == {"a.deb", "Packages"}
    assert "README.txt" in bundle.sums
    assert bundle.lock == maker.lock


def test_a_draft_model_belongs_to_it(maker: Maker) -> None:
    maker.lock["recipes"][RECIPE]["draft"] = maker.lock["recipes"][RECIPE]["model"] | {"repo": "org/draft", "commit": "d" * 40}
    maker.run()
    wanted = maker.wanted()
    name = f"models/org/draft/{'d' * 40}/config.json"
    assert name in open_bundle(maker.path).need(RECIPE)
    assert (wanted.checkpoint_of(name), wanted.checkpoint_of(f"models/{REPO}/{COMMIT}/config.json")) == ("draft", "model")


def test_making_it_again_changes_nothing(maker: Maker) -> None:
    maker.run()
    before = {path: path.stat().st_mtime_ns for path in maker.path.rglob("*")}
    assert maker.run() == ((), "")
    assert {path: path.stat().st_mtime_ns for path in maker.path.rglob("*")} == before


def test_what_an_interrupted_run_left_is_no_bundle_and_is_taken_up(maker: Maker) -> None:
    maker.run()
    sums = maker.text()
    (maker.path / "SHA256SUMS").unlink()
    with pytest.raises(BundleError, match=r"is no complete bundle \(SHA256SUMS, which is written last, is not there\)"):
        open_bundle(maker.path)
    (maker.path / f"models/{REPO}/{COMMIT}/config.json").unlink()
    reasons, _news = maker.run()
    assert reasons == (f"models/{REPO}/{COMMIT}/config.json is missing",)
    assert maker.text() == sums


@pytest.mark.parametrize(
    ("path", "removed", "why"),
    [
        (
            f"models/{REPO}/{COMMIT}/sub/weights.safetensors",
            f"models/{REPO}/{COMMIT}/sub/weights.safetensors",
            "it is not the file of the lock",
        ),
        ("packages/a.deb", "packages", "packages/a.deb is not what its index says"),
        ("images/DIGEST/image.tar", "images/DIGEST", "(its layer 1 is sha256:"),
        ("images/DIGEST/DIGEST.json", "images/DIGEST", "(the document that is called sha256:"),
    ],
)
def test_what_came_wrong_is_removed_and_named_and_the_next_run_mends_it(maker: Maker, path: str, removed: str, why: str) -> None:
    maker.run()
    sums = maker.text()
    path, removed = (text.replace("DIGEST", maker.image.digest.partition(":")[2]) for text in (path, removed))
    content = (maker.path / path).read_bytes()
    flipped = content.replace(b"the first layer", b"the First layer") if path.endswith(".tar") else b"W" + content[1:]
    (maker.path / path).write_bytes(flipped)
    with pytest.raises(BundleError, match="is no bundle") as caught:
        maker.run()
    assert f"{removed}: " in str(caught.value)
    assert why in str(caught.value)
    assert not (maker.path / removed).exists()
    with pytest.raises(BundleError):
        open_bundle(maker.path)
    reasons, _news = maker.run()
    assert reasons
    assert maker.text() == sums


def test_what_another_recipe_has_in_the_bundle_is_read_too(maker: Maker) -> None:
    maker.lock["recipes"]["other"] = entry(maker.image, commit="d" * 40)
    maker.run()
    weights = maker.path / f"models/{REPO}/{COMMIT}/sub/weights.safetensors"
    weights.write_bytes(weights.read_bytes().upper())
    with pytest.raises(BundleError, match=f"{COMMIT}/sub/weights.safetensors: it is not the file of the lock"):
        maker.run(maker.wanted("other"))


def test_a_new_lock_takes_the_old_weights_away_and_keeps_what_is_the_same(maker: Maker) -> None:
    maker.run()
    archive = next(maker.path.glob("images/*/image.tar"))
    inode = archive.stat().st_ino
    maker.lock["recipes"][RECIPE] = entry(maker.image, commit="d" * 40)
    maker.run()
    assert [path.name for path in (maker.path / f"models/{REPO}").iterdir()] == ["d" * 40]
    assert archive.stat().st_ino == inode
    assert open_bundle(maker.path).lock == maker.lock


def test_a_bundle_may_have_several_recipes_until_the_lock_drops_one(maker: Maker) -> None:
    maker.lock["recipes"]["other"] = entry(maker.image, commit="d" * 40)
    maker.run()
    reasons, news = maker.run(maker.wanted("other"))
    assert (bool(reasons), bool(news)) == (True, True)
    bundle = open_bundle(maker.path)
    assert set(bundle.about.recipes) == {RECIPE, "other"}
    assert not [path for path in bundle.need("other") if COMMIT in path]
    assert maker.run() == ((), "")
    del maker.lock["recipes"][RECIPE]
    maker.run(maker.wanted("other"))
    assert set(open_bundle(maker.path).about.recipes) == {"other"}
    assert [path.name for path in (maker.path / f"models/{REPO}").iterdir()] == ["d" * 40]


def test_one_for_another_system_is_not_mixed_with_this(maker: Maker) -> None:
    maker.run()
    with pytest.raises(BundleError, match=rf"is a bundle for ubuntu 24.04 on {MACHINE}, this box has debian 12 on {MACHINE}"):
        maker.run(maker.wanted(release="debian 12"))


def test_room_is_computed_before_a_byte_comes(maker: Maker) -> None:
    wanted = maker.wanted(image=Image(NAME, maker.image.digest, 10**18))
    with pytest.raises(BundleError, match=r"the bundle needs 1000000000\.\d GB more in .* Nothing was fetched"):
        make.check_room(maker.path, make.lack(maker.path, wanted, None))
    assert not maker.path.exists()


def test_a_broken_file_is_named_when_it_is_read(made: Bundle) -> None:
    made.verify(made.need(RECIPE))
    path = made.path / "packages/a.deb"
    path.write_bytes(b"A package")
    with pytest.raises(BundleError, match=r"is broken: packages/a\.deb is not what SHA256SUMS says\. Copy the bundle again"):
        open_bundle(made.path).verify(made.need(RECIPE))


def test_what_lacks_or_has_another_size_is_named_when_it_is_opened(made: Bundle) -> None:
    (made.path / "packages/a.deb").write_bytes(b"a package and more")
    with pytest.raises(BundleError, match=r"is broken: packages/a\.deb has another size"):
        open_bundle(made.path)
    (made.path / "packages/a.deb").unlink()
    (made.path / f"models/{REPO}/{COMMIT}/config.json").unlink()
    with pytest.raises(BundleError, match=rf"lacks models/{REPO}/{COMMIT}/config\.json, packages/a\.deb\. Copy"):
        open_bundle(made.path)


@pytest.mark.parametrize("name", ["gemma4.lock.yml", "bundle.json"])
def test_what_describes_it_is_read_when_it_is_opened(made: Bundle, name: str) -> None:
    (made.path / name).write_text((made.path / name).read_text() + "\n")
    with pytest.raises(BundleError, match=f"is broken: {name} is not what SHA256SUMS says"):
        open_bundle(made.path)
    (made.path / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        open_bundle(made.path)


def test_what_it_has_not_is_refused_with_what_it_has(made: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=rf"has nothing for the recipe other \(it has: {RECIPE}\)"):
        made.need("other")
    with pytest.raises(BundleError, match=r"has no image ubuntu:24\.04"):
        made.digest("ubuntu:24.04")
    with pytest.raises(BundleError, match="has no image sha256:0"):
        made.documents("sha256:" + "0" * 64)
    with pytest.raises(BundleError, match="there is no bundle at"):
        open_bundle(tmp_path / "none")


def test_a_path_out_of_the_bundle_is_refused(made: Bundle) -> None:
    about = dataclasses.replace(made.about, files={**made.about.files, "../x": 1})
    (made.path / "bundle.json").write_text(about.to_json())
    sums = {**made.sums, "bundle.json": hashlib.sha256(about.to_json().encode()).hexdigest()}
    (made.path / "SHA256SUMS").write_text("".join(f"{sha256}  {name}\n" for name, sha256 in sums.items()))
    with pytest.raises(BundleError, match="could be written outside"):
        open_bundle(made.path)


def test_a_lock_that_says_something_else_is_told(made: Bundle) -> None:
    lock = copy.deepcopy(made.lock)
    lock["recipes"]["more"] = lock["recipes"][RECIPE]
    assert differences(made, lock, "mine.lock.yml") is None
    lock["toolkit"] = {"nvidia-container-toolkit": "1.18.1-1"}
    assert "than mine.lock.yml: they differ in the container toolkit" in str(differences(made, lock, "mine.lock.yml"))
    lock["recipes"][RECIPE]["model"]["commit"] = "d" * 40
    assert f"they differ in {RECIPE}" in str(differences(made, lock, "mine.lock.yml"))


def test_the_description_survives_writing_and_reading() -> None:
    about = About("aarch64", RELEASE, ("a", "b"), {"ubuntu:24.04": "sha256:1"}, {RECIPE: ("x",)}, {"x": 1, "packages/y": 2})
    assert about_from(about.to_json(), "bundle.json") == about
    assert about.shared() == ["packages/y"]


def info(tmp_path: Path, **options: Any) -> dict[str, Any]:
    """What bundle_info says, as a user runs it: no box is reached."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_LOCAL_TEMP": str(tmp_path), "ANSIBLE_NOCOLOR": "1"}
    command = [str(Path(sys.executable).with_name("ansible")), "all", "-i", "nowhere.invalid,", "-m", "dgx.spark.bundle_info"]
    done = subprocess.run(
        [*command, "-a", json.dumps(options)], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60, check=False
    )
    found = re.search(r"=> (\{.*\})", done.stdout, re.DOTALL)
    assert found, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(found[1])
    return result


def test_bundle_info_says_what_there_is_and_reads_what_a_recipe_needs(made: Bundle, tmp_path: Path) -> None:
    lock = tmp_path / "gemma4.lock.yml"
    lock.write_text((made.path / "gemma4.lock.yml").read_text())
    whole = info(tmp_path, path=str(made.path), lock_file=str(lock), recipes=[RECIPE])
    assert (whole["changed"], whole["recipes"], whole["machine"], whole["release"]) == (False, [RECIPE], MACHINE, RELEASE)
    assert whole["fingerprint"] == hashlib.sha256((made.path / "SHA256SUMS").read_bytes()).hexdigest()
    assert whole["size"] == sum(made.about.files.values())

    lock.write_text(lock.read_text().replace("1.19.0-1", "1.18.1-1"))
    (made.path / "packages/a.deb").write_bytes(b"A package")
    assert not info(tmp_path, path=str(made.path)).get("failed")
    broken = info(tmp_path, path=str(made.path), recipes=[RECIPE])
    assert "packages/a.deb is not what SHA256SUMS says. Copy the bundle again" in broken["msg"]
    assert broken["msg"].endswith(" No box was touched.")
    assert "made for another lock" in info(tmp_path, path=str(made.path), lock_file=str(lock))["msg"]


# ---------------------------------------------------------------------------- the box's half
@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeEngine:
    fake, image = FakeEngine(), SavedImage()
    fake.add_image(NAME, "0.19.1", image.digest)
    fake.archive = image.archive()
    monkeypatch.setattr(bundle_module, "DockerEngine", lambda: fake)
    monkeypatch.setattr(bundle_module, "DIRECTORY", str(tmp_path / "staging"))
    for module, name in ((_load, "DIRECTORY"), (_loaded, "DIRECTORY"), (_image, "CACHE_DIR")):
        monkeypatch.setattr(module, name, str(tmp_path / name))
    monkeypatch.setattr(Registry, "document", lambda self, digest: image.documents[digest].encode())
    return fake


def part(capsys: pytest.CaptureFixture[str], **asked: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"path": "/p", "lock_file": "/l", "recipe": RECIPE, "model_dir": "/m", **({"part": asked} if asked else {})}
    return run_module(bundle_module.main, capsys, **arguments)


def test_the_box_says_what_it_is_and_what_its_images_are(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments" in run_module(bundle_module.main, capsys)["msg"]
    assert "call dgx.spark.bundle as a task" in part(capsys)["msg"]
    digest = SavedImage().digest
    seen = part(capsys, name="look", images=[f"{NAME}@{digest}"])
    assert seen["images"] == {f"{NAME}@{digest}": {"digest": digest, "size": 20_000}}
    assert (seen["machine"], len(seen["release"].split())) == (MACHINE, 2)
    assert part(capsys, name="documents", image=NAME, digest=digest)["documents"] == SavedImage().documents
    engine.add_image("made/here:1", "0.19.1")
    assert "image made/here:1 came from no registry" in part(capsys, name="look", images=["made/here:1"])["msg"]


def test_the_box_saves_an_image_under_the_name_of_its_digest_once(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    image = SavedImage()
    saved = part(capsys, name="archive", image=NAME, digest=image.digest)
    assert Path(saved["path"]).read_bytes() == image.archive()
    assert (saved["size"], engine.deeds) == (len(image.archive()), [f"tag {image.tag}", f"save {image.tag}"])
    assert Path(saved["path"]).stat().st_mode & 0o777 == 0o644  # the SSH user fetches it
    assert part(capsys, name="archive", image=NAME, digest=image.digest)["path"] == saved["path"]
    assert len(engine.deeds) == 2
    part(capsys, name="clean")
    assert not Path(saved["path"]).parent.exists()


def test_the_box_collects_packages(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def collect(packages: list[str], directory: str) -> None:
        os.makedirs(directory)
        for name in ("Packages", *(f"{package}.deb" for package in packages)):
            (Path(directory) / name).write_text(name)

    monkeypatch.setattr(_debs, "collect", collect)
    monkeypatch.setattr(bundle_module, "PACKAGES", str(tmp_path / "packages"))
    arguments: dict[str, Any] = {"path": "/p", "lock_file": "/l", "recipe": RECIPE, "model_dir": "/m", "packages": ["aria2"]}
    found = run_module(bundle_module.main, capsys, **arguments, part={"name": "packages"})
    assert (json.dumps(found["files"], sort_keys=True), found["directory"]) == (
        '{"Packages": 8, "aria2.deb": 9}',
        str(tmp_path / "packages"),
    )
