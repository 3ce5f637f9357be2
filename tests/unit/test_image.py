# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image, _loaded
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Ended
from ansible_collections.dgx.spark.plugins.module_utils._image import Contents, ImageError, ImageMissing, check_version, find, inspect
from unit.fake_engine import FakeEngine

NAME = "vllm/vllm-openai:gemma4-cu130"
DIGEST = "sha256:" + "d" * 64
OTHER = "sha256:" + "e" * 64


@pytest.fixture
def engine() -> FakeEngine:
    fake = FakeEngine()
    fake.add_image(NAME, "0.19.1.dev6+g6d4a8e6d2", digest=DIGEST)
    return fake


def test_the_image_says_what_it_contains(engine: FakeEngine, tmp_path: Path) -> None:
    info = inspect(engine, NAME, cache_dir=str(tmp_path / "images"))
    assert (info.vllm_version, info.vllm_path) == ("0.19.1.dev6+g6d4a8e6d2", "/usr/local/lib/python3.12/dist-packages/vllm")
    assert (info.name, info.reference, info.digest, info.architecture, info.python) == (NAME, NAME, DIGEST, "arm64", "3.12.11")


def test_a_second_look_starts_no_container(engine: FakeEngine, tmp_path: Path) -> None:
    cache = str(tmp_path / "images")
    first = inspect(engine, NAME, cache_dir=cache)
    assert inspect(engine, NAME, cache_dir=cache) == first
    assert engine.looks == 1
    (file,) = (tmp_path / "images").iterdir()
    assert file.name == f"{info_id(engine)}.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def info_id(engine: FakeEngine) -> str:
    return engine.images[NAME].id.removeprefix("sha256:")


def test_new_bytes_under_the_same_name_are_looked_into_again(engine: FakeEngine, tmp_path: Path) -> None:
    inspect(engine, NAME, cache_dir=str(tmp_path))
    engine.add_image(NAME, "0.20.2")
    assert inspect(engine, NAME, cache_dir=str(tmp_path)).vllm_version == "0.20.2"


@pytest.mark.parametrize("rubbish", ["", "null", "[]", "{}", '{"schema": 0}', '{"schema": 1, "x": 2}'])
def test_a_cache_that_cannot_be_read_is_written_anew(engine: FakeEngine, tmp_path: Path, rubbish: str) -> None:
    file = tmp_path / f"{info_id(engine)}.json"
    file.write_text(rubbish)
    assert inspect(engine, NAME, cache_dir=str(tmp_path)).vllm_version == "0.19.1.dev6+g6d4a8e6d2"
    assert "0.19.1.dev6" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_nothing_is_kept_when_it_is_not_asked(engine: FakeEngine, tmp_path: Path) -> None:
    inspect(engine, NAME, keep=False, cache_dir=str(tmp_path / "images"))
    assert not (tmp_path / "images").exists()


def test_an_image_that_is_not_there_names_the_remedy(engine: FakeEngine) -> None:
    with pytest.raises(ImageMissing, match=r"image vllm/x:1 is not on the box: pull it with 'docker pull vllm/x:1'"):
        find(engine, "vllm/x:1")


def test_a_digest_is_checked(engine: FakeEngine) -> None:
    local, reference = find(engine, f"{NAME}@{DIGEST}")
    assert (local, reference) == (engine.images[NAME], NAME)
    assert find(engine, NAME, DIGEST)[0] == local
    with pytest.raises(ImageMissing) as caught:
        find(engine, f"{NAME}@{OTHER}")
    assert f"with digest {OTHER} is not on the box (it has {DIGEST} under that name)" in str(caught.value)
    assert f"docker pull vllm/vllm-openai@{OTHER}" in str(caught.value)


def test_a_tag_that_moved_on_does_not_hide_the_digest(engine: FakeEngine) -> None:
    pinned = engine.images[NAME]
    engine.add_image(NAME, "0.20.2", digest=OTHER)
    assert find(engine, f"{NAME}@{DIGEST}") == (pinned, f"vllm/vllm-openai@{DIGEST}")


def test_two_digests_contradict_each_other(engine: FakeEngine) -> None:
    with pytest.raises(ImageError, match="asked with two digests"):
        find(engine, f"{NAME}@{DIGEST}", OTHER)


def test_a_registrys_port_is_no_tag() -> None:
    engine = FakeEngine()
    with pytest.raises(ImageMissing, match=f"docker pull localhost:5000/vllm@{DIGEST}"):
        find(engine, f"localhost:5000/vllm@{DIGEST}")


