# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""A digest is followed by documents that are named by their own hash, and by nothing else."""

from __future__ import annotations

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError, collect, digest_of, follow, here
from unit.saved_image import LAYERS, SavedImage, packed, text


@pytest.mark.parametrize("index", [True, False])
def test_a_digest_leads_to_configuration_and_layers(index: bool) -> None:
    image = SavedImage(index=index)
    chain = follow(image.digest, image.documents, here())
    assert (chain.digest, chain.manifest, chain.config) == (image.digest, digest_of(image.manifest), image.id)
    assert chain.layers == tuple(digest_of(packed(layer)) for layer in LAYERS)


def test_the_documents_are_asked_one_after_the_other() -> None:
    image = SavedImage()
    asked = []

    def fetch(digest: str) -> bytes:
        asked.append(digest)
        return image.documents[digest].encode()

    assert collect(image.digest, here(), fetch) == image.documents
    assert asked == [image.digest, digest_of(image.manifest)]


def test_a_document_that_is_another_one_is_refused() -> None:
    image = SavedImage()
    documents = {**image.documents, digest_of(image.manifest): image.manifest.decode() + " "}
    with pytest.raises(ChainError, match=rf"the document that is called {digest_of(image.manifest)} is sha256:"):
        follow(image.digest, documents, here())


def test_a_document_that_lacks_is_named() -> None:
    image = SavedImage()
    with pytest.raises(ChainError, match=f"the document {digest_of(image.manifest)} is missing"):
        follow(image.digest, {image.digest: image.documents[image.digest]}, here())


def test_an_image_for_other_machines_says_for_which() -> None:
    image = SavedImage()
    with pytest.raises(ChainError, match=r"not built for linux/riscv64 \(it is for: amd64, arm64\)"):
        follow(image.digest, image.documents, "riscv64")


@pytest.mark.parametrize("document", [{"layers": []}, {"config": {"digest": "x"}, "layers": []}, [], {"config": None}])
def test_what_is_no_manifest_is_refused(document: object) -> None:
    content = text(document)
    with pytest.raises(ChainError, match="manifest"):
        follow(digest_of(content), {digest_of(content): content.decode()}, here())
