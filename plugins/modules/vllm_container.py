#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Keeps one vLLM container as its spec says, and the one before it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_container
short_description: Serve a model with vLLM in a container, with a way back
version_added: "0.1.0"
description:
  - Compares the container called O(name) with O(spec), says what differs and why something is done, and does it.
  - A container is compared by what it was made from, down to the bytes. The image's id, the commits of the model and of its draft model,
    and each patch's sha256 are in its label C(dgx.spark.spec), with every option. Environment values and the API key are in it as salted
    hashes.
  - A changed spec swaps containers. The new one is created as C(NAME-next) before the old one stops, so a bad option fails while the old
    one serves. When the new one has started, the old one becomes C(NAME-previous), stopped, and the new one becomes C(NAME).
    When it does not start, or the memory does not come back, the old one is started again and the module fails.
  - Whoever is interrupted runs it again. Half a swap is finished, or taken back, before anything else. A module that still works there,
    because only its controller was killed, is waited for.
  - Started means that Docker has started it. Use M(dgx.spark.vllm_startup_log) and M(dgx.spark.openai_probe) to know that it serves.
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
    details:
      - An image, a model or a patch that is not on the box yet is no failure. RV(missing) lists it.
      - An image that was not looked into before is looked into, in a throw-away container.
      - A taken port or too little memory is a warning.
  diff_mode:
    support: full
    details: Of environment values and the API key it only shows that they are set.
  idempotent:
    support: full
notes:
  - The values of O(spec.env) are shown where Ansible shows the arguments of a task (C(-vvv)). Give the API key by O(api_key).
  - A container of that name that this module did not make is kept as C(NAME-previous) like any other. When it comes back it gets the
    restart policy V(unless-stopped).
