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
  - With O(share) one box of a play pulls it, or has it, and the others get it from there.
  - What is there is not pulled again, even if the registry has other bytes under the tag by now. A digest pins the bytes.
  - With O(bundle) the image comes from a bundle on the controller instead, and no registry is asked. Its archive is carried to the box over
    Ansible's own connection, goes on where an earlier run was interrupted, and is proven to be the digest's image before it is loaded. As
    Docker keeps no digest of a loaded image, it is called C(REPOSITORY:sha256-…) on the box. So is one that came from another box.
author:
  - The dgx.spark maintainers (@dgx-spark)
requirements:
  - python3-docker (the distribution's package)
  - aria2c on the box (the distribution's package aria2), to get it from another box; without it the box pulls
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
  - dgx.spark.peers
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
  size_gb:
    description:
      - What the image takes on Docker's disk, in GB (10⁹ bytes). Where that much is not free, nothing is pulled.
      - Layers that the box has already count, because only the pull tells which. 0 does not look.
    type: float
    default: 0
  bundle:
    description:
      - A directory on the controller that M(dgx.spark.bundle) made. O(image) is asked by the digest that a lock names, or by a name that
        the bundle has. Empty asks the registry.
    type: str
  share:
    description:
      - Of the boxes of a play that run this task for the same image, one pulls it, and the others get the archive of C(docker save) from it
        and from each other, by BitTorrent, without the layers that they have. A box that has the image already gives it instead. When no
        box lacks it, no archive is made.
      - Every box proves the archive before it loads it. It must be exactly the image of the digest that O(image) names. Without a digest
        that of the box that gives it counts for all of them, so that they have the same bytes whatever the tag means by then.
      - When the one that gives it fails, another takes its place. When that fails too, every box pulls for itself. So does one that does
        not reach the others, or that gets something else than the image, or that has no room for the archive.
      - What is given is not encrypted, and not compressed. The box that gives it listens on O(peer_ports), and gives to those alone that
        this task told where. It gets one more name for the image, C(REPOSITORY:sha256-…).
      - As many boxes share at a time as Ansible has forks. Check mode and O(bundle) do not share.
    type: bool
    default: false
  archive:
    description: For the module's action half, which carries the archive. Not for tasks.
    type: dict
  part:
    description: For the module's action half, which says what this box does in a fleet. Not for tasks.
    type: str
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

- name: Bring it to all boxes of the play, and from the registry once
  dgx.spark.vllm_image:
    image: vllm/vllm-openai:gemma4-cu130
    share: true

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
    - How many bytes came from the registry, compressed, from the bundle or from other boxes.
    - Layers that the box had already do not come again, except from a bundle.
  type: int
  returned: always
bytes_from_peers:
  description: How many of these came from other boxes of the play, not compressed.
  type: int
  returned: always
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._archive import ArchiveError
from ansible_collections.dgx.spark.plugins.module_utils._aria2 import Aria2Missing
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, ImageMissing, find, inspect, pinned, split_digest
from ansible_collections.dgx.spark.plugins.module_utils._image_share import OPTIONS, Offered, clear, give, take
from ansible_collections.dgx.spark.plugins.module_utils._load import Carried, load, prepare
from ansible_collections.dgx.spark.plugins.module_utils._manifest import SnapshotError
from ansible_collections.dgx.spark.plugins.module_utils._oci import ChainError
from ansible_collections.dgx.spark.plugins.module_utils._peer import PeersLost, Seeding
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._pull import Pull, explain
from ansible_collections.dgx.spark.plugins.module_utils._registry import RegistryError
from ansible_collections.dgx.spark.plugins.module_utils._room import too_little
from ansible_collections.dgx.spark.plugins.module_utils._seed import Seed, port_range
from ansible_collections.dgx.spark.plugins.module_utils._talk import Talk


def pull(engine: Engine, reference: str, size_gb: float, timeout: float, tell: Callable[[str], None]) -> int:
    """Pull, and return the bytes that came. Raises ImageError, EngineError, OSError."""
    if size_gb and (lack := too_little({engine.root(): round(size_gb * 1e9)})):
        raise ImageError(
            f"{reference} needs {lack}: make room there ('docker system df', playbooks/clean.yml), or correct what it takes"
            " (vllm_image_size_gb; 0 does not look). Nothing was pulled"
        )
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


def take_carried(engine: Engine, reference: str, carried: Carried, tell: Callable[[str], None], result: dict[str, Any]) -> bool:
    """Load an archive that is here. One that is not is asked of the action half, and False is returned. Raises ImageError."""
    if carried.have < carried.size:
        prepare(engine, carried)
        result["needed"] = {"path": carried.path, "have": carried.have}
        return False
    load(engine, split_digest(reference)[0], carried, tell)
    return True


def take_shared(engine: Engine, params: dict[str, Any], part: dict[str, Any], tell: Callable[[str], None], result: dict[str, Any]) -> bool:
    """Get it from the fleet. When that does not go well the action half is told, which finds another way, and False is returned."""

    def count(came: int) -> None:
        result["bytes_fetched"] = result["bytes_from_peers"] = came

    try:
        offered, seeding = Offered.read(part["about"], split_digest(params["image"])[1]), Seeding(part["follow"], params["peer_ports"])
        take(engine, params["image"], offered, seeding, params["timeout"], tell, count)
    except (PeersLost, SnapshotError, ImageError, EngineError, Aria2Missing, OSError) as exc:
        result |= {"changed": False, "lost": str(exc), "seed_gone": isinstance(exc, PeersLost) and exc.seed_gone}
        return False
    return True


def give_shared(
    engine: Engine, params: dict[str, Any], part: dict[str, Any], told: dict[str, Any], wanted: Callable[[], bool], result: dict[str, Any]
) -> None:
    """Give it to the fleet, until the action half says that it is enough. When that fails, this box has the image all the same."""
    name, digest = split_digest(params["image"])
    try:
        with Seed(part["seed"], port_range(params["peer_ports"]), params["peer_address"]) as seed:
            give(engine, name, digest or part["digest"], seed, params["timeout"], told, wanted, telling(params, told))
    except (SnapshotError, ImageError, ArchiveError, ChainError, RegistryError, EngineError, OSError) as exc:
        result["lost"] = str(exc)


def telling(params: dict[str, Any], told: dict[str, Any]) -> Callable[[str], None]:
    """What takes words about what goes on: for the terminal, and for the boxes that wait for this one."""
    progress = Progress(params["progress_file"])

    def tell(text: str) -> None:
        told["says"] = text
        progress(text)

    return tell


def bring(module: AnsibleModule, engine: Engine, part: dict[str, Any], told: dict[str, Any], result: dict[str, Any]) -> bool:
    """Get an image that lacks, by the way that is asked. False when it is not there yet. Raises ImageError, EngineError, OSError."""
    params = module.params
    tell = telling(params, told)
    if params["archive"]:
        return take_carried(engine, params["image"], Carried(**params["archive"]), tell, result)
    if part.get("look"):
        result |= {"changed": False, "needed": True}
        return False
    if part.get("follow"):
        return take_shared(engine, params, part, tell, result)
    result["bytes_fetched"] = pull(engine, params["image"], params["size_gb"], params["timeout"], tell)
    return True


def run(module: AnsibleModule, engine: Engine, part: dict[str, Any], told: dict[str, Any], result: dict[str, Any]) -> None:
    """Look, bring what lacks, look into it; fills C(result) as it goes."""
    reference = module.params["image"]
    if not module.check_mode:
        clear()
    before = ""
    try:
        before = find(engine, reference)[0].id
    except ImageMissing:
        result["changed"] = True
        if not module.check_mode and not bring(module, engine, part, told, result):
            return
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
            **OPTIONS,
            "archive": {"type": "dict"},
            "part": {"type": "str", "no_log": True},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "image": None, "bytes_fetched": 0, "bytes_from_peers": 0}
    part: dict[str, Any] = json.loads(module.params["part"] or "{}")
    told: dict[str, Any] = {}
    try:
        # In a fleet the controller wants to see that this lives.
        with Talk(module.params["progress_file"] if part else None, told) as talk:
            if part.get("seed"):
                give_shared(DockerEngine(), module.params, part, told, talk.wanted, result)
            else:
                run(module, DockerEngine(), part, told, result)
    except (ImageError, EngineError, OSError) as exc:
        module.fail_json(msg=f"Cannot bring the image: {exc}. Nothing that serves was touched", exception=exc, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
