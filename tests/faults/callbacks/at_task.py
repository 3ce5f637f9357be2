# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Runs a command when a task starts: what a test does to a run, or to its boxes, at exactly that point."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: at_task
type: aggregate
short_description: Runs a command when a task starts
description:
  - E(SIM_COMMAND) is run by a shell before the task whose name ends with E(SIM_AT_TASK), the first time, or the time that C(#2) behind the
    name says.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "at_task"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.name, _hash, times = os.environ["SIM_AT_TASK"].partition("#")
        self.left = int(times or 1)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if task.get_name().endswith(self.name):
            self.left -= 1
            if self.left == 0:
                # Not kept waiting for what it leaves in the background.
                subprocess.run(os.environ["SIM_COMMAND"], shell=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
