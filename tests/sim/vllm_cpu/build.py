# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Build the image of the real vLLM for a CPU, and train the tiny model in a container of it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
WHEELS = FOLDER.parent / ".cache" / "wheels"
CONTEXT_FILES = ("Dockerfile", "requirements.txt", "prune.sh")
TORCH = "torch==2.13.0+cpu"
# The Python of Debian 12, which the base image is made of; the machine that builds may have another one.
PYTHON = "3.11"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
MARKER = "trained.json"


class BuildError(Exception):
    """The image or the model could not be made; the message names cause and remedy."""


def torch_wheel() -> Path:
    """The wheel of torch's CPU build, from where the user's pip looks, or from the index in SIM_TORCH_INDEX; kept for the next build.

    Raises BuildError when no index has it.
    """
    machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())
    version = TORCH.partition("==")[2]
    pattern = f"torch-{version}-*{machine}.whl"
    found = sorted(WHEELS.glob(pattern))
    if found:
        return found[0]
    index = os.environ.get("SIM_TORCH_INDEX", "")
    WHEELS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WHEELS) as new:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--progress-bar", "off", "--dest", new, "--only-binary=:all:"]
        command += ["--python-version", PYTHON, "--implementation", "cp", "--platform", f"manylinux_2_28_{machine}"]
        command += ["--extra-index-url", index] if index else []
        done = subprocess.run([*command, TORCH], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False)
        got = sorted(Path(new).glob(pattern))
        if done.returncode != 0 or not got:
            raise BuildError(
                f"pip finds no {TORCH} for {machine}: set SIM_TORCH_INDEX to PyTorch's CPU wheel index.\n{done.stdout.strip()[-800:]}"
            )
        return got[0].rename(WHEELS / got[0].name)


def ca_bundle() -> Path | None:
    """The certificates that this machine trusts, or None when it has no bundle."""
    named = [os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")]
    for path in [*named, ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt"]:
        if path and Path(path).is_file():
            return Path(path)
    return None


def index_url() -> str:
    """The package index that the user's pip asks instead of PyPI, or nothing."""
    for key in ("install.index-url", "global.index-url"):
        done = subprocess.run([sys.executable, "-m", "pip", "config", "get", key], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return os.environ.get("PIP_INDEX_URL", "")


def _run(command: Sequence[str], timeout: float) -> None:
    """Run a command whose output the user follows. Raises BuildError."""
    try:
        code = subprocess.run(command, timeout=timeout, env={**os.environ, "DOCKER_BUILDKIT": "0"}, check=False).returncode
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed: run `tests/sim/lab.py engine`") from error
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"`{' '.join(command[:3])} …` did not end within {timeout:.0f} s") from error
    if code != 0:
        raise BuildError(f"`{' '.join(command[:3])} …` failed with code {code}: its output above says why")


def build(base: str, tag: str) -> None:
    """Build the image `tag` on the image `base`. Raises BuildError."""
    wheel = torch_wheel()
    bundle = ca_bundle()
    if bundle is None:
        raise BuildError("this machine has no bundle of CA certificates: install ca-certificates, or name one in SSL_CERT_FILE")
    with tempfile.TemporaryDirectory(dir=WHEELS) as context:
        for name in CONTEXT_FILES:
            shutil.copy(FOLDER / name, context)
        shutil.copy(bundle, Path(context) / "ca-certificates.crt")
        (Path(context) / "wheels").mkdir()
        os.link(wheel, Path(context) / "wheels" / wheel.name)
        arguments = {"BASE": base, "INDEX": index_url()}
        arguments |= {name: os.environ[name] for name in PROXIES if os.environ.get(name)}
        command = ["docker", "build", "-t", tag, "--label", "dgx.spark.sim=image"]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        _run([*command, context], timeout=3600)


def _training_inputs() -> str:
    hasher = hashlib.sha256()
    for path in sorted(FOLDER.glob("train*")):
        if path.is_file():
            hasher.update(f"{path.name}\0".encode() + path.read_bytes())
    return hasher.hexdigest()


def train(image: str, out: Path) -> None:
    """Train the tiny Gemma 4 in a throw-away container of `image` into the folder `out`, unless it is there from the same program.

    The folder appears whole or not at all. Raises BuildError, also when the trained model does not answer what it was taught.
    """
    inputs = _training_inputs()
    marker = out.with_name(f".{out.name}.{MARKER}")
    try:
        if json.loads(marker.read_text())["inputs"] == inputs and (out / "model.safetensors").is_file():
            print(f"the tiny model in {out} is up to date", flush=True)
            return
    except (FileNotFoundError, KeyError, ValueError):
        pass
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        name = f"spark-sim-train-{uuid.uuid4().hex[:8]}"
        command = ["docker", "run", "--rm", "--name", name, "--label", "dgx.spark.sim=train", "--network", "none", "--shm-size", "1g"]
        command += ["--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{FOLDER}:/lab/sim/vllm_cpu:ro", "-v", f"{place}:/out"]
        for variable in ("HOME=/tmp", "PYTHONPATH=/lab", "PYTHONDONTWRITEBYTECODE=1"):
            command += ["-e", variable]
        command += ["--entrypoint", "python3", image, "-u", "-W", "ignore", "-m", "sim.vllm_cpu.train", "/out/model"]
        try:
            _run(command, timeout=3600)
        finally:
            subprocess.run(["docker", "rm", "-f", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
        shutil.rmtree(out, ignore_errors=True)
        (Path(place) / "model").rename(out)
    marker.write_text(json.dumps({"inputs": inputs}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build_command = commands.add_parser("build", help="build the image")
    build_command.add_argument("base")
    build_command.add_argument("tag")
    train_command = commands.add_parser("train", help="train the tiny model")
    train_command.add_argument("image")
    train_command.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "build":
            build(options.base, options.tag)
        else:
            train(options.image, options.out.resolve())
    except BuildError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
