#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Makes a bundle of what a connected box has."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: One directory with all bytes of a deployment
version_added: "0.1.0"
description:
  - Collects on the controller what a box without a network needs for a recipe, and takes it from a connected box, which has the recipe's
    weights and images already (the roles C(model) and C(vllm) bring them). Its release and architecture must be those of the boxes that the
    bundle is for.
  - The weights are those that the lock names. The images are archives of C(docker save), each with the documents of its registry that
    lead from the digest to its content. Packages come with all that they depend on, as if nothing was installed.
  - When all is there, every file is read and compared with the lock, and C(SHA256SUMS) is written last. A directory without it is none.
  - What is there already is not fetched again. A file that was interrupted goes on. Packages that are there stay in their versions; remove
    the directory C(packages) to have newer ones.
  - A bundle may have several recipes of one lock. What belongs to no recipe of the lock any more is removed.
  - On the box, nothing that serves is touched. An image gets one more name, C(REPOSITORY:sha256-…).
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - python3-docker and apt on the box
notes:
  - The files of the weights are read by the user that Ansible connects as.
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
    details: Nothing is fetched, and the files that are there are not read.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: dgx.spark.bundle_info
options:
  path:
    description: The directory on the controller. It is made when it is not there.
    type: str
    required: true
  lock_file:
    description: The lock that says which bytes belong to the recipe, on the controller.
    type: str
    required: true
  recipe:
    description: The recipe, by its name in the lock.
    type: str
    required: true
  model_dir:
    description: The directory of the weights on the box.
    type: path
    required: true
  draft_dir:
    description: The directory of the draft model's weights on the box, where the recipe has one.
    type: path
  images:
    description: Further images, by name. The bundle has what the box has under that name.
    type: list
    elements: str
    default: []
  packages:
    description: The distribution's packages, C(name) or C(name=version).
    type: list
    elements: str
    default: []
  timeout:
    description: The number of seconds that the box may take for an archive or for the packages.
    type: int
    default: 7200
  part:
    description: For the module's action half, which asks for one part after the other. Not for tasks.
    type: dict
"""

EXAMPLES = r"""
- name: Make a bundle
  dgx.spark.bundle:
    path: /media/disk/bundle
    lock_file: "{{ inventory_dir }}/gemma4.lock.yml"
    recipe: gemma4-26b-a4b-nvfp4
    model_dir: /srv/models/gemma4-26b-a4b-nvfp4/41d2f0c5b6a7980e1f2d3c4b5a69788796a5b4c3
    images: ["ubuntu:24.04"]
    packages: [python3-docker, nvidia-container-toolkit=1.19.0-1]
"""

RETURN = r"""
path:
  description: The directory of the bundle.
  type: str
  returned: success
size:
  description: Bytes of all files, or of those that are known in check mode.
  type: int
  returned: success
reasons:
  description: Why something was done, one sentence each; empty when nothing was.
  type: list
  elements: str
  returned: success
fingerprint:
  description: The sha256 of C(SHA256SUMS), which stands for all bytes; empty in check mode when something would change.
  type: str
  returned: success
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils import _debs
from ansible_collections.dgx.spark.plugins.module_utils._box import operating_system
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, find, split_digest
from ansible_collections.dgx.spark.plugins.module_utils._load import DIRECTORY
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._registry import RegistryError
from ansible_collections.dgx.spark.plugins.module_utils._save import documents, save

PACKAGES = os.path.join(DIRECTORY, "packages")


def look(engine: Engine, images: list[str]) -> dict[str, Any]:
    """What the box is, and the digest and size of each image. Raises ImageError, EngineError, OSError."""
    with open("/etc/os-release", encoding="utf-8") as file:
        system = operating_system(file.read(), "")
    found = {}
    for reference in images:
        local, _name = find(engine, reference)
        digest = split_digest(reference)[1] or next(iter(local.digests), None)
        if digest is None:
            raise ImageError(f"image {reference} came from no registry, so nothing names its bytes: pull it on the box")
        found[reference] = {"digest": digest, "size": engine.size(local.id)}
    return {"machine": os.uname().machine, "release": f"{system['id']} {system['version_id']}", "images": found}


def archive(engine: Engine, params: dict[str, Any], part: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Write an image's archive, if it is not there yet: C(path), C(size). Raises ImageError, EngineError, OSError."""
    digest = part["digest"]
    path = os.path.join(DIRECTORY, f"{hashlib.sha256(digest.encode()).hexdigest()[:16]}.tar")
    if not os.path.exists(path):
        os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
        with open(f"{path}.new", "wb") as stream:
            save(engine, part["image"], digest, stream, DIRECTORY, tell, params["timeout"])
        os.chmod(f"{path}.new", 0o644)
        os.replace(f"{path}.new", path)
    return {"path": path, "size": os.path.getsize(path)}


def packages(asked: list[str], tell: Callable[[str], None]) -> dict[str, Any]:
    """Collect packages: their directory, and name → bytes of its files. Raises DebsError, OSError."""
    tell("collecting packages")
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)
    _debs.collect(asked, PACKAGES)
    return {"directory": PACKAGES, "files": _debs.files(PACKAGES)}


def run(part: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One part of the work. Raises what the parts raise."""
    tell = Progress(params["progress_file"])
    if part["name"] == "packages":
        return packages(params["packages"], tell)
    if part["name"] == "clean":
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(DIRECTORY)
        return {}
    engine = DockerEngine()
    if part["name"] == "look":
        return look(engine, part["images"])
    if part["name"] == "documents":
        return {"documents": documents(engine, part["image"], part["digest"])}
    return archive(engine, params, part, tell)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "lock_file": {"type": "str", "required": True},
            "recipe": {"type": "str", "required": True},
            "model_dir": {"type": "path", "required": True},
            "draft_dir": {"type": "path"},
            "images": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 7200},
            "part": {"type": "dict"},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        if params["part"] is None:
            raise ImageError("nothing says what to do: call dgx.spark.bundle as a task, which asks for one part after the other")
        found = run(params["part"], params)
    except (ImageError, ChainError, RegistryError, EngineError, _debs.DebsError, OSError) as exc:
        module.fail_json(msg=f"Cannot make the bundle: {exc}. Nothing that serves was touched", exception=exc)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
