#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Asks an OpenAI-compatible server questions that show whether it works."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openai_probe
short_description: Ask an OpenAI-compatible server questions that show whether it works
version_added: "0.1.0"
description:
  - Sends a few requests whose right answers are known. A server that is up is not enough. It must answer sense, call tools, keep its
    thoughts in their own field, compute finite numbers, and see where its model can.
  - Every probe is a request of its own with a natural end, at temperature 0. Every text is searched for what broken engines write, such as
    empty text with counted tokens (NaN on Gemma), one character over and over, loops, broken bytes and mixed scripts.
  - A probe that fails does not keep the next ones from being asked. The task fails when one of them did.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
  - dgx.spark.server
attributes:
  check_mode:
    support: none
    details: The requests load the server, so in check mode nothing is sent and the task is skipped.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  probes:
    description:
      - Which probes to ask, in this order. V(all) of them by default.
      - V(api_key) wants HTTP 401 for requests without the key and with another one, on V(/v1/models), V(/v1/chat/completions) and
        V(/invocations). Among V(all) it is asked only where a key is given.
      - V(models) wants the model to be listed under its name.
      - V(arithmetic), V(fact) and V(json) ask for a sum, a capital and a JSON object.
      - V(tool_call) and V(tool_call_stream) want a call of C(get_weather) for Paris in C(tool_calls), without and with streaming. A
        call that stands in the text means a wrong C(--tool-call-parser).
      - V(reasoning) wants thoughts in a field of their own when C(enable_thinking) is set, and none when it is not.
      - V(logprobs) wants finite log probabilities. HTTP 500 or null means that the engine computes NaN.
      - V(story) wants a longer text that neither loops nor decays.
      - V(image) shows a red and a blue picture and wants the colour of each. Leave it out for a text model.
    type: list
    elements: str
    choices: [all, api_key, models, arithmetic, fact, json, tool_call, tool_call_stream, reasoning, logprobs, story, image]
    default: [all]
  timeout:
    description:
      - The number of seconds that all probes together may take.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Does it answer sense?
  dgx.spark.openai_probe:
    base_url: http://127.0.0.1:8002
    model: gemma-4-26b

- name: Only what a text model without tools can do
  dgx.spark.openai_probe:
    base_url: https://llm.example.com/v1
    model: small
    api_key: "{{ vault_api_key }}"
    probes: [models, arithmetic, fact, logprobs]
    timeout: 60
"""

RETURN = r"""
probes:
  description: What was asked and answered.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The probe's name.
      type: str
    ok:
      description: Whether the answer is that of a healthy deployment.
      type: bool
    why:
      description: Why it is not, and what to do. Empty when it is.
      type: str
    prompt:
      description: What was asked.
      type: str
    answer:
      description: What was answered, shortened to 2000 characters.
      type: str
  sample:
    - name: fact
      ok: true
      why: ""
      prompt: What is the capital of France?
      answer: The capital of France is Paris.
failures:
  description: One sentence for each probe that failed.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client, ClientError
from ansible_collections.dgx.spark.plugins.module_utils._probes import NAMES, run
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_url": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "api_key_file": {"type": "path", "no_log": False},
            "validate_certs": {"type": "bool", "default": True},
            "probes": {
                "type": "list",
                "elements": "str",
                "choices": ["all", *NAMES],
                "default": ["all"],
            },
            "timeout": {"type": "int", "default": 300},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=[("api_key", "api_key_file")],
        supports_check_mode=False,
    )
    params = module.params
    names = params["probes"]
    try:
        client = Client.from_params(params)
        if "all" in names:
            names = [name for name in NAMES if name != "api_key" or client.has_key]
        probes = run(client, params["model"], names, params["timeout"], Progress(params["progress_file"]))
        failures = [f"probe {probe['name']}: {probe['why']}" for probe in probes if not probe["ok"]]
    except ClientError as exc:
        probes, failures = [], [str(exc)]
    if failures:
        module.fail_json(msg=f"{len(failures)} of {len(names)} probes failed. {'. '.join(failures)}", probes=probes, failures=failures)
    module.exit_json(changed=False, probes=probes, failures=failures)


if __name__ == "__main__":
    main()
