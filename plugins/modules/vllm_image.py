#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Brings an image to the box and says which vLLM it contains."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image
short_description: Bring an image to the box and say which vLLM it contains
version_added: "0.1.0"
description:
  - Pulls an image that the box does not have, shows how far it is, and looks into it as M(dgx.spark.vllm_image_info) does.
  - What is there is not pulled again, even if the registry has other bytes under the tag by now. A digest pins the bytes.
  - With O(bundle) the image comes from a bundle on the controller instead, and no registry is asked. Its archive is carried to the box over
    Ansible's own connection, goes on where an earlier run was interrupted, and is proven to be the digest's image before it is loaded. As
    Docker keeps no digest of a loaded image, it is called C(REPOSITORY:sha256-…) on the box.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - python3-docker (the distribution's package)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
    details: Nothing is pulled, so RV(image) is null where the image is not on the box yet.
  diff_mode:
    support: full
  idempotent:
    support: full
seealso:
  - module: dgx.spark.vllm_image_info
options:
  image:
    description: The image's name, with a tag, a digest (C(NAME@sha256:…)) or both; then the digest counts.
    type: str
    required: true
  timeout:
    description:
      - The number of seconds that a pull may take. One of which nothing comes for two minutes ends at once.
    type: int
    default: 7200
  bundle:
    description:
      - A directory on the controller that M(dgx.spark.bundle) made. O(image) is asked by the digest that a lock names, or by a name that
        the bundle has. Empty asks the registry.
    type: str
  archive:
    description: For the module's action half, which carries the archive. Not for tasks.
    type: dict
"""

EXAMPLES = r"""
- name: Bring the image
  dgx.spark.vllm_image:
    image: vllm/vllm-openai:gemma4-cu130
  register: brought

- name: Bring it from a bundle
  dgx.spark.vllm_image:
    image: "vllm/vllm-openai:gemma4-cu130@{{ digest }}"
    bundle: /media/disk/bundle

- name: Exactly these bytes
  dgx.spark.vllm_image:
    image: vllm/vllm-openai@sha256:3d4b5a6c7e8f90123d4b5a6c7e8f90123d4b5a6c7e8f90123d4b5a6c7e8f9012
"""

RETURN = r"""
image:
  description: The image and what it contains, as M(dgx.spark.vllm_image_info) returns it.
  type: dict
  returned: success
bytes_fetched:
  description:
    - How many bytes came from the registry, compressed, or from the bundle. Layers that the box had already are not fetched.
  type: int
  returned: always
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, ImageMissing, find, inspect, pinned, split_digest
from ansible_collections.dgx.spark.plugins.module_utils._load import Carried, load, prepare
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._pull import Pull, explain


def pull(engine: Engine, reference: str, timeout: float, tell: Callable[[str], None]) -> int:
    """Pull, and return the bytes that came. Raises ImageError."""
    began, state = time.monotonic(), Pull()
    try:
        for event in engine.pull(pinned(reference)):
            state.take(event)
            seconds = time.monotonic() - began
            if state.error:
                raise ImageError(f"{reference} was not pulled: {explain(state.error)}{instead(engine, reference)}")
            if seconds > timeout:
                raise ImageError(f"{reference} was not pulled within {timeout:g} s: {state.describe(seconds)}; layers that came are kept")
            tell(f"pulling {reference}: {state.describe(seconds)}")
    except EngineError as exc:  # an engine may refuse before the first event
        raise ImageError(f"{reference} was not pulled: {exc}{instead(engine, reference)}") from exc
    return state.fetched


def instead(engine: Engine, reference: str) -> str:
    """What the registry has under the tag now, beside a digest that it does not give; empty when it does not say."""
    name, digest = split_digest(reference)
    if digest is None:
        return ""
    try:
        return f". Under {name} the registry has {engine.registry_image(name).digest} now"
    except EngineError:
        return ""


def take(engine: Engine, reference: str, carried: Carried, tell: Callable[[str], None], result: dict[str, Any]) -> bool:
    """Load an archive that is here. One that is not is asked of the action half, and False is returned. Raises ImageError."""
    if carried.have < carried.size:
        prepare(engine, carried)
        result["needed"] = {"path": carried.path, "have": carried.have}
        return False
    load(engine, split_digest(reference)[0], carried, tell)
    return True


def run(module: AnsibleModule, engine: Engine, result: dict[str, Any]) -> None:
    """Look, pull what lacks, look into it; fills C(result) as it goes."""
    params = module.params
    reference = params["image"]
    before = ""
    try:
        before = find(engine, reference)[0].id
    except ImageMissing:
        result["changed"] = True
        if params["archive"]:
            if not module.check_mode and not take(
                engine, reference, Carried(**params["archive"]), Progress(params["progress_file"]), result
            ):
                return
        elif not module.check_mode:
            result["bytes_fetched"] = pull(engine, reference, params["timeout"], Progress(params["progress_file"]))
    there = not (result["changed"] and module.check_mode)
    if there:
        result["image"] = asdict(inspect(engine, reference, keep=not module.check_mode))
    after = result["image"]["id"] if there else f"{reference} as the registry has it"
    result["diff"] = {
        "before": f"{before}\n" if before else "",
        "after": f"{after}\n",
        "before_header": reference,
        "after_header": reference,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 7200},
            "bundle": {"type": "str"},
            "archive": {"type": "dict"},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "image": None, "bytes_fetched": 0}
    try:
        run(module, DockerEngine(), result)
    except (ImageError, EngineError, OSError) as exc:
        module.fail_json(msg=f"Cannot bring the image: {exc}. Nothing that serves was touched", exception=exc, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
