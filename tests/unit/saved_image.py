# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""An image of two layers as a registry names it and as engines save it, made up."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._image import loaded_name
from ansible_collections.dgx.spark.plugins.module_utils._oci import Chain, digest_of, follow, here

NAME = "vllm/vllm-openai:gemma4-cu130"
LAYERS = (b"the first layer", b"the second layer")


def packed(layer: bytes) -> bytes:
    """As a registry keeps it."""
    return gzip.compress(layer, mtime=0)


def text(document: Any) -> bytes:
    return json.dumps(document).encode()


@dataclass
class SavedImage:
    """C(index) puts an index of several architectures above the manifest, C(content) is what its layers are.

    Tests change the other attributes and see what is noticed.
    """

    index: bool = True
    content: tuple[bytes, ...] = LAYERS
    layers: tuple[bytes, ...] = ()  # of the archive
    tag: str = ""
    more: dict[str, bytes] = field(default_factory=dict)  # parts of the archive

    def __post_init__(self) -> None:
        self.layers = self.layers or self.content
        self.config = text({"architecture": here(), "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in self.content]}})
        descriptors = [{"digest": digest_of(packed(layer)), "size": len(packed(layer))} for layer in self.content]
        self.manifest = text({"schemaVersion": 2, "config": {"digest": digest_of(self.config)}, "layers": descriptors})
        platforms = [("arm64" if here() == "amd64" else "amd64", digest_of(b"another")), (here(), digest_of(self.manifest))]
        entries = [{"digest": digest, "platform": {"os": "linux", "architecture": name}} for name, digest in platforms]
        above = text({"schemaVersion": 2, "manifests": entries})
        self.digest = digest_of(above if self.index else self.manifest)
        self.documents = {digest_of(self.manifest): self.manifest.decode()}
        if self.index:
            self.documents[self.digest] = above.decode()
        self.tag = self.tag or loaded_name(NAME, self.digest)

    @property
    def id(self) -> str:
        return digest_of(self.config)

    def chain(self) -> Chain:
        return follow(self.digest, self.documents, here())

    def parts(self) -> dict[str, bytes]:
        """As Docker 20.10 saves it."""
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        config = f"{self.id.partition(':')[2]}.json"
        listed = [{"Config": config, "RepoTags": [self.tag], "Layers": names}]
        return {config: self.config, **dict(zip(names, self.layers, strict=True)), "manifest.json": text(listed), **self.more}

    def archive(self) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for name, content in self.parts().items():
                about = tarfile.TarInfo(name)
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        return stream.getvalue()

    def write(self, path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.archive())
        return str(path)


def blob(content: bytes) -> tuple[str, bytes]:
    """A part of an archive in OCI's form."""
    return f"blobs/{digest_of(content).replace(':', '/')}", content
