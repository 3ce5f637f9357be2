# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the tests of vllm_container stand on: a model's directory, a spec like the article's, and the module on a fake engine."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _container_apply, _image
from ansible_collections.dgx.spark.plugins.module_utils._memory import Memory, MemoryShort
from ansible_collections.dgx.spark.plugins.module_utils._ports import PortTaken
from ansible_collections.dgx.spark.plugins.modules import vllm_container
from unit.fake_engine import FakeEngine
from unit.run_module import run_module

NAME = "gemma4-nvfp4"
PREVIOUS, NEXT, ROLLED_BACK = f"{NAME}-previous", f"{NAME}-next", f"{NAME}-rolled-back"
IMAGE = "vllm/vllm-openai:gemma4-cu130"
PATCH = b"# maps the scale keys\n"


def lay_model(directory: Path, commit: str = "c0ffee", patch: bytes = PATCH) -> Path:
    """A complete snapshot of the model, with its patch, as hf_snapshot leaves it."""
    directory.mkdir(parents=True, exist_ok=True)
    listed = []
    for name, data in {"config.json": b"{}", "gemma4_patched.py": patch}.items():
        (directory / name).write_bytes(data)
        mtime = (directory / name).stat().st_mtime_ns
        sha256 = hashlib.sha256(data).hexdigest()
        listed.append({"path": name, "size": len(data), "sha256": sha256, "git_sha1": None, "mtime_ns": mtime})
    marker = {"schema": 1, "repo": "bg-digitalservices/Gemma", "revision": "main", "commit": commit, "files": listed}
    (directory / ".dgx-spark-snapshot.json").write_text(json.dumps(marker))
    return directory


def article(model: Path) -> dict[str, Any]:
    """The module's option spec for the article's deployment."""
    return {
        "image": IMAGE,
        "vllm_versions": ">=0.19.0,<0.20",
        "model_path": str(model),
        "model_mount": "/models/gemma4",
        "served_model_name": "gemma-4-26b",
        "args": {
            "quantization": "modelopt",
            "kv-cache-dtype": "fp8",
            "max-model-len": 131072,
            "gpu-memory-utilization": 0.85,
            "moe-backend": "marlin",
            "reasoning-parser": "gemma4",
            "enable-auto-tool-choice": True,
            "tool-call-parser": "gemma4",
        },
        "patches": [{"file": "gemma4_patched.py", "module": "vllm.model_executor.models.gemma4", "vllm_versions": ">=0.19.0,<0.20"}],
    }


class SimulatedBox:
    """One box: an engine, a memory that is enough unless told otherwise, and the module."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.engine = FakeEngine()
        self.engine.add_image(IMAGE, "0.19.1.dev6+g6d4a8e6d2")
        self.model = lay_model(directory / "model")
        self.spec = article(self.model)
        self.memory = Memory(total=120.0, available=110.0)
        self.evidence = directory / "evidence"
        self.keys = directory / "keys"
        self.held_ports: dict[int, str] = {}
        self.waited: list[float] = []
        self._capsys = capsys
        monkeypatch.setattr(vllm_container, "DockerEngine", lambda: self.engine)
        monkeypatch.setattr(vllm_container, "LOCK_DIR", str(directory / "locks"))
        monkeypatch.setattr(_image, "CACHE_DIR", str(directory / "images"))
        monkeypatch.setattr(vllm_container, "Box", self._box)
        monkeypatch.setattr(_container_apply, "check_free", self._check_free)

    def _box(self, engine: Any, rules: Any, tell: Any) -> _container_apply.Box:
        return _container_apply.Box(engine, rules, memory=lambda: self.memory, wait=self._wait, tell=tell)

    def _wait(self, required: float, timeout: float) -> None:
        self.waited.append(required)
        if required > self.memory.available:
            raise MemoryShort(f"only {self.memory.available:.1f} GiB of memory are available after {timeout:g} s")

    def _check_free(self, bind: str, port: int) -> None:
        if port in self.held_ports:
            raise PortTaken(f"port {port} is held by {self.held_ports[port]}: stop it or choose another port")

    def run(self, state: str = "started", check: bool = False, spec: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        if state in ("started", "present"):
            options["spec"] = self.spec if spec is None else spec
        options |= {"name": NAME, "state": state, "evidence_dir": str(self.evidence), "api_key_dir": str(self.keys)}
        return run_module(vllm_container.main, self._capsys, check=check, **options)

    def prove(self, name: str = NAME, verdict: str = "proven") -> None:
        """Leave the evidence that the role proof leaves."""
        self.evidence.mkdir(exist_ok=True)
        document = {"container": {"id": self.engine.containers[name].id}, "verdict": verdict}
        (self.evidence / f"{NAME}.json").write_text(json.dumps(document))

    def key_of(self, name: str) -> str:
        """The key that a container finds in what it has mounted."""
        mounts = self.engine.creations[self.engine.containers[name].id].mounts
        directory = next(source for source, target in mounts if target == "/run/dgx-spark")
        return (Path(directory) / "api_key").read_text().strip()

    def with_args(self, **args: Any) -> dict[str, Any]:
        """The spec with some args changed; underscores stand for dashes."""
        spec = copy.deepcopy(self.spec)
        spec["args"] |= {name.replace("_", "-"): value for name, value in args.items()}
        return spec

    def forget_deeds(self) -> None:
        self.engine.deeds.clear()

    def serving_digest(self) -> str | None:
        """The spec of what runs under the name, or None when nothing does."""
        current = self.engine.containers.get(NAME)
        return current.labels.get("dgx.spark.spec_digest") if current and current.running else None
