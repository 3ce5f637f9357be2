#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Says what a bundle has, and whether it is whole. All of it is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_info
short_description: What a bundle has, and whether it is whole
version_added: "0.1.0"
description:
  - Looks at a directory that M(dgx.spark.bundle) made, on the controller. One that lacks a file, or has one of another size, is refused.
  - With O(recipes) it also reads every file that these need, and compares it with its sha256.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
seealso:
  - module: dgx.spark.bundle
options:
  path:
    description: The directory of the bundle.
    type: str
    required: true
  lock_file:
    description: A lock with which the bundle's must agree, in what both have. One that is not there is none.
    type: str
  recipes:
    description: The recipes whose files are read.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: See that the bundle is whole
  dgx.spark.bundle_info:
    path: /media/disk/bundle
    recipes: [gemma4-26b-a4b-nvfp4]
"""

RETURN = r"""
recipes:
  description: The recipes that the bundle has.
  type: list
  elements: str
  returned: success
machine:
  description: The architecture that it is for, by the kernel's name.
  type: str
  returned: success
  sample: aarch64
release:
  description: The distribution that its packages are for, and its version.
  type: str
  returned: success
  sample: ubuntu 24.04
size:
  description: Bytes of all files.
  type: int
  returned: success
fingerprint:
  description: The sha256 of its C(SHA256SUMS), which stands for all of its bytes.
  type: str
  returned: success
"""
