# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Packages as a repository of a box, with the real dpkg and apt; nothing is installed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils import _debs
from ansible_collections.dgx.spark.plugins.module_utils._debs import DebsError
from ansible_collections.dgx.spark.plugins.modules import bundle_packages
from unit.run_module import run_module

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="for Debian and its like")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that apt's own user may read, which pytest's may not."""
    path = Path(tempfile.mkdtemp(prefix="dgx-spark-debs-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def deb(folder: Path, name: str, version: str, depends: str = "") -> Path:
    """A package without content."""
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: made up\n"
    (root / "DEBIAN/control").write_text(control + (f"Depends: {depends}\n" if depends else ""))
    path = folder / f"{name}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", root, path], check=True, capture_output=True)
    shutil.rmtree(root)
    return path


@pytest.fixture
def collected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What apt would have fetched of `asked` and what it depends on."""
    directory, real = folder / "collected", _debs._run

    def run(*argv: str, seconds: float) -> str:
        if argv[0] != "apt-get":
            return real(*argv, seconds=seconds)
        if "install" in argv:
            assert f"Dir::State::status={directory / 'status'}" in argv  # resolved as if nothing was installed
            assert "--download-only" in argv
            assert argv[-1] == "asked=1:1.0-1"
            deb(directory, "asked", "1:1.0-1", "depended")
            deb(directory, "depended", "2")
        return ""

    monkeypatch.setattr(_debs, "_run", run)
    _debs.collect(["asked=1:1.0-1"], str(directory))
    monkeypatch.undo()
    return directory


def wanted(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def test_packages_are_collected_with_an_index_and_no_colon_in_a_name(collected: Path) -> None:
    assert sorted(wanted(collected)) == ["Packages", "asked_1.1.0-1_all.deb", "depended_2_all.deb"]
    index = (collected / "Packages").read_text()
    assert "Package: asked\n" in index
    assert f"Filename: ./asked_1.1.0-1_all.deb\nSize: {os.path.getsize(collected / 'asked_1.1.0-1_all.deb')}\nSHA256: " in index


def test_ladder(collected: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing required arguments: bundle" in run_module(bundle_packages.main, capsys)["msg"]
    there, files = folder / "there", wanted(collected)
    arguments: dict[str, Any] = {"bundle": "/media/disk/bundle", "path": str(there), "wanted": files}
    assert "call dgx.spark.bundle_packages as a task" in run_module(bundle_packages.main, capsys, bundle="b")["msg"]

    would = run_module(bundle_packages.main, capsys, check=True, **arguments)
    assert (would["changed"], would["apt_config"], there.exists()) == (True, "", False)

    asked = run_module(bundle_packages.main, capsys, **arguments)
    assert sorted(asked["needed"]) == sorted(files)
    for name, path in asked["needed"].items():
        shutil.copyfile(collected / name, path)
    made = run_module(bundle_packages.main, capsys, **arguments)
    assert (made["changed"], made["apt_config"], "needed" in made) == (True, f"{there}/apt.conf", False)
    assert made["packages"] == ["asked_1.1.0-1_all.deb", "depended_2_all.deb"]
    again = run_module(bundle_packages.main, capsys, **arguments)
    assert (again["changed"], again["apt_config"]) == (False, made["apt_config"])

    # What apt sees with this configuration is this repository and nothing else; without it, it does not see it.
    def seen(**environment: str) -> str:
        command = ["apt-cache", "policy", "asked", "aria2"]
        return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True).stdout

    policy = seen(APT_CONFIG=made["apt_config"])
    assert "Candidate: 1:1.0-1" in policy
    assert "http" not in policy
    assert "asked" not in seen(APT_CONFIG="")
    simulated = subprocess.run(
        ["apt-get", "install", "-s", "asked"],
        env={**os.environ, "APT_CONFIG": made["apt_config"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Inst depended (2 " in simulated.stdout

    # A file that went bad is asked for again, and one of an older bundle is taken away.
    (there / "depended_2_all.deb").write_bytes(b"bad")
    assert sorted(run_module(bundle_packages.main, capsys, **arguments)["needed"]) == ["depended_2_all.deb"]
    shutil.copyfile(collected / "depended_2_all.deb", there / "depended_2_all.deb")
    shutil.copyfile(collected / "depended_2_all.deb", there / "older_1_all.deb")
    cleaned = run_module(bundle_packages.main, capsys, **arguments)
    assert (cleaned["changed"], (there / "older_1_all.deb").exists()) == (True, False)
    assert not run_module(bundle_packages.main, capsys, **arguments)["changed"]


def test_what_apt_says_is_in_the_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_debs, "_FETCH_S", 60)
    with pytest.raises(DebsError, match="apt-get -o"):
        _debs._run("apt-get", "-o", f"Dir::State::status={folder}/none", "install", "-s", "no-such-package-anywhere", seconds=60)
