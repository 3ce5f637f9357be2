# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Test stand-in for NVIDIA's hook: gives a container with --gpus the box's nvidia-smi.

The text in /etc/spark-sim/hook-error, if there is such a file, makes it fail as the real one does.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ERROR = Path("/etc/spark-sim/hook-error")

bundle = Path(json.load(sys.stdin)["bundle"])
root = Path(json.loads((bundle / "config.json").read_text())["root"]["path"])
if ERROR.exists():
    sys.exit(f"nvidia-container-cli: initialization error: {ERROR.read_text().strip() or 'nvml error: driver not loaded'}")
if sys.argv[-1] == "prestart":
    target = (root if root.is_absolute() else bundle / root) / "usr/bin/nvidia-smi"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2("/usr/bin/nvidia-smi", target)
