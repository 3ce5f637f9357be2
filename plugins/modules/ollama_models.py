#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Ollama's models out of memory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_models
short_description: Get the memory of Ollama's models back
version_added: "0.1.0"
description:
  - Asks every loaded model to go, then waits until none of them is loaded and the box's available memory has grown by what they took on the
    GPU. When all are gone and no more memory has come back for 15 s, it is content with a warning, because Ollama's sizes are estimates.
  - A model that answers requests goes when they are done, so the wait covers them. One that a client loads again is asked again.
  - A box on which no Ollama listens is in the wanted state.
author:
  - The dgx.spark maintainers (@dgx-spark)
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
    details: As long as no client loads a model in between.
notes:
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
    choices: [unloaded]
    default: unloaded
  names:
    description: Which models. Left out, all that are loaded.
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
"""

RETURN = r"""
unloaded:
  description: The models that were, or in check mode would be, unloaded.
  type: list
  elements: str
  returned: always
split:
  description: Those of them that lay in the CPU's memory, wholly or partly, which makes them run at a fraction of their speed.
  type: list
  elements: dict
  returned: always
  sample: [{name: "gemma4:26b", cpu_percent: 66, gpu_percent: 34}]
freed_bytes:
  description: By how much the available memory has grown.
  type: int
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._memory import read_memory
from ansible_collections.dgx.spark.plugins.module_utils._ollama import Model, Ollama, OllamaError, chosen, unload
from ansible_collections.dgx.spark.plugins.module_utils._proc import clients_of


def available() -> int:
    """MemAvailable in bytes."""
    return int(read_memory().available * 2**30)


def described(models: list[Model]) -> str:
    return "".join(f"{model.name} ({model.size / 1e9:.1f} GB)\n" for model in models)


def run(params: dict[str, Any], check_mode: bool, result: dict[str, Any]) -> str | None:
    """Plan and apply; fills C(result) as it goes, so that a failure still returns what was found. Returns a warning. Raises OllamaError."""
    ollama = Ollama(params["url"])
    loaded = ollama.loaded() or []
    models = chosen(loaded, params["names"])
    stay = [model for model in loaded if model not in models]
    result["changed"] = bool(models)
    result["unloaded"] = [model.name for model in models]
    result["split"] = [model.split for model in models if model.split]
    result["diff"] = {"before": described(loaded), "after": described(stay), "before_header": "loaded", "after_header": "loaded"}
    if check_mode or not models:
        return None
    freed = unload(ollama, params["names"], available, params["timeout"], clients=lambda: clients_of(ollama.port))
    result["freed_bytes"] = freed.size
    return freed.warning


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "state": {"type": "str", "choices": ["unloaded"], "default": "unloaded"},
            "names": {"type": "list", "elements": "str"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False, "unloaded": [], "split": [], "freed_bytes": 0}
    try:
        warning = run(module.params, module.check_mode, result)
    except (OllamaError, OSError) as exc:
        module.fail_json(msg=str(exc), exception=exc, **result)
    if warning:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
