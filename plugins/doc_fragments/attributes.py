# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What every module of the collection says about itself."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes; a module adds C(support) and, where it is not full, C(details)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return what would change without changing it.
  diff_mode:
    description: Returns details on what has changed, or would change in check mode, in diff mode.
  idempotent:
    description: Run again with the same options and nothing changed in between, it changes nothing.
"""

    ACTIONGROUP_SPARK = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/dgx.spark.spark) in C(module_defaults) to set options for this module.
    support: full
    membership:
      - dgx.spark.spark
"""
