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
  - The image must be on the box. This module pulls nothing.
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
"""

EXAMPLES = r"""
- name: Look into the image
  dgx.spark.vllm_image_info:
    image: vllm/vllm-openai:gemma4-cu130
  register: look

- name: Show its vLLM
  ansible.builtin.debug:
    msg: "vLLM {{ look.image.vllm_version }} in {{ look.image.vllm_path }}"
"""

RETURN = r"""
image:
  description: The image and what it contains.
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
      description: The digest it was pulled by, or V(null) when it came from no registry.
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
"""

from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, inspect


def main() -> None:
    module = AnsibleModule(argument_spec={"image": {"type": "str", "required": True}}, supports_check_mode=True)
    try:
        image = inspect(DockerEngine(), module.params["image"], keep=not module.check_mode)
    except (ImageError, EngineError, OSError) as exc:
        module.fail_json(msg=f"Cannot look into the image: {exc}", exception=exc)
    module.exit_json(changed=False, image=asdict(image))


if __name__ == "__main__":
    main()
