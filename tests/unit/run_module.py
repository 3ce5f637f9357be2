# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Runs a module's main() in this process, with arguments as Ansible would hand them over."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args


def run_module(main: Any, capsys: pytest.CaptureFixture[str], check: bool = False, **arguments: Any) -> dict[str, Any]:
    """The module's result; a failed one has C(failed)."""
    capsys.readouterr()
    warnings._global_warnings.clear()  # they are meant for one module per process
    # What the controller's half imports makes this process a controller, and a module's is none.
    module = patch.object(_internal, "is_controller", False)
    with module, patch_module_args({**arguments, "_ansible_check_mode": check, "_ansible_diff": True}), pytest.raises(SystemExit):
        main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result
