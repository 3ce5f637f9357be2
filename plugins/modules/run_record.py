#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""The documentation of run_record, which is an action plugin: nothing of it runs on a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Keep what a run found in files on the controller
version_added: "0.1.0"
description:
  - Writes a report, evidence and the like into a directory on the controller, which it makes.
  - A file is replaced as a whole. It is a record and no state of a box, so nothing counts as changed.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
    details: Writes nothing in check mode.
  diff_mode:
    support: none
    details: A record has nothing to be compared with.
  idempotent:
    support: full
options:
  dir:
    description: The directory on the controller.
    type: path
    required: true
  files:
    description: Name of a file to its content. Text is written as it is, everything else as indented JSON with sorted keys.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep what was seen of all boxes
  run_once: true
  dgx.spark.run_record:
    dir: reports/2026-11-24T164112Z
    files:
      boxes.json: "{{ ansible_play_hosts | map('extract', hostvars, 'spark') }}"
"""

RETURN = r"""
paths:
  description: The files.
  type: list
  elements: str
  returned: success
"""
