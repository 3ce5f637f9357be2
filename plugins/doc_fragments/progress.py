# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What every module that takes minutes has: a file that says what it is doing."""

from __future__ import annotations


class ModuleDocFragment:
    """The option, and how it becomes lines on the terminal."""

    DOCUMENTATION = r"""
options:
  progress_file:
    description:
      - A file into which the module writes in a few words what it is doing now.
      - The action plugin of the same name sets it, runs the module in the background of the box, and shows the words on the terminal every
        ten seconds, so that a lost connection of seconds does not lose the work. The variable C(spark_progress_seconds) changes how often,
        and V(0) shows nothing, which is the default where the environment has E(CI).
    type: path
notes:
  - A task with this module needs neither C(async) nor C(poll).
"""
