#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Says which vLLM an image contains."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_image_info
short_description: Say which vLLM a local image contains
version_added: "0.1.0"
description:
  - Reads vLLM's version and where it is installed from the image itself, because a tag does not tell.
    C(vllm/vllm-openai:gemma4) and C(vllm/vllm-openai:gemma4-cu130) contain different versions.
  - It asks the image's own Python in a throw-away container without network and GPU, and without importing vLLM. The answer is kept per
    image id in C(/var/lib/dgx-spark/images), so a second look starts no container.
  - The image must be on the box, unless O(registry=true). This module pulls nothing.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - python3-docker (the distribution's package)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
    details: An image that was not looked into before is looked into, in a throw-away container. The answer is not kept.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  image:
    description: The image's name, its name with a digest (C(NAME@sha256:…), checked against what is on the box), or its id.
    type: str
    required: true
  registry:
    description:
      - Ask also what the registry has under this name now. The box's own engine asks, as it would for a pull, through its mirrors and with
        its login. An image that is not on the box is no failure then, and neither is a registry that does not answer.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Look into the image
  dgx.spark.vllm_image_info:
    image: vllm/vllm-openai:gemma4-cu130
  register: look

- name: Show its vLLM
  ansible.builtin.debug:
    msg: "vLLM {{ look.image.vllm_version }} in {{ look.image.vllm_path }}"

- name: See whether the tag was pushed again
  dgx.spark.vllm_image_info:
    image: vllm/vllm-openai:gemma4-cu130
    registry: true
  register: look
  failed_when: look.registry.digest != look.image.digest
"""

RETURN = r"""
image:
  description: The image and what it contains. V(null) when it is not on the box and O(registry=true).
  type: dict
  returned: success
  contains:
    name:
      description: The name that was asked, without its digest.
      type: str
      sample: vllm/vllm-openai:gemma4-cu130
    reference:
      description: A name by which Docker finds these very bytes.
      type: str
      sample: vllm/vllm-openai:gemma4-cu130
    id:
      description: Docker's id of the image.
      type: str
    digest:
      description: The digest it was pulled by, or that its bundle was proven to have; V(null) when there is none.
      type: str
    architecture:
      description: The architecture by Docker's name.
      type: str
      sample: arm64
    vllm_version:
      description: vLLM's version, or V(null) when the image contains no vLLM.
      type: str
      sample: 0.19.1.dev6+g6d4a8e6d2
    vllm_path:
      description: The directory of the package, or V(null).
      type: str
      sample: /usr/local/lib/python3.12/dist-packages/vllm
    python:
      description: The version of the image's Python, or V(null) when it has none.
      type: str
      sample: 3.12.11
    entrypoint:
      description: What a container of it runs, before its own arguments.
      type: list
      elements: str
      sample: [vllm, serve]
registry:
  description: What the registry has under this name now.
  type: dict
  returned: when O(registry=true)
  contains:
    digest:
      description: The digest that a pull would bring, V(null) when the registry was not reached.
      type: str
    architectures:
      description: The architectures that it is for, by Docker's names.
      type: list
      elements: str
    error:
      description: Why the registry could not be asked, V(null) when it could.
      type: str
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, ImageMissing, inspect, split_digest


def look(engine: Engine, image: str, registry: bool, keep: bool) -> dict[str, Any]:
    """What the module returns. Raises ImageError, EngineError, OSError."""
    found: dict[str, Any] = {"registry": in_registry(engine, image)} if registry else {}
    try:
        return {"image": asdict(inspect(engine, image, keep=keep)), **found}
    except ImageMissing:
        if not registry:
            raise
        return {"image": None, **found}


def in_registry(engine: Engine, image: str) -> dict[str, Any]:
    try:
        return {**asdict(engine.registry_image(split_digest(image)[0])), "error": None}
    except EngineError as exc:
        return {"digest": None, "architectures": [], "error": str(exc)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={"image": {"type": "str", "required": True}, "registry": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    params = module.params
    try:
        found = look(DockerEngine(), params["image"], params["registry"], keep=not module.check_mode)
    except (ImageError, EngineError, OSError) as exc:
        module.fail_json(msg=f"Cannot look into the image: {exc}", exception=exc)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
