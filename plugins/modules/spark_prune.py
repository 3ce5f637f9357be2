#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Removes snapshots and images that nothing uses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: spark_prune
short_description: Remove snapshots and images that nothing uses
version_added: "0.1.0"
description:
  - Removes the snapshots of M(dgx.spark.hf_snapshot) that no container mounts, downloads that did not end, and images that no container is
    made of. A stopped container counts like a running one, so what a rollback needs stays.
  - In check mode it lists them with their sizes.
  - Of a snapshot, the files that M(dgx.spark.hf_snapshot) brought are removed; other files in its directory are left alone.
  - Of the images, those of the repositories of O(images) may go, and those that M(dgx.spark.vllm_image) or
    M(dgx.spark.vllm_image_info) looked into. Nobody else's are touched.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - python3-docker (the distribution's package)
notes:
  - Only Docker is asked what is used. A server that runs without it, and serves from a directory below O(models_root), is not seen.
    Name its directory in O(model_dirs).
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  models_root:
    description: The directory below which the snapshots lie.
    type: path
    required: true
  model_dirs:
    description: Snapshots that stay, whether a container uses them or not.
    type: list
    elements: path
    default: []
  images:
    description: Images that stay, by name. Others of the same repositories may go.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: See what is left over
  dgx.spark.spark_prune:
    models_root: /srv/models
    model_dirs: [/srv/models/gemma4-26b-a4b-nvfp4/main]
    images: ["vllm/vllm-openai:gemma4-cu130"]
  check_mode: true
  register: prune

- name: Remove it
  dgx.spark.spark_prune:
    models_root: /srv/models
    model_dirs: [/srv/models/gemma4-26b-a4b-nvfp4/main]
    images: ["vllm/vllm-openai:gemma4-cu130"]
"""

RETURN = r"""
leftovers:
  description: What may go; it is gone, but for check mode.
  type: list
  elements: dict
  returned: success
  contains:
    kind:
      description: V(snapshot) or V(image).
      type: str
    name:
      description: The directory, or the image's id.
      type: str
    size:
      description: Bytes on the disk. Layers that an image shares with another one are counted.
      type: int
    what:
      description: The repository and revision, or the image's names.
      type: str
    why:
      description: Why it may go, or stays.
      type: str
kept:
  description: What stays, and what needs it; as RV(leftovers).
  type: list
  elements: dict
  returned: success
size:
  description: Bytes of RV(leftovers), at most.
  type: int
  returned: success
summary:
  description: All of that, a line each, for a person to read.
  type: list
  elements: str
  returned: success
  sample: ["16.5 GB: snapshot /srv/models/gemma4/v1 (org/gemma4 at v1, commit 3f1c2d4e5a6b): nothing uses it"]
removed:
  description: The names of what was removed, also when something failed after that.
  type: list
  elements: str
  returned: always
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageMissing, find, forget, looked_into, repository
from ansible_collections.dgx.spark.plugins.module_utils._leftovers import Plan, find_snapshots, make_plan, remove_snapshot
from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._pace import amount


def look(engine: Engine, params: dict[str, Any]) -> Plan:
    """What may go. Raises EngineError, OSError."""
    return make_plan(
        snapshots=find_snapshots(params["models_root"]),
        images=engine.stored_images(),
        uses=engine.uses(),
        model_dirs=params["model_dirs"],
        asked=set(here(engine, params["images"])),
        repositories={repository(name) for name in params["images"]},
        looked_into=looked_into(),
    )


def here(engine: Engine, names: Sequence[str]) -> Iterator[str]:
    """The ids of the images of these names that are here, however they came. Raises EngineError."""
    for name in names:
        with contextlib.suppress(ImageMissing):
            yield find(engine, name)[0].id


def apply(engine: Engine, params: dict[str, Any], plan: Plan, removed: list[str]) -> None:
    """Remove it; C(removed) gets the names as it goes. Raises EngineError, SnapshotError, OSError."""
    images = {image.id: image for image in engine.stored_images()}
    for item in plan.remove:
        if item.kind == "snapshot":
            remove_snapshot(item.name, params["models_root"])
        elif item.name in images:
            engine.remove_image(images[item.name])
            forget(item.name)
        removed.append(item.name)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "models_root": {"type": "path", "required": True},
            "model_dirs": {"type": "list", "elements": "path", "default": []},
            "images": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    removed: list[str] = []
    try:
        engine = DockerEngine()
        plan = look(engine, module.params)
        if not module.check_mode:
            apply(engine, module.params, plan, removed)
    except (EngineError, SnapshotError, OSError) as exc:
        module.fail_json(msg=f"Cannot see to what is left over: {exc}", removed=removed, exception=exc)
    head = f"{amount(plan.size) if plan.remove else 'nothing'} {'may go' if module.check_mode else 'removed'}, {len(plan.keep)} stay"
    kept = [asdict(item) for item in plan.keep]
    leftovers = [asdict(item) for item in plan.remove]
    module.exit_json(
        changed=bool(plan.remove),
        leftovers=leftovers,
        kept=kept,
        size=plan.size,
        summary=[head, *(item.line() for item in plan.remove), *(f"stays, {item.line()}" for item in plan.keep)],
        removed=removed,
        diff={"before": {"leftovers": leftovers, "kept": kept}, "after": {"leftovers": [], "kept": kept}},
    )


if __name__ == "__main__":
    main()
