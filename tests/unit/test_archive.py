# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""An archive is the image of a digest, or it is refused with the part that is not: in both forms that engines write."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._archive import ArchiveError, check
from ansible_collections.dgx.spark.plugins.module_utils._oci import digest_of
from unit.saved_image import LAYERS, SavedImage, blob, packed, text


def refusal(image: SavedImage, path: Path, tag: str = "") -> str:
    """Why the archive is refused; empty when it is not."""
    try:
        check(image.write(path / "image.tar"), image.chain(), tag or image.tag)
    except ArchiveError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("index", [True, False])
def test_the_archive_of_an_engine_is_its_image_and_all_of_it_is_read(tmp_path: Path, index: bool) -> None:
    image, read = SavedImage(index=index), list[int]()
    check(image.write(tmp_path / "image.tar"), image.chain(), image.tag, read.append)
    assert sum(read) == sum(map(len, LAYERS))


def test_layers_may_be_as_the_registry_compresses_them(tmp_path: Path) -> None:
    image = SavedImage()
    image.layers = tuple(packed(layer) for layer in LAYERS)
    assert refusal(image, tmp_path) == ""


def test_another_layer_is_refused(tmp_path: Path) -> None:
    image = SavedImage()
    image.layers = (LAYERS[0], b"a back door")
    assert refusal(image, tmp_path).startswith(f"its layer 2 is {digest_of(b'a back door')}, that of the image is {digest_of(LAYERS[1])}")
    image.layers = LAYERS[::-1]
    assert refusal(image, tmp_path).startswith("its layer 1 is")
    image.layers = LAYERS[:1]
    assert refusal(image, tmp_path) == "it has 1 layers, the image has 2"


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    image = SavedImage()
    image.more = {f"{image.id.partition(':')[2]}.json": image.config.replace(b"layers", b"Layers")}
    assert "its configuration is sha256:" in refusal(image, tmp_path)


def test_another_name_is_refused(tmp_path: Path) -> None:
    image = SavedImage()
    assert "it would be loaded as ['vllm/x:1']" in refusal(dataclasses.replace(image, tag="vllm/x:1"), tmp_path, image.tag)


def test_docker_hub_may_be_written_out(tmp_path: Path) -> None:
    image = SavedImage()
    assert refusal(dataclasses.replace(image, tag=f"docker.io/{image.tag}"), tmp_path, image.tag) == ""


def oci(image: SavedImage, manifest: bytes, *blobs: bytes) -> SavedImage:
    """With OCI's form beside Docker's own."""
    image.more = {"index.json": text({"manifests": [{"digest": digest_of(manifest)}]}), **dict(map(blob, (manifest, *blobs)))}
    return image


def test_the_other_form_in_it_must_be_the_same_image(tmp_path: Path) -> None:
    same = SavedImage()
    assert refusal(oci(same, same.manifest, same.config), tmp_path) == ""
    own = text({"config": {"digest": same.id}, "layers": [{"digest": digest_of(layer)} for layer in LAYERS]})
    assert refusal(oci(SavedImage(), own, *LAYERS), tmp_path) == ""

    foreign = text({"config": {"digest": digest_of(b"{}")}, "layers": []})
    assert refusal(oci(SavedImage(), foreign), tmp_path) == f"its manifest {digest_of(foreign)} is that of another image"
    hidden = text({"config": {"digest": same.id}, "layers": [{"digest": digest_of(layer)} for layer in (LAYERS[0], b"a back door")]})
    assert refusal(oci(SavedImage(), hidden, b"a back door"), tmp_path).startswith("its layer 2 is")
    lying = SavedImage()
    lying.more = {"index.json": text({"manifests": [{"digest": digest_of(lying.manifest)}]}), blob(lying.manifest)[0]: foreign}
    assert refusal(lying, tmp_path).startswith(f"its part {blob(lying.manifest)[0]} is sha256:")


def test_the_same_layer_twice_may_be_a_link_and_no_other_link_is_followed(tmp_path: Path) -> None:
    image = SavedImage()

    def linked(name: str, target: str) -> str:
        path = tmp_path / "linked.tar"
        with tarfile.open(path, "w") as tar:
            for part, content in image.parts().items():
                about = tarfile.TarInfo(part)
                if part == name:
                    about.type, about.linkname = tarfile.SYMTYPE, target
                    tar.addfile(about)
                    about = tarfile.TarInfo("moved/layer.tar")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        try:
            check(str(path), image.chain(), image.tag)
        except ArchiveError as exc:
            return str(exc)
        return ""

    assert linked("1/layer.tar", "../moved/layer.tar") == ""
    assert linked("1/layer.tar", "/etc/passwd") == "its part 1/layer.tar is missing"


def test_parts_that_no_image_has_are_refused(tmp_path: Path) -> None:
    image = SavedImage()
    image.more = {"../../etc/cron.d/x": b"* * * * * root true"}
    assert refusal(image, tmp_path) == "it has a part ../../etc/cron.d/x, which no image has"


def test_half_an_archive_is_refused(tmp_path: Path) -> None:
    image = SavedImage()
    path = tmp_path / "image.tar"
    path.write_bytes(image.archive()[:700])
    with pytest.raises(ArchiveError, match=r"it cannot be read|is missing"):
        check(str(path), image.chain(), image.tag)
