# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The module on this machine: it is no Spark, and everything that it lacks is a fact."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._run_lock import Holder
from ansible_collections.dgx.spark.plugins.modules import spark_info
from ansible_collections.dgx.spark.plugins.modules.spark_info import disk, look, model
from sim.ollama import Ollama as SimOllama
from unit.run_module import run_module

FREE_PORT = 1  # nothing listens on tcpmux


def params(tmp_path: Path, **changed: Any) -> dict[str, Any]:
    base = {
        "container": "",
        "model_dir": str(tmp_path / "srv/models/x"),
        "draft_dir": None,
        "evidence_dir": str(tmp_path),
        "ollama_url": f"http://127.0.0.1:{FREE_PORT}",
        "ports": [FREE_PORT],
    }
    return base | changed


def snapshot(directory: Path) -> Path:
    directory.mkdir(parents=True)
    weights = directory / "model.safetensors"
    weights.write_bytes(b"x" * 10)
    stat = weights.stat()
    entry = {"path": weights.name, "size": 10, "sha256": "a" * 64, "git_sha1": None, "mtime_ns": stat.st_mtime_ns}
    marker = {"schema": 1, "repo": "a/b", "revision": "main", "commit": "f" * 40, "files": [entry]}
    (directory / ".dgx-spark-snapshot.json").write_text(json.dumps(marker))
    return weights


def test_what_is_absent_is_a_fact(tmp_path: Path) -> None:
    found = look(params(tmp_path))
    assert found["model"] is None
    assert found["evidence"] is None
    assert found["ollama"]["running"] is False
    assert found["ports"] == {str(FREE_PORT): None}
    assert found["memory"]["total_gib"] > 0


