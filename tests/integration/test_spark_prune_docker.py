# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""spark_prune against a real Docker engine: what Docker says of images with many names, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _image
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, EngineError
from ansible_collections.dgx.spark.plugins.modules import spark_prune
from unit.run_module import run_module
from unit.test_leftovers import complete

pytestmark = pytest.mark.docker

REPOSITORY = "dgx-spark-test/prune"
NAME = "dgx-spark-test-prune-previous"


def tiny(content: bytes) -> bytes:
    """The archive of an image with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("content")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.DockerClient]:
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    found = docker.from_env(version="auto")
    for tag in ("serves", "previous", "old"):
        found.api.import_image_from_data(tiny(tag.encode()), repository=REPOSITORY, tag=tag)
    found.api.tag(f"{REPOSITORY}:old", REPOSITORY, "old-too")
    found.api.tag(f"{REPOSITORY}:old", "dgx-spark-test/elsewhere", "old")
    yield found
    with contextlib.suppress(docker.errors.NotFound):
        found.api.remove_container(NAME, force=True)
    for image in found.images.list():
        for name in image.tags:
            if name.startswith("dgx-spark-test/"):
                with contextlib.suppress(docker.errors.NotFound):
                    found.api.remove_image(name)
    found.close()


def test_what_no_container_needs_goes_with_all_its_names(
    client: docker.DockerClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path / "models" / "v1", "x.safetensors")
    complete(tmp_path / "models" / "v0", "x.safetensors")
    mount = docker.types.Mount(target="/m", source=str(tmp_path / "models" / "v1"), type="bind", read_only=True)
    config = client.api.create_host_config(mounts=[mount])
    client.api.create_container(
        f"{REPOSITORY}:previous", name=NAME, command=["x"], host_config=config
    )  # stopped, as one for the way back is
    old = client.images.get(f"{REPOSITORY}:old").id
    options: dict[str, Any] = {"models_root": str(tmp_path / "models"), "images": [f"{REPOSITORY}:serves"]}

    would = run_module(spark_prune.main, capsys, check=True, **options)
    assert [item["name"] for item in would["leftovers"]] == [str(tmp_path / "models" / "v0"), old]
    assert {item["why"] for item in would["kept"]} == {f"container {NAME} uses it", "it is asked for"}

    made = run_module(spark_prune.main, capsys, **options)
    assert made["removed"] == [str(tmp_path / "models" / "v0"), old]
    names = {name for image in client.images.list() for name in image.tags if name.startswith("dgx-spark-test/")}
    assert names == {f"{REPOSITORY}:serves", f"{REPOSITORY}:previous"}
    assert (tmp_path / "models" / "v1" / "x.safetensors").exists()

    again = run_module(spark_prune.main, capsys, **options)
    assert (again["changed"], again["removed"]) == (False, [])


def test_docker_itself_refuses_to_remove_what_a_container_uses(client: docker.DockerClient) -> None:
    client.api.create_container(f"{REPOSITORY}:previous", name=NAME, command=["x"])
    engine = DockerEngine()
    image = next(image for image in engine.stored_images() if f"{REPOSITORY}:previous" in image.names)
    with pytest.raises(EngineError, match="refused to remove image"):
        engine.remove_image(image)
    assert client.images.get(f"{REPOSITORY}:previous")
