# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""vllm_container and vllm_image_info against a real Docker engine, with images of a few MB that only pretend to be vLLM."""

from __future__ import annotations

import contextlib
import copy
import http.server
import json
import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _container_engine, _image
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, EngineTimeout, EngineUnavailable
from ansible_collections.dgx.spark.plugins.modules import vllm_container, vllm_image_info
from integration.tiny_image import REPOSITORY, SITE, build_base, build_vllm
from unit.container_box import PATCH, article, lay_model
from unit.fake_engine import Killed
from unit.run_module import run_module

pytestmark = pytest.mark.docker

NAME = "dgx-spark-test-gemma4"
ALL_NAMES = [NAME, f"{NAME}-previous", f"{NAME}-next", f"{NAME}-rolled-back", f"{NAME}-other"]


@pytest.fixture(scope="module")
def images(client: docker.DockerClient) -> Iterator[dict[str, str]]:
    """Names by vLLM version."""
    base = build_base(client)
    made = {
        version: build_vllm(client, base, tag, version)
        for tag, version in {"gemma4-cu130": "0.19.1.dev6+g6d4a8e6d2", "v0.19.2": "0.19.2", "gemma4": "0.18.2.dev0"}.items()
    }
    yield made | {"base": base}
    for name in [*made.values(), base]:
        client.images.remove(name)
    assert client.images.list(name=REPOSITORY) == []


@pytest.fixture(autouse=True)
def clean(client: docker.DockerClient) -> Iterator[None]:
    yield
    for name in ALL_NAMES:
        with contextlib.suppress(docker.errors.NotFound):
            client.containers.get(name).remove(force=True)
    assert run_containers(client) == []


def run_containers(client: docker.DockerClient) -> list[str]:
    """Throw-away containers that were not thrown away."""
    filters: dict[str, str | list[str] | bool] = {"label": _container_engine.RUN_LABEL, "ancestor": f"{REPOSITORY}:python"}
    return [container.name or "" for container in client.containers.list(all=True, filters=filters)]


