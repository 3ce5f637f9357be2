# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for the get-pip.py that ansible-test downloads, for machines that cannot reach its host.

ansible-test runs it in a virtual environment without pip, as `get_pip.py --disable-pip-version-check pip==24.2 --no-setuptools --no-wheel`.
The pip that comes with Python installs the pip that is asked for.
"""

from __future__ import annotations

import ensurepip
import sys
import sysconfig
from pathlib import Path


def bundled_pip() -> Path:
    """Where the wheel lies: in _bundled, on Debian in ensurepip itself or in the directory that its Python was built with."""
    home = Path(ensurepip.__file__).parent
    system = sysconfig.get_config_var("WHEEL_PKG_DIR")
    for directory in (home / "_bundled", home, *([Path(system)] if system else [])):
        for wheel in sorted(directory.glob("pip-*.whl")):
            return wheel
    sys.exit(f"No pip wheel beside {home}: install python3-venv, or let this machine reach ansible-test's own download.")


sys.path.insert(0, str(bundled_pip()))

from pip._internal.cli.main import main  # noqa: E402

sys.exit(main(["install", *(argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel"))]))
