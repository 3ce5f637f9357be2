# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Images of a few dozen MB that need no registry: the Python that runs the tests, and a vllm that only listens on its port."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker

REPOSITORY = "dgx-spark-test/vllm"
SITE = "/opt/site"
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "__pycache__"}

# What stands in for `vllm serve`: answers with its own argv, and ends when it is asked to.
SERVE = b"""
import http.server, json, os, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"argv": sys.argv[1:], "key": os.environ.get("VLLM_API_KEY")}).encode()
        self.send_response(200); self.end_headers(); self.wfile.write(body)
signal.signal(signal.SIGTERM, lambda *signal: sys.exit(0))
http.server.HTTPServer(("", int(sys.argv[sys.argv.index("--port") + 1])), Answer).serve_forever()
"""


def _libraries(binary: Path) -> Iterator[Path]:
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        words = line.replace("=>", " ").split()
        yield from (Path(word) for word in words if word.startswith("/"))


def _python_files() -> Iterator[Path]:
    """The interpreter without what is installed in it, and the libraries it is linked with."""
    executable = Path(sys.executable).resolve()
    binaries = [executable]
    yield executable
    for folder, folders, names in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        for name in names:
            path = Path(folder, name)
            if path.suffix == ".so":
                binaries.append(path)
            yield path
    libraries = {library for binary in binaries for library in _libraries(binary)}
    yield from sorted(libraries)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def build_base(client: docker.DockerClient) -> str:
    """An image with python3 and nothing else. Returns its name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for path in dict.fromkeys(_python_files()):
            tar.add(path, arcname=str(path).lstrip("/"))
        link = tarfile.TarInfo("usr/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(Path(sys.executable).resolve())
        tar.addfile(link)
        _add(tar, "/serve.py", SERVE)
    client.api.import_image_from_data(buffer.getvalue(), repository=REPOSITORY, tag="python")
    return f"{REPOSITORY}:python"


def build_vllm(client: docker.DockerClient, base: str, tag: str, version: str) -> str:
    """An image that contains a vllm of this version. A directory lies where `vllm.folder` would have its file. Returns its name."""
    name = f"{REPOSITORY}:{tag}"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        _add(tar, f"site/vllm-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n".encode())
        _add(tar, "site/vllm/__init__.py", b"raise SystemExit('imported')\n")
        _add(tar, "site/vllm/model_executor/models/gemma4.py", b"# stock\n")
        _add(tar, "site/vllm/folder.py/x", b"")
        lines = [f"FROM {base}", f"COPY site {SITE}", f"ENV PYTHONPATH={SITE}", 'ENTRYPOINT ["python3", "-u", "/serve.py"]']
        _add(tar, "Dockerfile", "\n".join(lines).encode())
    context.seek(0)
    client.images.build(fileobj=context, custom_context=True, tag=name, rm=True)
    return name
