# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Make a signed apt repository with stand-ins of NVIDIA's Container Toolkit, laid out as nvidia.github.io/libnvidia-container.

Called while the service image is built: `packages.py SOURCES WWW`, with a signing key in GNUPGHOME.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

VERSIONS = ("1.18.1-1", "1.19.0-1", "1.19.1-1")


@dataclass(frozen=True)
class Package:
    """A binary package: what it needs (with {v} for its version) and which files it brings (path on the box → source)."""

    name: str
    section: str
    depends: str
    files: dict[str, str]
    summary: str


PACKAGES = (
    Package("libnvidia-container1", "libs", "", {}, "NVIDIA container runtime library"),
    Package(
        "libnvidia-container-tools",
        "utils",
        "libnvidia-container1 (>= {v})",
        {"usr/bin/nvidia-container-cli": "nvidia-container-cli"},
        "NVIDIA container runtime library (command-line tools)",
    ),
    Package(
        "nvidia-container-toolkit-base",
        "utils",
        "",
        {"usr/bin/nvidia-ctk": "nvidia-ctk.py", "usr/bin/nvidia-container-runtime": "nvidia-container-runtime"},
        "NVIDIA Container Toolkit Base",
    ),
    Package(
        "nvidia-container-toolkit",
        "utils",
        "nvidia-container-toolkit-base (= {v}), libnvidia-container-tools (>= {v}), python3",
        {"usr/bin/nvidia-container-runtime-hook": "nvidia-container-runtime-hook.py"},
        "NVIDIA Container toolkit",
    ),
)


def run(*argv: str, cwd: Path | None = None) -> str:
    """A command's standard output; raises CalledProcessError."""
    return subprocess.run(argv, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE).stdout


def build(package: Package, version: str, architecture: str, sources: Path, repository: Path) -> None:
    """Write one .deb to the repository."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        root.chmod(0o755)
        for path, source in package.files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shebang = "#!/usr/bin/python3\n" if source.endswith(".py") else ""
            target.write_text(shebang + (sources / source).read_text().replace("@VERSION@", version.split("-")[0]))
            target.chmod(0o755)
        control = {
            "Package": package.name,
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "The dgx.spark maintainers <lab@spark-sim>",
            "Section": package.section,
            "Priority": "optional",
            "Depends": package.depends.format(v=version),
            "Description": f"{package.summary}\n Stand-in for tests: it has nothing of NVIDIA's in it.",
        }
        (root / "DEBIAN").mkdir()
        (root / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items() if value))
        run("dpkg-deb", "--root-owner-group", "-b", str(root), str(repository / f"{package.name}_{version}_{architecture}.deb"))


def main() -> None:
    """Make the repository."""
    sources, www = Path(sys.argv[1]), Path(sys.argv[2])
    architecture = run("dpkg", "--print-architecture").strip()
    top = www / "libnvidia-container"
    repository = top / "stable/deb" / architecture
    repository.mkdir(parents=True)
    for version in VERSIONS:
        for package in PACKAGES:
            build(package, version, architecture, sources, repository)
    index = run("apt-ftparchive", "packages", ".", cwd=repository)
    (repository / "Packages").write_text(index)
    (repository / "Packages.gz").write_bytes(gzip.compress(index.encode(), mtime=0))
    release = run("apt-ftparchive", "-o", "APT::FTPArchive::Release::Suite=stable", "release", ".", cwd=repository)
    (repository / "Release").write_text(release)
    run("gpg", "-q", "--batch", "--clearsign", "-o", "InRelease", "Release", cwd=repository)
    run("gpg", "-q", "--batch", "-abs", "-o", "Release.gpg", "Release", cwd=repository)
    (top / "gpgkey").write_text(run("gpg", "--armor", "--export"))
    (top / "stable/deb/nvidia-container-toolkit.list").write_text("deb https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH) /\n")
    shutil.rmtree(sources)


if __name__ == "__main__":
    main()
