# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Run ansible-test on this checkout: `tools/run_ansible_test.py sanity [--test validate-modules plugins/modules/x.py]`.

ansible-test wants to stand in …/ansible_collections/dgx/spark and refuses a symlink to it, so it runs on a copy under .cache.
"""

from __future__ import annotations

import filecmp
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / ".cache" / "sanity" / "ansible_collections" / "dgx" / "spark"


def lay_copy() -> None:
    """Make the copy equal to the files of the checkout that git knows or would add; unchanged files keep their times."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    # The symlink in .collections leads back to the collection: in the copy it would be a loop.
    wanted = {name for name in listed if name and not name.startswith(".collections/") and (ROOT / name).is_file()}
    for name in sorted(wanted):
        source, target = ROOT / name, COPY / name
        if not target.exists() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for path in sorted(COPY.rglob("*"), reverse=True):
        name = str(path.relative_to(COPY))
        if name.startswith((".git/", "tests/output/")):
            continue
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and name not in wanted:
            path.unlink()
    # ansible-test asks git for the files. Without a repository of its own it would find the checkout's, which ignores .cache.
    if not (COPY / ".git").exists():
        subprocess.run(["git", "init", "-q"], cwd=COPY, check=True)
        (COPY / ".git" / "info" / "exclude").write_text("/tests/output/\n")


def place_get_pip() -> None:
    """Where ansible-test's own download of get-pip.py does not work, put ours where it looks first, under the name it looks for."""
    spec = importlib.util.find_spec("ansible_test")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("ansible-test is not installed: run `make venv`.")
    package = Path(spec.submodule_search_locations[0])
    pin = re.search(r"pip='([\d.]+)'", (package / "_internal" / "python_requirements.py").read_text())
    host = re.search(r"https://\S+/get-pip-", (package / "_util" / "target" / "setup" / "requirements.py").read_text())
    if not pin or not host:
        return  # Another ansible-core, with ways of its own.
    cached = Path.home() / ".ansible" / "test" / "cache" / f"get_pip_{pin[1].replace('.', '_')}.py"
    if cached.exists():
        return
    try:
        urllib.request.urlopen(f"{host[0]}{pin[1]}.py", timeout=10).close()
    except OSError as exc:
        print(f"ansible-test: its get-pip is out of reach ({exc}); the pip that comes with Python stands in.", flush=True)
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tools" / "get_pip.py", cached)


def main(arguments: list[str]) -> int:
    lay_copy()
    place_get_pip()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    subcommand, *rest = arguments or ["sanity"]
    # It takes en_US.UTF-8 or C.UTF-8, whatever the user's locale is.
    programs = Path(sys.executable).parent
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PATH": f"{programs}:{os.environ['PATH']}"}
    command = [str(programs / "ansible-test"), subcommand, "--venv", "--python", version, "--color", "no", *rest]
    return subprocess.run(command, cwd=COPY, env=environment, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