def test_evidence_that_is_no_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{half")
    assert look(params(tmp_path, container="c"))["evidence"] is None
    (tmp_path / "c.json").write_text('{"verdict": "proven"}')
    assert look(params(tmp_path, container="c"))["evidence"] == {"verdict": "proven"}


def test_the_disk_is_that_of_the_nearest_parent_that_exists(tmp_path: Path) -> None:
    assert disk(str(tmp_path / "a/b/c"))["path"] == str(tmp_path)


def test_weights_as_they_were_verified_are_complete(tmp_path: Path) -> None:
    snapshot(tmp_path / "m")
    found = model(str(tmp_path / "m"))
    assert found is not None
    assert (found["complete"], found["problem"], found["bytes"], found["commit"]) == (True, None, 10, "f" * 40)


def test_a_draft_models_weights_are_looked_at_where_one_is_named(tmp_path: Path) -> None:
    snapshot(tmp_path / "draft")
    assert look(params(tmp_path))["draft"] is None
    found = look(params(tmp_path, draft_dir=str(tmp_path / "draft")))["draft"]
    assert (found["complete"], found["repo"]) == (True, "a/b")


def test_what_lies_complete_beside_the_weights_is_told(tmp_path: Path) -> None:
    snapshot(tmp_path / "srv/models/main")
    (snapshot(tmp_path / "srv/models/cut")).write_bytes(b"x")
    found = look(params(tmp_path))
    assert found["model"] is None
    assert found["snapshots"] == [{"path": str(tmp_path / "srv/models/main"), "repo": "a/b", "revision": "main", "commit": "f" * 40}]


def test_the_same_bytes_have_the_same_fingerprint(tmp_path: Path) -> None:
    snapshot(tmp_path / "m")
    snapshot(tmp_path / "n")
    one, other = model(str(tmp_path / "m")), model(str(tmp_path / "n"))
    assert one and other
    assert len(one["fingerprint"]) == 64
    assert one["fingerprint"] == other["fingerprint"]


def test_weights_that_were_cut_or_touched_or_lost_are_not(tmp_path: Path) -> None:
    weights = snapshot(tmp_path / "m")
    os.utime(weights, ns=(1, 1))
    assert "was changed after it had been verified" in str((model(str(tmp_path / "m")) or {})["problem"])
    weights.write_bytes(b"x")
    assert "is 1 bytes long instead of 10" in str((model(str(tmp_path / "m")) or {})["problem"])
    weights.unlink()
    assert "is missing" in str((model(str(tmp_path / "m")) or {})["problem"])


def test_a_download_that_never_ended_is_told_from_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    assert model(str(tmp_path / "m")) is None
    (tmp_path / "m" / ".dgx-spark-partial").mkdir()
    found = model(str(tmp_path / "m"))
    assert found is not None
    assert (found["complete"], found["repo"], found["bytes"]) == (False, None, 0)
    assert "a download was never completed here" in str(found["problem"])


# ---------------------------------------------------------------------------- boxes of scripts
Command = Callable[[str, str], None]
NVIDIA_SMI = "echo 'NVIDIA GB10, 12.1, 580.142, [N/A], GPU-5eed'"
# What docker 20.10 prints, shortened; with its options it is `docker info --format …`.
INFO = {
    "ServerVersion": "20.10.24+dfsg1",
    "Runtimes": {"runc": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime"}},
    "DefaultRuntime": "runc",
    "DockerRootDir": "/",
    "CgroupDriver": "systemd",
}
CONTAINER = {
    "Name": "/gemma4-nvfp4",
    "Id": "c" * 64,
    "Image": "sha256:1",
    "RestartCount": 2,
    "Config": {"Image": "vllm/vllm-openai:gemma4-cu130", "Labels": {"dgx.spark.spec_digest": "d1", "dgx.spark.vllm_version": "0.19.1"}},
    "State": {"Status": "created", "StartedAt": "0001-01-01T00:00:00Z", "ExitCode": 0},
    "NetworkSettings": {"Ports": {"8000/tcp": [{"HostIp": "0.0.0.0", "HostPort": "1"}]}},
}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Replaces every command of this machine; command(name, script) adds one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cat", "sh", "sleep", "echo"):
        (folder / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return add


def docker(command: Command, tmp_path: Path, containers: list[dict[str, Any]], info: dict[str, Any] | None = None) -> None:
    (tmp_path / "info.json").write_text(json.dumps(INFO if info is None else info))
    (tmp_path / "inspect.json").write_text(json.dumps(containers))
    ids = " ".join(container["Id"] for container in containers)
    answers = {"info": f"cat {tmp_path}/info.json", "version": "echo 1.41", "ps": f"echo {ids}", "inspect": f"cat {tmp_path}/inspect.json"}
    command("docker", 'case "$1" in\n' + "\n".join(f"{name}) {answer} ;;" for name, answer in answers.items()) + "\nesac")


def test_a_virgin_box_without_any_command(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_module(spark_info.main, capsys, **params(tmp_path))
    found = result["spark"]
    assert not result["changed"]
    assert (found["docker"]["running"], found["docker"]["error"]) == (False, "docker is not installed")
    assert (found["gpus"], found["gpu_error"]) == ([], "nvidia-smi is not installed")
    assert (found["docker_disk"], found["toolkit"], found["containers"]) == (None, {}, [])


def test_a_spark(command: Command, tmp_path: Path) -> None:
    command("nvidia-smi", NVIDIA_SMI)
    command("dpkg-query", "echo 'installed nvidia-container-toolkit 1.19.0-1'; echo 'no packages found matching x' >&2; exit 1")
    docker(command, tmp_path, [CONTAINER])
    started = time.monotonic()
    found = look(params(tmp_path, container="gemma4-nvfp4"))
    assert time.monotonic() - started < 5
    assert found["gpus"] == [
        {"name": "NVIDIA GB10", "compute_capability": "12.1", "driver_version": "580.142", "memory_mib": None, "uuid": "GPU-5eed"}
    ]
    assert found["gpu_error"] is None
    assert found["toolkit"] == {"nvidia-container-toolkit": "1.19.0-1"}
    assert found["docker"] == {
        "running": True,
        "error": None,
        "version": "20.10.24+dfsg1",
        "api_version": "1.41",
        "runtimes": ["nvidia", "runc"],
        "default_runtime": "runc",
        "root_dir": "/",
        "cgroup_driver": "systemd",
    }
    assert found["docker_disk"]["path"] == "/"
    (container,) = found["containers"]
    assert (container["state"], container["started_at"], container["restart_count"], container["spec_digest"]) == ("created", None, 2, "d1")
    # Docker may publish a port without a process that listens.
    assert found["ports"] == {"1": {"process": None, "pid": None, "container": "gemma4-nvfp4"}}


@pytest.mark.parametrize("hangs", ["info", "ps", "inspect"])
def test_what_hangs_is_a_fact(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: str) -> None:
    monkeypatch.setattr(spark_info, "COMMAND_S", 0.3)
    docker(command, tmp_path, [CONTAINER])
    script = (tmp_path / "bin" / "docker").read_text()
    (tmp_path / "bin" / "docker").write_text(script.replace("case", f'[ "$1" = {hangs} ] && exec sleep 30\ncase', 1))
    # Not only the command itself hangs, but what it started, with its output open.
    command("nvidia-smi", "sleep 30; exit 0")
    started = time.monotonic()
    found = look(params(tmp_path))
    assert time.monotonic() - started < 10
    assert found["gpu_error"] == "nvidia-smi did not answer within 0.3 s"
    assert found["containers"] == []
    if hangs == "info":
        assert (found["docker"]["running"], found["docker"]["error"]) == (False, "docker did not answer within 0.3 s")
    else:
        assert found["docker"]["running"]


def test_a_driver_and_a_docker_that_fail_tell_why(command: Command, tmp_path: Path) -> None:
    command("nvidia-smi", "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9")
    command("docker", "echo '{}'; echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1")
    found = look(params(tmp_path))
    assert "could not communicate with the NVIDIA driver" in found["gpu_error"]
    assert found["docker"]["error"].startswith("Cannot connect to the Docker daemon")


def test_a_command_that_cannot_be_run_is_a_fact(command: Command, tmp_path: Path) -> None:
    command("docker", "")
    (tmp_path / "bin" / "docker").write_bytes(b"\x7fELF of another machine")
    assert look(params(tmp_path))["docker"]["error"] == "docker cannot be run: Exec format error"


def test_who_listens_is_found(command: Command, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        holder = look(params(tmp_path, ports=[port]))["ports"][str(port)]
    assert (holder["pid"], holder["container"]) == (os.getpid(), None)
    assert holder["process"]


def test_an_ollama_that_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_info, "OLLAMA_S", 20)
    with SimOllama() as server:
        server.models.put("gemma4:26b", 17, 6)
        found = look(params(tmp_path, ollama_url=server.url))["ollama"]
        version = found.pop("version")
    assert found == {"present": True, "running": True, "models": [{"name": "gemma4:26b", "size": 17, "size_vram": 6}]}
    assert version.count(".") == 2


def test_something_else_on_ollamas_port_is_no_ollama(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_info, "OLLAMA_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert look(params(tmp_path, ollama_url=url))["ollama"]["running"] is False


def test_the_run_that_holds_the_box_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "run.json"
    monkeypatch.setattr(spark_info, "LOCK", str(record))
    assert spark_info.run_lock() is None
    record.write_text(Holder("2026-11-24T180000Z", "me@there", 0.0, "p").text())
    held = spark_info.run_lock()
    assert held is not None
    assert (held["run"], held["owner"]) == ("2026-11-24T180000Z", "me@there")
