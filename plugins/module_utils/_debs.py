# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Packages with all that they depend on, as files; and a repository of such files on a box, beside the box's own sources.

The sources of a box stay as they are: what reads the repository names its configuration in APT_CONFIG.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from ansible_collections.dgx.spark.plugins.module_utils._atomic import replace_file
from ansible_collections.dgx.spark.plugins.module_utils._command import bounded
from ansible_collections.dgx.spark.plugins.module_utils._snapshot import digests

INDEX, CONFIG = "Packages", "apt.conf"
_UPDATE_S, _FETCH_S = 600, 1800


class DebsError(Exception):
    """The packages cannot be had or used. The message names cause and remedy."""


def architecture() -> str:
    """The architecture of this system's packages, by Debian's name. Raises DebsError."""
    return _run("dpkg", "--print-architecture", seconds=30).strip()


def collect(packages: Sequence[str], directory: str) -> None:
    """Fetch packages (C(name) or C(name=version)) and all that they depend on into a new directory, and write its index.

    The sources of this system are asked, and apt checks what comes by their signatures. It is resolved as if nothing was installed, so that
    the packages do for every system of the same release. Nothing is installed. Raises DebsError, OSError.
    """
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(os.path.join(directory, "partial"), mode=0o755)
    status = os.path.join(directory, "status")
    with open(status, "w", encoding="utf-8"):
        pass
    _run("apt-get", "update", "-q", seconds=_UPDATE_S)
    settings = {
        "Dir::State::status": status,
        "Dir::Cache::archives": directory,
        "Debug::NoLocking": "true",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    _run("apt-get", *options, "install", "-q", "-y", "--download-only", *packages, seconds=_FETCH_S)
    os.unlink(status)
    shutil.rmtree(os.path.join(directory, "partial"))
    entries = []
    for name in sorted(os.listdir(directory)):
        if not name.endswith(".deb"):
            os.unlink(os.path.join(directory, name))
            continue
        # apt writes the colon of an epoch as %3a, which it would read as a colon in an address.
        plain = name.replace("%3a", ".")
        path = os.path.join(directory, plain)
        os.rename(os.path.join(directory, name), path)
        control = _run("dpkg-deb", "--field", path, seconds=60).rstrip("\n")
        entries.append(f"{control}\nFilename: ./{plain}\nSize: {os.path.getsize(path)}\nSHA256: {digests(path, git=False).sha256}\n")
    replace_file(os.path.join(directory, INDEX), "\n".join(entries), mode=0o644)


def files(directory: str) -> dict[str, int]:
    """Name → bytes of all files of a repository; empty where there is none."""
    try:
        return {entry.name: entry.stat().st_size for entry in os.scandir(directory) if entry.name == INDEX or entry.name.endswith(".deb")}
    except FileNotFoundError:
        return {}


def lacking(directory: str, wanted: Mapping[str, str]) -> list[str]:
    """Which of the wanted files (name → sha256) are not there as they should be. Raises OSError."""
    return [name for name, sha256 in wanted.items() if not _is(os.path.join(directory, name), sha256)]


def _is(path: str, sha256: str) -> bool:
    return os.path.isfile(path) and digests(path, git=False).sha256 == sha256


def is_open(directory: str, wanted: Mapping[str, str]) -> bool:
    """Is the repository ready to install from, with these files and no others?"""
    return os.path.exists(os.path.join(directory, CONFIG)) and set(files(directory)) == set(wanted)


def open_repository(directory: str, wanted: Mapping[str, str]) -> None:
    """Make the files that came the repository of a configuration for apt; other packages are taken away. Raises DebsError, OSError."""
    for name in set(files(directory)) - set(wanted):
        os.unlink(os.path.join(directory, name))
    lists = os.path.join(directory, "lists")
    shutil.rmtree(lists, ignore_errors=True)
    os.makedirs(os.path.join(lists, "partial"), mode=0o755)
    # Each file was compared with its hash, so apt needs no signature.
    replace_file(os.path.join(directory, "sources.list"), f"deb [trusted=yes] file:{directory} ./\n", mode=0o644)
    settings = {
        "Dir::Etc::sourcelist": os.path.join(directory, "sources.list"),
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": lists,
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
    }
    # Under another name until it was tried.
    config = os.path.join(directory, CONFIG)
    replace_file(f"{config}.new", "".join(f'{key} "{value}";\n' for key, value in settings.items()), mode=0o644)
    _run("env", f"APT_CONFIG={config}.new", "apt-get", "update", "-q", seconds=_UPDATE_S)
    os.replace(f"{config}.new", config)


def _run(*argv: str, seconds: float) -> str:
    ran = bounded(argv, seconds)
    if not ran.ok:
        raise DebsError(f"{' '.join(argv)[:200]}: {' '.join(ran.error.split())[-600:]}")
    return ran.output
