#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""The documentation of recipe_info, which is an action plugin: nothing of it runs on a box."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recipe_info
short_description: A recipe, checked and completed
version_added: "0.1.0"
description:
  - Finds the file of a recipe on the controller, checks every key against the schema and fills in what was left out. Its values may be
    templates.
  - Fails with all problems at once, each naming the key and, where one is near, the key that was probably meant.
  - With a lock, the recipe names bytes. The image has its digest, the model's revision is a commit, and every patch has its sha256. What
    contradicts the lock is refused.
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
  - module: dgx.spark.bundle_info
options:
  name:
    description: The recipe's name, which is the name of its file without C(.yml).
    type: str
    required: true
  dirs:
    description: Directories with recipes. The first one that has the file gives it.
    type: list
    elements: str
    required: true
  models_root:
    description: The directory on a box under which models are stored.
    type: str
    required: true
  engine:
    description: The engine that the recipe must be for. One for the other engine is refused.
    type: str
    choices: [vllm, ollama]
    default: vllm
  overrides:
    description: What is wanted instead, with the recipe's own keys. A V(null) in it says nothing.
    type: dict
    default: {}
  lock_file:
    description: A lock, as C(playbooks/lock.yml) writes it. Empty, or a file that is not there, is none.
    type: str
    default: ""
  toolkit_version:
    description: The version of NVIDIA's container toolkit that is asked for, of which a lock must not have another. Empty takes the lock's.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Load a recipe of one's own
  dgx.spark.recipe_info:
    name: mine
    dirs: ["{{ inventory_dir }}/recipes"]
    models_root: /srv/models
  register: found
"""

RETURN = r"""
recipe:
  description:
    - The recipe with every default filled in.
    - One for vLLM has C(model.path) too, where its weights lie on a box, and C(lock), which is empty without a lock. With one C(lock.model)
      and C(lock.draft) are what the snapshots must be, and C(lock.toolkit) has the versions of NVIDIA's packages.
  type: dict
  returned: success
"""