options:
  name:
    description:
      - The container's name. C(NAME-next), C(NAME-previous) and C(NAME-rolled-back) belong to it.
    type: str
    required: true
  state:
    description:
      - V(started) makes it run as O(spec) says.
      - V(present) makes it exist as O(spec) says. A new one is not started; one that runs is swapped for one that runs.
      - V(stopped) stops it, keeps it, and waits until the memory that it reserves is available. Memory that does not come back in time is
        a warning.
      - V(rolled_back) stops it, keeps it as C(NAME-rolled-back) (in the place of an older one), and starts C(NAME-previous) in its place.
        With nothing to go back to it fails, unless the way back was gone already.
      - V(absent) removes it and the others that belong to it.
    type: str
    choices: [started, present, stopped, rolled_back, absent]
    default: started
  recipe:
    description: A text for the label C(dgx.spark.recipe). It is no reason for a swap.
    type: str
    default: ""
  spec:
    description: What the container is. Required for O(state=started) and O(state=present).
    type: dict
    suboptions:
      image:
        description: The image's name. It must be on the box. With C(@sha256:…) it must be these bytes.
        type: str
        required: true
      digest:
        description: The digest (C(sha256:…)) that the image must have.
        type: str
      vllm_versions:
        description:
          - The vLLM versions that the image may contain, such as V(>=0.19.0,<0.20). Empty accepts any.
          - Only the release number counts, so C(0.19.1.dev6) is in the range V(>=0.19.0,<0.20).
        type: str
        default: ""
      model_path:
        description: The directory of the model on the box, as M(dgx.spark.hf_snapshot) left it. It is mounted read-only.
        type: str
        required: true
      model_mount:
        description: Where the container sees the model.
        type: str
        default: /models/model
      draft_path:
        description:
          - The directory of a draft model on the box, as M(dgx.spark.hf_snapshot) left it. It is mounted read-only.
          - The C(speculative-config) in O(spec.args) gets O(spec.draft_mount) as its C(model).
        type: str
      draft_mount:
        description: Where the container sees the draft model.
        type: str
        default: /models/draft
      served_model_name:
        description: The model's name in the API.
        type: str
        required: true
      args:
        description:
          - vLLM's flags by their own names, without the leading dashes.
          - V(true) is the bare flag, V(null) and V(false) leave it out, a list repeats values behind one flag, a mapping is given as JSON.
        type: dict
        default: {}
      env:
        description: Environment variables. V(null) leaves one out.
        type: dict
        default: {}
      bind:
        description: The address of the box on which the port is published.
        type: str
        default: "0.0.0.0"
      port:
        description: The port on the box. Inside it is 8000.
        type: int
        default: 8002
      gpus:
        description: The GPUs that the container gets.
        type: str
        choices: [all, none]
        default: all
      ipc:
        description: Docker's IPC mode.
        type: str
        default: host
      shm_size:
        description: The size of C(/dev/shm). With O(spec.ipc=host) the box's own counts.
        type: str
        default: 64gb
      restart_policy:
        description: Docker's restart policy. A container that is kept stopped has V(no) meanwhile.
        type: str
        choices: ['no', always, on-failure, unless-stopped]
        default: unless-stopped
      stop_timeout:
        description:
          - How many seconds it gets to finish its answers when it is stopped.
          - vLLM since 0.19.1 gets 15 s less by C(--shutdown-timeout), unless O(spec.args) has that flag. An older one cuts them off.
        type: int
        default: 120
      log_max_size:
        description: The size of one log file.
        type: str
        default: 50m
      log_max_files:
        description: How many log files are kept.
        type: int
        default: 3
      patches:
        description: Files of the model's directory that replace modules of vLLM, read-only. The path comes from the image.
        type: list
        elements: dict
        default: []
        suboptions:
          file:
            description: The file, relative to O(spec.model_path).
            type: str
            required: true
          module:
            description: The Python module that it replaces.
            type: str
            required: true
          vllm_versions:
            description: The vLLM versions that it was written for. With another one in the image it is refused.
            type: str
            required: true
          sha256:
            description: The file's sha256, when it has to be this one.
            type: str
  memory_required_gib:
    description:
      - Memory in GiB that must be available before a start.
      - Left out, it is the memory of the box times C(gpu-memory-utilization) (vLLM's own default when the flag is not given) for a
        container with GPUs, and 0 for one without.
    type: float
  memory_timeout:
    description: How many seconds to wait for that memory. A GB10 may give it back a minute after a container has stopped.
    type: int
    default: 180
  evidence_dir:
    description:
      - Where the evidence of proven containers lies on the box (C(NAME.json), as the role proof writes it). It may be missing.
      - When the container that is swapped out was never proven and C(NAME-previous) was, then C(NAME-previous) stays the way back and the
        unproven one is removed.
    type: path
    default: /var/lib/dgx-spark/evidence
  drop_caches:
    description:
      - Drop the box's page cache before a start. CUDA does not count it as free.
      - Where that is not allowed it is a warning.
    type: bool
    default: false
  api_key:
    description:
      - The key that clients must send. Empty leaves the port open.
      - It is written to a file under O(api_key_dir) that the container has mounted. There it becomes C(VLLM_API_KEY) of vLLM's own process,
        so that neither C(docker inspect) nor C(ps) show it.
      - vLLM itself wants it below C(/v1) and a few other prefixes only. A middleware (C(--middleware) among its flags) wants it on every
        path but C(/health) and C(/metrics).
    type: str
    default: ""
  api_key_dir:
    description: Where the box keeps the keys of its containers, for root alone.
    type: path
    default: /var/lib/dgx-spark/api-keys
"""

EXAMPLES = r"""
- name: Serve Gemma 4 26B-A4B
  dgx.spark.vllm_container:
    name: gemma4-nvfp4
    recipe: gemma4-26b-a4b-nvfp4
    spec:
      image: vllm/vllm-openai:gemma4-cu130
      vllm_versions: ">=0.19.0,<0.20"
      model_path: /srv/models/gemma4-26b-a4b-nvfp4
      model_mount: /models/gemma4
      served_model_name: gemma-4-26b
      args:
        quantization: modelopt
        kv-cache-dtype: fp8
        max-model-len: 131072
        gpu-memory-utilization: 0.85
        moe-backend: marlin
        reasoning-parser: gemma4
        enable-auto-tool-choice: true
        tool-call-parser: gemma4
      patches:
        - file: gemma4_patched.py
          module: vllm.model_executor.models.gemma4
          vllm_versions: ">=0.19.0,<0.20"

- name: Go back to what served before
  dgx.spark.vllm_container:
    name: gemma4-nvfp4
    state: rolled_back

- name: Take it away
  dgx.spark.vllm_container:
    name: gemma4-nvfp4
    state: absent
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode.
  type: dict
  returned: always, unless it failed before there was a plan
  contains:
    action:
      description: >-
        One of V(none), V(create), V(start), V(swap), V(stop), V(remove) and V(roll_back). What an interrupted run left is put right on the
        way; when that is all, the action is V(swap) or V(roll_back) for one that is finished, V(remove) for one that is thrown away.
      type: str
    changes:
      description: How the new spec differs from the one that the container was made from.
      type: list
      elements: dict
      contains:
        what:
          description: What differs.
          type: str
          sample: args.moe-backend
        before:
          description: What it was, V(null) when it was not set. Of a secret only that it was set.
          type: raw
        after:
          description: What it will be.
          type: raw
reasons:
  description: Why something is done, one sentence each. Empty when nothing is.
  type: list
  elements: str
  returned: always, unless it failed before there was a plan
  sample: ["args.moe-backend: auto → marlin"]
missing:
  description: What the spec names and the box does not have yet, one sentence each. Only check mode goes on with it.
  type: list
  elements: str
  returned: success
container:
  description: The container called O(name), or V(null) when there is none. In check mode as it was found.
  type: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
    id:
      description: Its id.
      type: str
    image_id:
      description: The id of its image.
      type: str
    state:
      description: Docker's word for its state.
      type: str
      sample: running
    started_at:
      description: When it was started last, V(null) when it never was.
      type: str
    spec_digest:
      description: The sha256 of its resolved spec, V(null) when this module did not make it.
      type: str
    proven:
      description: Whether the evidence on the box proves this very container.
      type: bool
previous:
  description: The container called C(NAME-previous), with the same keys, or V(null).
  type: dict
  returned: success
"""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._api_key import TO_BE_MADE, KeyFileError, checked
from ansible_collections.dgx.spark.plugins.module_utils._container_apply import (
    ApplyError,
    Box,
    MemoryRules,
    apply,
    check_room,
)
from ansible_collections.dgx.spark.plugins.module_utils._container_changes import text
from ansible_collections.dgx.spark.plugins.module_utils._container_engine import Container, Creation, DockerEngine, Engine, EngineError
from ansible_collections.dgx.spark.plugins.module_utils._container_inputs import Inputs, read_inputs
from ansible_collections.dgx.spark.plugins.module_utils._container_plan import (
    Names,
    Plan,
    PlanError,
    Seen,
    comes_to_serve,
    make_plan,
)
from ansible_collections.dgx.spark.plugins.module_utils._container_spec import (
    DIGEST_LABEL,
    ContainerSpec,
    SpecError,
    creation,
    stored,
)
from ansible_collections.dgx.spark.plugins.module_utils._exclusive import Occupied, exclusive
from ansible_collections.dgx.spark.plugins.module_utils._image import ImageError, ImageInfo
from ansible_collections.dgx.spark.plugins.module_utils._key_files import KeyFiles
from ansible_collections.dgx.spark.plugins.module_utils._memory import MemoryShort
from ansible_collections.dgx.spark.plugins.module_utils._ports import PortTaken
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress

LOCK_DIR = "/run/lock/dgx-spark"
OTHERS_S = 900.0  # what is waited for a module that still works on the same container

_ERRORS = (SpecError, KeyFileError, ImageError, EngineError, PlanError, MemoryShort, PortTaken, ApplyError, Occupied, OSError)

_PATCH = {
    "file": {"type": "str", "required": True},
    "module": {"type": "str", "required": True},
    "vllm_versions": {"type": "str", "required": True},
    "sha256": {"type": "str"},
}
_SPEC: dict[str, Any] = {
    "image": {"type": "str", "required": True},
    "digest": {"type": "str"},
    "vllm_versions": {"type": "str", "default": ""},
    "model_path": {"type": "str", "required": True},
    "model_mount": {"type": "str", "default": "/models/model"},
    "draft_path": {"type": "str"},
    "draft_mount": {"type": "str", "default": "/models/draft"},
    "served_model_name": {"type": "str", "required": True},
    "args": {"type": "dict", "default": {}},
    "env": {"type": "dict", "default": {}},
    "bind": {"type": "str", "default": "0.0.0.0"},
    "port": {"type": "int", "default": 8002},
    "gpus": {"type": "str", "choices": ["all", "none"], "default": "all"},
    "ipc": {"type": "str", "default": "host"},
    "shm_size": {"type": "str", "default": "64gb"},
    "restart_policy": {"type": "str", "choices": ["no", "always", "on-failure", "unless-stopped"], "default": "unless-stopped"},
    "stop_timeout": {"type": "int", "default": 120},
    "log_max_size": {"type": "str", "default": "50m"},
    "log_max_files": {"type": "int", "default": 3},
    "patches": {"type": "list", "elements": "dict", "options": _PATCH, "default": []},
}
_ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["started", "present", "stopped", "rolled_back", "absent"], "default": "started"},
    "recipe": {"type": "str", "default": ""},
    "spec": {"type": "dict", "options": _SPEC},
    "memory_required_gib": {"type": "float"},
    "memory_timeout": {"type": "int", "default": 180},
    "evidence_dir": {"type": "path", "default": "/var/lib/dgx-spark/evidence"},
    "drop_caches": {"type": "bool", "default": False},
    "api_key": {"type": "str", "default": "", "no_log": True},
    "api_key_dir": {"type": "path", "default": "/var/lib/dgx-spark/api-keys", "no_log": False},
    "progress_file": {"type": "path"},
}


def proven_container(evidence_dir: str, name: str) -> str | None:
    """The id of the container that the evidence of this name proves; None without evidence that says so."""
    try:
        with open(os.path.join(evidence_dir, f"{name}.json"), encoding="utf-8") as file:
            evidence = json.load(file)
        return str(evidence["container"]["id"]) if evidence["verdict"] == "proven" else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def observe(engine: Engine, names: Names, evidence_dir: str) -> Seen:
    return Seen(
        current=engine.container(names.current),
        previous=engine.container(names.previous),
        next=engine.container(names.next),
        rolled_back=engine.container(names.rolled_back),
        proven=proven_container(evidence_dir, names.current),
    )


def facts(container: Container | None, proven: str | None) -> dict[str, Any] | None:
    """A container as the module returns it; C(proven) is the id that the evidence proves."""
    if container is None:
        return None
    return {
        "name": container.name,
        "id": container.id,
        "image_id": container.image_id,
        "state": container.status,
        "started_at": container.started_at,
        "spec_digest": container.labels.get(DIGEST_LABEL),
        "proven": container.id == proven,
    }


def diff(plan: Plan, name: str, current: Container | None) -> dict[str, str]:
    """What is under the name, and what will be."""
    spec = stored(current.labels) if current else None
    before = text(spec, state=current.status) if current else ""
    after = text(plan.after, against=spec, state=plan.status_after) if plan.status_after else ""
    return {"before": before, "after": after, "before_header": name, "after_header": name}


def _prepare(spec: ContainerSpec, resolved: dict[str, Any], image: ImageInfo, keys: KeyFiles, params: dict[str, Any]) -> Creation:
    """What to create; its key is laid ready."""
    access = resolved.get("api_key")
    if access:
        keys.write(access, params["api_key"])
    return creation(spec, resolved, image, params["recipe"], keys.path(access) if access else None)


def _keys_in_use(seen: Seen) -> list[dict[str, Any]]:
    specs = [stored(found.labels) for found in (seen.current, seen.previous, seen.next, seen.rolled_back) if found]
    return [spec["api_key"] for spec in specs if spec and "api_key" in spec]


@contextlib.contextmanager
def alone(module: AnsibleModule) -> Iterator[Progress]:
    """Nobody else changes the containers of this name meanwhile, and the controller hears why it takes so long. Raises Occupied."""
    progress = Progress(module.params["progress_file"])
    name = Names(module.params["name"]).current
    if module.check_mode:
        yield progress
        return
    with exclusive(os.path.join(LOCK_DIR, f"{name}.lock"), OTHERS_S, lambda: progress(f"another run works on {name}: waiting for it")):
        yield progress


def run(module: AnsibleModule, engine: Engine, progress: Progress, result: dict[str, Any]) -> None:
    """Observe, plan, apply; fills C(result) as it goes, so that a failure still returns the plan."""
    params = module.params
    names = Names(params["name"])
    seen = observe(engine, names, params["evidence_dir"])
    inputs: Inputs | None = None
    spec = None
    if params["state"] in ("started", "present"):
        spec = ContainerSpec.from_params(params["spec"])
        compared = comes_to_serve(names, seen)
        like = stored(compared.labels) if compared else None
        # A plan may be made before there is a key.
        if params["api_key"] and not (module.check_mode and params["api_key"] == TO_BE_MADE):
            checked(params["api_key"])
        inputs = read_inputs(engine, spec, params["api_key"], like, forgive=module.check_mode)
        result["missing"] = list(inputs.missing)
    plan = make_plan(params["state"], names.current, seen, inputs.resolved if inputs else None)
    changes = [{"what": change.what, "before": change.before, "after": change.after} for change in plan.changes]
    result.update(
        plan={"action": plan.action, "changes": changes},
        reasons=list(plan.reasons),
        diff=diff(plan, names.current, seen.current),
    )
    rules = MemoryRules(params["memory_required_gib"], params["memory_timeout"], params["drop_caches"])
    box = Box(engine, rules, tell=progress)
    try:
        check_room(plan, names, seen, box)
    except (MemoryShort, PortTaken) as exc:
        if not module.check_mode:
            raise
        module.warn(f"{names.current}: {exc}")
    if not module.check_mode and plan.steps:
        made = None
        keys = KeyFiles(params["api_key_dir"], names.current)
        if spec and inputs and inputs.image:
            made = _prepare(spec, inputs.resolved, inputs.image, keys, params)
        try:
            apply(plan, box, made)
        finally:
            for warning in box.warnings:
                module.warn(warning)
        seen = observe(engine, names, params["evidence_dir"])
        keys.sweep(_keys_in_use(seen))
    result.update(changed=bool(plan.steps), container=facts(seen.current, seen.proven), previous=facts(seen.previous, seen.proven))


def main() -> None:
    module = AnsibleModule(
        argument_spec=_ARGUMENTS,
        required_if=[("state", "started", ["spec"]), ("state", "present", ["spec"])],
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"missing": []}
    try:
        with alone(module) as progress:
            run(module, DockerEngine(), progress, result)
    except _ERRORS as exc:
        module.fail_json(msg=f"{module.params['name']}: {exc}", exception=exc, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
