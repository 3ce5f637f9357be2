#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Ollama's models out of memory, or into it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_models
short_description: Get the memory of Ollama's models back, or load one
version_added: "0.1.0"
description:
  - With O(state=unloaded), asks every loaded model to go, then waits until none of them is loaded and the box's available memory has grown
    by what they took on the GPU. When all are gone and no more memory has come back for 15 s, it is content with a warning, because
    Ollama's sizes are estimates.
  - A model that answers requests goes when they are done, so the wait covers them. One that a client loads again is asked again.
    A box on which no Ollama listens is in the wanted state.
  - With O(state=loaded), waits until the memory for all of a model is available, then loads it. With less, Ollama splits a model between
    CPU and GPU and does not say so; RV(split) does. A model that Ollama does not have is an error, in check mode too.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
    details: As long as no client loads a model in between.
notes:
  - Ollama lets go of a loaded model after some minutes without a request (C(OLLAMA_KEEP_ALIVE)).
  - The next request of a client loads a model again. Stop the service to prevent that.
  - Proxies are not used.
options:
  url:
    description: Where Ollama listens.
    type: str
    default: http://127.0.0.1:11434
  state:
    description: The state that the models shall be in.
    type: str
    choices: [unloaded, loaded]
    default: unloaded
  names:
    description: Which models. Left out, all that are loaded. Required for O(state=loaded).
    type: list
    elements: str
  timeout:
    description: The bound of the wait in seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Get all memory back before vLLM starts
  dgx.spark.ollama_models:
    state: unloaded

- name: Unload one model
  dgx.spark.ollama_models:
    names: [gemma4:26b]
    timeout: 60

- name: Load one, and see whether all of it is on the GPU
  dgx.spark.ollama_models:
    state: loaded
    names: [gemma4:26b]
    timeout: 600
  register: ollama
  failed_when: ollama is failed or ollama.split | length > 0
"""

RETURN = r"""
unloaded:
  description: The models that were, or in check mode would be, unloaded.
  type: list
  elements: str
  returned: always
loaded:
  description: The models that were, or in check mode would be, loaded. Empty when they were loaded already.
  type: list
  elements: str
  returned: always
models:
  description: With O(state=loaded), what Ollama has on its disk under O(names).
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: The full name.
      type: str
    size:
      description: Bytes on the disk.
      type: int
    quantization:
      description: How the weights are quantized, in Ollama's words. Null when it does not say.
      type: str
  sample: [{name: "gemma4:26b", size: 17000000000, quantization: Q4_K_M}]
split:
  description:
    - Those of the models that lie, or before they were unloaded lay, in the CPU's memory, wholly or partly, which makes them run at a
      fraction of their speed.
  type: list
  elements: dict
  returned: always
  sample: [{name: "gemma4:26b", cpu_percent: 66, gpu_percent: 34}]
freed_bytes:
  description: By how much the available memory has grown.
  type: int
  returned: always
"""

from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._memory import MemoryShort, read_memory, wait_available
from ansible_collections.dgx.spark.plugins.module_utils._ollama import Model, Ollama, OllamaError, Stored, chosen, load, on_disk, unload
from ansible_collections.dgx.spark.plugins.module_utils._proc import clients_of
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress


def available() -> int:
    """MemAvailable in bytes."""
    return int(read_memory().available * 2**30)


def described(models: list[Model] | list[Stored]) -> str:
    return "".join(f"{model.name} ({model.size / 1e9:.1f} GB)\n" for model in models)


def diff(before: str, after: str) -> dict[str, str]:
    return {"before": before, "after": after, "before_header": "loaded", "after_header": "loaded"}


def make_unloaded(ollama: Ollama, params: dict[str, Any], check_mode: bool, result: dict[str, Any]) -> str | None:
    """Plan and apply; fills C(result) as it goes, so that a failure still returns what was found. Returns a warning. Raises OllamaError."""
    loaded = ollama.loaded() or []
    models = chosen(loaded, params["names"])
    result["changed"] = bool(models)
    result["unloaded"] = [model.name for model in models]
    result["split"] = [model.split for model in models if model.split]
    result["diff"] = diff(described(loaded), described([model for model in loaded if model not in models]))
    if check_mode or not models:
        return None
    freed = unload(
        ollama,
        params["names"],
        available,
        params["timeout"],
        clients=lambda: clients_of(ollama.port),
        tell=Progress(params["progress_file"]),
    )
    result["freed_bytes"] = freed.size
    return freed.warning


def make_loaded(ollama: Ollama, params: dict[str, Any], check_mode: bool, result: dict[str, Any]) -> None:
    """The same for loading. Raises OllamaError and MemoryShort."""
    models = on_disk(ollama, params["names"])
    names = [model.name for model in models]
    loaded = ollama.loaded() or []
    there = {model.name for model in loaded}
    missing = [model for model in models if model.name not in there]
    result["changed"] = bool(missing)
    result["models"] = [asdict(model) for model in models]
    result["loaded"] = [model.name for model in missing]
    result["diff"] = diff(described(loaded), described(loaded) + described(missing))
    if missing and not check_mode:
        load(ollama, missing, params["timeout"], wait_available, tell=Progress(params["progress_file"]))
        loaded = ollama.loaded() or []
    result["split"] = [model.split for model in chosen(loaded, names) if model.split]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "state": {"type": "str", "choices": ["unloaded", "loaded"], "default": "unloaded"},
            "names": {"type": "list", "elements": "str"},
            "timeout": {"type": "int", "default": 120},
            "progress_file": {"type": "path"},
        },
        required_if=[("state", "loaded", ["names"])],
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "unloaded": [], "loaded": [], "models": [], "split": [], "freed_bytes": 0}
    warning = None
    try:
        ollama = Ollama(module.params["url"])
        if module.params["state"] == "loaded":
            make_loaded(ollama, module.params, module.check_mode, result)
        else:
            warning = make_unloaded(ollama, module.params, module.check_mode, result)
    except (OllamaError, MemoryShort, OSError) as exc:
        module.fail_json(msg=str(exc), exception=exc, **result)
    if warning:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
