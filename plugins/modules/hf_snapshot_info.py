#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""The documentation of hf_snapshot_info, which is an action plugin: nothing of it runs on a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot_info
short_description: Say what belongs to a revision of a Hugging Face repository
version_added: "0.1.0"
description:
  - Asks the Hub for the commit that a branch or tag stands for now, and for every file's size and hash, without fetching the files.
  - Runs on the controller, and asks once per run however many boxes there are.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - huggingface_hub >= 1.0 on the controller
notes:
  - The controller's own login (C(hf auth login), E(HF_TOKEN)) is not used; O(token) is.
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.hub
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
seealso:
  - module: dgx.spark.hf_snapshot
options:
  texts:
    description: Paths of small text files (at most 16 MiB) to read, such as a patch.
    type: list
    elements: str
    default: []
  since:
    description: A commit from earlier, of which O(texts) are read, too.
    type: str
"""

EXAMPLES = r"""
- name: See what main stands for now
  dgx.spark.hf_snapshot_info:
    repo: bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4
    texts: [gemma4_patched.py]
  register: upstream

- name: Show the commit
  ansible.builtin.debug:
    var: upstream.commit
"""

RETURN = r"""
commit:
  description: The commit that the revision stands for.
  type: str
  returned: success
revision:
  description: The revision that was asked.
  type: str
  returned: success
files:
  description: Every file.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The path in the repository.
      type: str
    size:
      description: Bytes.
      type: int
    sha256:
      description: The sha256 of a large file, V(null) for another.
      type: str
    git_sha1:
      description: Git's hash of a file that is not large, V(null) for another.
      type: str
texts:
  description: Each of O(texts) with its C(text) and its C(sha256).
  type: dict
  returned: success
texts_since:
  description: The same as of O(since). V(null) for a file that the Hub does not have at that commit, or no more.
  type: dict
  returned: success
"""