class RealBox:
    """The module on this machine's engine."""

    def __init__(self, client: docker.DockerClient, images: dict[str, str], directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.client = client
        self.images = images
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.spec = article(lay_model(directory / "model")) | {
            "image": images["0.19.1.dev6+g6d4a8e6d2"],
            "gpus": "none",
            "bind": "127.0.0.1",
            "port": self.port,
            "shm_size": "64mb",
            "stop_timeout": 1,
        }
        self._capsys = capsys
        self.keys = directory / "keys"

    def run(self, state: str = "started", check: bool = False, spec: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        if state in ("started", "present"):
            options["spec"] = spec or self.spec
        options["api_key_dir"] = str(self.keys)
        return run_module(vllm_container.main, self._capsys, check=check, name=NAME, state=state, **options)

    def with_args(self, **args: Any) -> dict[str, Any]:
        spec = copy.deepcopy(self.spec)
        spec["args"] |= args
        return spec

    def look(self, image: str, check: bool = False) -> dict[str, Any]:
        return run_module(vllm_image_info.main, self._capsys, check=check, image=image)

    def attributes(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = self.client.api.inspect_container(name)
        return found

    def statuses(self) -> dict[str, str]:
        found = {}
        for name in ALL_NAMES:
            with contextlib.suppress(docker.errors.NotFound):
                found[name.removeprefix(NAME)] = self.client.api.inspect_container(name)["State"]["Status"]
        return found

    def answer(self) -> dict[str, Any]:
        """What the container says of itself, through its published port."""
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as response:
                    found: dict[str, Any] = json.load(response)
                    return found
            except OSError:
                assert time.monotonic() < deadline, self.client.containers.get(NAME).logs().decode()
                time.sleep(0.1)


@pytest.fixture
def box(
    client: docker.DockerClient,
    images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> RealBox:
    monkeypatch.setattr(_image, "CACHE_DIR", str(tmp_path / "images"))
    return RealBox(client, images, tmp_path, capsys)


def test_ladder(box: RealBox) -> None:
    would = box.run(check=True)
    assert (would["changed"], would["plan"]["action"], box.statuses()) == (True, "create", {})
    made = box.run(recipe="a-recipe", api_key="sk-integration-secret")
    assert (made["plan"]["action"], made["container"]["state"]) == ("create", "running")
    first = box.answer()
    assert first["argv"][:4] == ["--model", "/models/gemma4", "--served-model-name", "gemma-4-26b"]
    assert first["key"] == "sk-integration-secret"
    assert first["argv"][8:10] == ["--middleware", "dgx_spark_guard.RequireKey"]
    assert "sk-integration" not in json.dumps(made) + json.dumps(box.attributes())
    assert not box.run(api_key="sk-integration-secret")["changed"]

    swapped = box.run(spec=box.with_args(seed=7))
    assert swapped["reasons"] == ["api_key: (set) → not set", "args.seed: not set → 7"]
    assert box.answer()["argv"][-4:-2] == ["--seed", "7"]
    assert (swapped["previous"]["id"], box.statuses()) == (made["container"]["id"], {"": "running", "-previous": "exited"})
    assert not box.run(spec=box.with_args(seed=7))["changed"]

    newer = box.spec | {"image": box.images["0.19.2"]}
    assert box.run(spec=newer)["reasons"][1].startswith("image: vLLM 0.19.1.dev6+g6d4a8e6d2 (sha256:")
    assert box.statuses() == {"": "running", "-previous": "exited"}
    assert "--seed" not in box.answer()["argv"]

    back = box.run("rolled_back")
    assert (back["container"]["id"], back["previous"]) == (swapped["container"]["id"], None)
    assert box.answer()["argv"][-4:-2] == ["--seed", "7"]
    assert box.statuses() == {"": "running", "-rolled-back": "exited"}
    policies = {name: box.attributes(NAME + name)["HostConfig"]["RestartPolicy"]["Name"] for name in box.statuses()}
    assert policies == {"": "unless-stopped", "-rolled-back": "no"}
    assert not box.run("rolled_back")["changed"]

    assert box.run("stopped")["container"]["state"] == "exited"
    assert not box.run("stopped")["changed"]
    assert box.run(spec=box.with_args(seed=7))["plan"]["action"] == "start"
    assert box.run("absent")["changed"]
    assert box.statuses() == {}
    assert not box.run("absent")["changed"]


def test_docker_gets_the_options_as_they_are_asked(box: RealBox) -> None:
    asked = box.spec | {"gpus": "all", "shm_size": "64gb", "stop_timeout": 120, "bind": "0.0.0.0", "port": 8002}
    made = box.run("present", spec=asked, recipe="a-recipe")
    assert made["container"]["state"] == "created"
    found = box.attributes()
    host, config = found["HostConfig"], found["Config"]
    (gpu,) = host["DeviceRequests"]
    assert (gpu["Driver"], gpu["Count"], gpu["Capabilities"]) == ("nvidia", -1, [["gpu"]])
    assert (host["IpcMode"], host["ShmSize"]) == ("host", 64 << 30)
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8002"}]}
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "50m", "max-file": "3"}}
    assert host["RestartPolicy"]["Name"] == "no"  # until it is started
    assert config["StopTimeout"] == 120
    assert config["Cmd"][8:] == ["--enable-auto-tool-choice", *config["Cmd"][9:]]
    mounts = {mount["Destination"]: (mount["Source"], mount["RW"]) for mount in found["Mounts"]}
    model = box.spec["model_path"]
    assert mounts == {
        "/models/gemma4": (model, False),
        f"{SITE}/vllm/model_executor/models/gemma4.py": (f"{model}/gemma4_patched.py", False),
    }
    labels = {name: value for name, value in config["Labels"].items() if name.startswith("dgx.spark.")}
    assert set(labels) == {"dgx.spark.spec", "dgx.spark.spec_digest", "dgx.spark.vllm_version", "dgx.spark.recipe"}
    assert labels["dgx.spark.vllm_version"] == "0.19.1.dev6+g6d4a8e6d2"
    assert json.loads(labels["dgx.spark.spec"])["args"]["moe-backend"] == "marlin"


def test_the_patch_is_what_the_container_sees(box: RealBox) -> None:
    box.run()
    command = ["python3", "-c", f"print(open('{SITE}/vllm/model_executor/models/gemma4.py').read())"]
    code, seen = box.client.containers.get(NAME).exec_run(command)
    assert isinstance(seen, bytes)
    assert (code, seen.strip()) == (0, PATCH.strip())


def test_a_start_that_docker_refuses_brings_the_old_one_back(box: RealBox) -> None:
    made = box.run()
    # The image has a directory where this patch would have to be mounted.
    broken = copy.deepcopy(box.spec)
    broken["patches"][0]["module"] = "vllm.folder"
    result = box.run(spec=broken)
    assert f"Docker refused to start {NAME}-next" in result["msg"]
    assert f"{NAME} was started again as it was" in result["msg"]
    assert box.statuses() == {"": "running"}
    assert box.attributes()["Id"] == made["container"]["id"]
    assert box.attributes()["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert box.answer()["argv"]


@pytest.mark.skipif(shutil.which("nvidia-container-runtime-hook") is not None, reason="this machine can serve --gpus")
def test_a_machine_without_the_toolkit_is_told_what_it_lacks(box: RealBox) -> None:
    result = box.run(spec=box.spec | {"gpus": "all"}, memory_required_gib=0)
    assert "could not select device driver" in result["msg"]
    assert "role container_toolkit" in result["msg"]
    assert f"{NAME} was removed again" in result["msg"]
    assert box.statuses() == {}


def test_an_option_that_docker_refuses_stops_nothing(box: RealBox) -> None:
    started = box.run()["container"]["started_at"]
    # Two things cannot be mounted in one place.
    result = box.run(spec=box.spec | {"model_mount": f"{SITE}/vllm/model_executor/models/gemma4.py"})
    assert f"Docker refused to create {NAME}-next" in result["msg"]
    assert "nothing that served was touched" in result["msg"]
    assert (box.statuses(), box.attributes()["State"]["StartedAt"]) == ({"": "running"}, started)


def test_a_wrong_vllm_in_the_image_stops_nothing(box: RealBox) -> None:
    started = box.run()["container"]["started_at"]
    result = box.run(spec=box.spec | {"image": box.images["0.18.2.dev0"]})
    assert f"image {box.images['0.18.2.dev0']} contains vLLM 0.18.2.dev0, the recipe needs >=0.19.0,<0.20" in result["msg"]
    assert (box.statuses(), box.attributes()["State"]["StartedAt"]) == ({"": "running"}, started)


def test_a_taken_port_names_who_holds_it(box: RealBox) -> None:
    other = box.client.containers.run(
        box.images["0.19.2"], ["--port", "8000"], name=f"{NAME}-other", detach=True, ports={"8000/tcp": ("127.0.0.1", box.port)}
    )
    assert f"port {box.port} is held by the container {NAME}-other" in box.run()["msg"]
    other.remove(force=True)
    server = http.server.HTTPServer(("127.0.0.1", box.port), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert f"port {box.port} is held by " in box.run()["msg"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert box.run()["container"]["state"] == "running"


@pytest.mark.parametrize("killed", ["stop", "start", "remove", "rename"])
def test_a_swap_that_was_killed_is_finished_by_the_next_run(box: RealBox, killed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    box.run()
    box.run(spec=box.with_args(seed=1))

    def die(*_args: object, **_options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(DockerEngine, killed, die)
        with pytest.raises(Killed):
            box.run(spec=box.with_args(seed=2))
    result = box.run(spec=box.with_args(seed=2))
    assert (result["plan"]["action"], result["container"]["state"]) == ("swap", "running")
    assert box.statuses() == {"": "running", "-previous": "exited"}
    assert box.answer()["argv"][-4:-2] == ["--seed", "2"]
    assert "1" in box.attributes(f"{NAME}-previous")["Config"]["Cmd"]
    assert not box.run(spec=box.with_args(seed=2))["changed"]


def test_an_image_says_what_it_contains_and_nothing_is_left(box: RealBox, client: docker.DockerClient) -> None:
    image = box.look(box.images["0.19.2"])["image"]
    assert (image["vllm_version"], image["vllm_path"]) == ("0.19.2", f"{SITE}/vllm")
    assert image["id"] == client.images.get(box.images["0.19.2"]).id
    assert box.look(image["id"])["image"]["vllm_version"] == "0.19.2"
    assert box.look(box.images["base"])["image"]["vllm_version"] is None
    assert "is not on the box: pull it with" in box.look(f"{REPOSITORY}:nowhere")["msg"]
    assert run_containers(client) == []


def test_a_look_is_bounded_and_leaves_nothing(box: RealBox, client: docker.DockerClient) -> None:
    engine = DockerEngine()
    image = client.images.get(box.images["base"]).id or ""
    started = time.monotonic()
    with pytest.raises(EngineTimeout, match="did not end within 1 s"):
        engine.run(image, ["python3", "-c", "import time; time.sleep(60)"], timeout=1)
    assert time.monotonic() - started < 20
    assert engine.run(image, ["python4"], timeout=5).exit_code == 127
    network = engine.run(image, ["python3", "-c", "import os; print(os.listdir('/sys/class/net'))"], timeout=20)
    assert network.output.strip() == "['lo']"
    assert run_containers(client) == []


def test_a_docker_that_is_down_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(EngineUnavailable, match=r"(?s)Docker does not answer .*systemctl status docker"):
        DockerEngine()


def test_a_missing_library_is_said_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container_engine, "IMPORT_ERROR", ImportError("No module named 'docker'"))
    with pytest.raises(EngineUnavailable, match=r"No module named 'docker'.*apt install python3-docker"):
        DockerEngine()