def test_an_image_without_python_contains_nothing(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *args, **kwargs: Ended(127, "python3: executable file not found"))
    assert _image.look(engine, engine.images[NAME], NAME) == Contents(None, None, None)


def test_an_image_that_gives_no_answer_is_an_error_with_its_words(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "run", lambda *args, **kwargs: Ended(1, "exec format error"))
    with pytest.raises(ImageError, match=r"(?s)\(arm64\).*ended with code 1.*exec format error.*built for this machine"):
        _image.look(engine, engine.images[NAME], NAME)


class HereEngine(FakeEngine):
    """Runs the look on this machine, in a directory of the test's."""

    packages: Path

    def run(self, image_id: str, argv: object, timeout: int) -> Ended:
        assert isinstance(argv, list)
        python = [sys.executable, "-S", *argv[1:]]
        result = subprocess.run(
            python, capture_output=True, text=True, timeout=20, cwd=self.packages, env={"PYTHONPATH": str(self.packages)}, check=False
        )
        return Ended(result.returncode, result.stdout + result.stderr)


@pytest.fixture
def here(engine: FakeEngine, tmp_path: Path) -> HereEngine:
    fake = HereEngine(images=engine.images)
    fake.packages = tmp_path / "packages"
    fake.packages.mkdir()
    return fake


def test_the_look_reads_metadata_and_imports_nothing(here: HereEngine) -> None:
    package = here.packages / "vllm"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    info = here.packages / "vllm-0.19.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.19.1.dev6+g6d4a8e6d2\n")
    contents = _image.look(here, here.images[NAME], NAME)
    assert (contents.vllm_version, contents.vllm_path) == ("0.19.1.dev6+g6d4a8e6d2", str(package))


def test_a_build_without_metadata_says_it_in_its_version_file(here: HereEngine) -> None:
    package = here.packages / "vllm"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "_version.py").write_text("__version__: str\nversion: str\n__version__ = version = '0.32.0+cpu'\n")
    assert _image.look(here, here.images[NAME], NAME).vllm_version == "0.32.0+cpu"


def test_an_image_without_vllm_has_no_version(here: HereEngine) -> None:
    contents = _image.look(here, here.images[NAME], NAME)
    assert (contents.vllm_version, contents.vllm_path) == (None, None)
    assert contents.python == ".".join(map(str, sys.version_info[:3]))


def test_a_wrong_version_is_refused_by_name_and_number(engine: FakeEngine, tmp_path: Path) -> None:
    engine.add_image("vllm/vllm-openai:gemma4", "0.18.2.dev0")
    image = inspect(engine, "vllm/vllm-openai:gemma4", cache_dir=str(tmp_path))
    with pytest.raises(ImageError) as caught:
        check_version(image, ">=0.19.0,<0.20")
    assert "image vllm/vllm-openai:gemma4 contains vLLM 0.18.2.dev0, the recipe needs >=0.19.0,<0.20" in str(caught.value)
    check_version(image, "")
    with pytest.raises(ImageError, match="is not a range"):
        check_version(image, "0.19")


def test_an_image_without_vllm_is_refused(engine: FakeEngine, tmp_path: Path) -> None:
    engine.add_image("ubuntu:24.04", None)
    with pytest.raises(ImageError, match=r"image ubuntu:24.04 contains no vLLM"):
        check_version(inspect(engine, "ubuntu:24.04", cache_dir=str(tmp_path)), "")


def test_an_image_that_came_in_an_archive_is_found_by_the_digest_that_it_was_proven_to_have(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_loaded, "DIRECTORY", str(tmp_path / "loaded"))
    tag = f"vllm/vllm-openai:{OTHER.replace(':', '-')}"
    image_id = engine.add_image(tag, "0.20.2")
    with pytest.raises(ImageMissing):  # whoever tags an image proves nothing
        find(engine, f"{NAME}@{OTHER}")
    _loaded.remember(OTHER, image_id)
    assert find(engine, f"{NAME}@{OTHER}") == (engine.images[tag], tag)
    # And it says which it is when it is asked by the id that a container has.
    assert inspect(engine, image_id, keep=False).digest == OTHER
    assert inspect(engine, NAME, keep=False).digest == DIGEST

    engine.add_image(tag, "0.19.1")  # another image under that tag
    with pytest.raises(ImageMissing):
        find(engine, f"{NAME}@{OTHER}")
    assert inspect(engine, tag, keep=False).digest is None
