#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Measures how fast an OpenAI-compatible server generates."""

from __future__ import annotations

DOCUMENTATION = r"""
module: openai_throughput
short_description: Measure how fast an OpenAI-compatible server generates
version_added: "0.1.0"
description:
  - Sends requests one after the other, a long one, and several at once, and measures each stream. Fails when a threshold is missed, when a
    request did not generate what was asked for, or when a text is garbage.
  - Token counts come from the server's C(usage) only, never from the number of chunks. A server that sends no usage is an error.
  - The connection is open before the clock starts. Warm-up requests do not count. Every prompt begins with a nonce, so that no prefix cache
    answers. Prompts are short, because repeated long ones freeze a GB10.
notes:
  - In the formulas, N is the number of completion tokens and t_send the moment before the request is sent.
  - C(ttft_ms) = (t of the first visible output - t_send) * 1000. A chunk that brings the role only is no output.
  - C(decode_tok_s) = (N - n_first) / (t_last - t_first), where t_first is when the first visible output arrived, n_first the tokens
    that were there by then (all of the first chunk's, which are several under speculative decoding), and t_last when the count reached N.
  - C(e2e_tok_s) = N / (t_last - t_send).
  - C(aggregate_tok_s) = the sum of N / (the last t_last - the first t_send) over requests that start together.
  - Without C(continuous_usage_stats), every chunk with output is taken to hold equally many tokens, which gives n_first.
  - Chunks right after the first one that come five times closer than on average were held back together with it. If they are more than
    jitter (eight tokens and 2 %), they count as a part of it. When less than 5 % of the time passed after the first output, all of it came
    in one burst, C(decode_tok_s) is null and a threshold for it fails. The real vLLM on a CPU does that now and then; look at C(e2e_tok_s)
    there.
  - C(stdev) is that of a sample, C(cv) is stdev / mean. Both are null for one run.
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
  prompt:
    description:
      - What to ask for, instead of a story. The answer should be long enough for all requests. Texts are judged as English prose only with
        the default.
    type: str
  ignore_eos:
    description:
      - Whether to tell the server to go on after the natural end of the answer, so that every request generates exactly what was asked for.
      - With V(false), ask for fewer tokens than the answer has.
    type: bool
    default: true
  warmup:
    description:
      - How many requests to send before those that count, each as long as a sequential one. With O(parallel), one short round of parallel
        requests follows. V(0) sends none of them.
    type: int
    default: 1
  sequential:
    description:
      - Requests one after the other.
    type: dict
    suboptions:
      runs:
        description: How many.
        type: int
        required: true
      tokens:
        description: How many tokens each generates.
        type: int
        required: true
  long:
    description:
      - One long request.
    type: dict
    suboptions:
      tokens:
        description: How many tokens it generates.
        type: int
        required: true
  parallel:
    description:
      - Requests that start together.
    type: dict
    suboptions:
      requests:
        description: How many.
        type: int
        required: true
      tokens:
        description: How many tokens each generates.
        type: int
        required: true
  thresholds:
    description:
      - What is too slow. A threshold without its part of the workload is an error.
    type: dict
    default: {}
    suboptions:
      decode_tok_s_min:
        description: The least mean C(decode_tok_s) of O(sequential), or of O(long) without it.
        type: float
      aggregate_tok_s_min:
        description: The least C(aggregate_tok_s) of O(parallel).
        type: float
      ttft_ms_max:
        description: The largest mean C(ttft_ms) of O(sequential), or of O(long) without it.
        type: float
      roofline_share_min:
        description: The least share of the limit (see O(roofline)) that must be reached, between 0 and 1.
        type: float
  roofline:
    description:
      - What the memory's bandwidth allows at most is calculated from the checkpoint, for RV(roofline) and
        O(thresholds.roofline_share_min).
      - Without it, or where the checkpoint cannot be read, RV(roofline) is null.
    type: dict
    suboptions:
      checkpoint:
        description: The directory of the checkpoint on this host, with C(config.json) and safetensors files. Only their headers are read.
        type: path
        required: true
      bandwidth_gb_s:
        description: The bandwidth of the box's memory in GB/s. A GB10 has 273.
        type: float
        required: true
      kv_cache_dtype:
        description: The type of the KV cache, as vLLM's flag of this name.
        type: str
        default: auto
  timeout:
    description:
      - The number of seconds that everything together may take.
    type: int
    default: 1800
"""

EXAMPLES = r"""
- name: Measure as the article does
  dgx.spark.openai_throughput:
    base_url: http://127.0.0.1:8002
    model: gemma-4-26b
    warmup: 1
    sequential: {runs: 5, tokens: 800}
    long: {tokens: 1633}
    parallel: {requests: 3, tokens: 500}
    thresholds:
      decode_tok_s_min: 46.8
      aggregate_tok_s_min: 103
      ttft_ms_max: 130
    roofline:
      checkpoint: /srv/models/gemma4-26b-a4b-nvfp4/main
      bandwidth_gb_s: 273
      kv_cache_dtype: fp8

- name: A small model that must not be forced past its natural end
  dgx.spark.openai_throughput:
    base_url: http://127.0.0.1:8002
    model: gemma-4-26b
    ignore_eos: false
    sequential: {runs: 3, tokens: 300}
"""

RETURN = r"""
sequential:
  description: The requests one after the other; null when they were not asked for or not reached.
  returned: always
  type: dict
  contains:
    runs:
      description: Each request.
      type: list
      elements: dict
      sample: [{"tokens": 800, "decode_tok_s": 51.6, "e2e_tok_s": 51.48, "ttft_ms": 53.4}]
    decode_tok_s:
      description: C(mean), C(stdev), C(cv), C(min) and C(max) of the runs.
      type: dict
      sample: {"mean": 51.56, "stdev": 0.05, "cv": 0.001, "min": 51.5, "max": 51.6}
    e2e_tok_s:
      description: The same of the end-to-end rate.
      type: dict
    ttft_ms:
      description: The same of the time to the first output, in milliseconds.
      type: dict
long:
  description: The long request, with C(tokens), C(decode_tok_s), C(e2e_tok_s) and C(ttft_ms); null when not asked for or not reached.
  returned: always
  type: dict
parallel:
  description: The requests that started together; null when they were not asked for or not reached.
  returned: always
  type: dict
  contains:
    aggregate_tok_s:
      description: What all of them got together.
      type: float
      sample: 114.6
    fairness:
      description: The slowest one's end-to-end rate over the fastest one's; 1 when all are served alike.
      type: float
    decode_tok_s:
      description: C(mean), C(stdev), C(cv), C(min) and C(max) of the requests.
      type: dict
    ttft_ms:
      description: The same of the time to the first output.
      type: dict
    requests:
      description: Each request.
      type: list
      elements: dict
failures:
  description: One sentence for each thing that is wrong, with what was measured, what was wanted and what to do.
  returned: always
  type: list
  elements: str
notes:
  description: What a reader of the numbers should know, such as other traffic or output that came in bursts.
  returned: always
  type: list
  elements: str
other_traffic:
  description: Whether others were served meanwhile, from the server's C(/metrics); null when it has none.
  returned: always
  type: dict
  contains:
    running_before:
      description: How many requests ran or waited before the first of ours.
      type: int
    foreign_tokens:
      description: How many tokens the server generated meanwhile that were not ours.
      type: int
    seen:
      description: Whether that is other traffic.
      type: bool
speculation:
  description: How well speculative decoding guesses, from C(/metrics); null without it.
  returned: always
  type: dict
  contains:
    acceptance_length:
      description: Tokens per step.
      type: float
    steps_s:
      description: Steps per second, which does not depend on what is written.
      type: float
roofline:
  description: What the memory's bandwidth allows, and what was reached of it; null when O(roofline) is not given or could not be read.
  returned: always
  type: dict
  contains:
    limit_tok_s:
      description: The limit of one stream at C(context_tokens), the mean context of O(sequential), or of O(long) without it.
      type: float
      sample: 83.2
    share:
      description:
        - The mean decode rate over C(limit_tok_s). With speculation it is the rate of steps, for the limit is one of steps; what the draft
          model reads is not in the limit.
      type: float
      sample: 0.6198
    bandwidth_gb_s:
      description: The bandwidth that was given.
      type: float
    weights_gb:
      description: The weights that one token reads, in GB.
      type: float
      sample: 3.235
    kv_gb:
      description: The KV cache that one token reads, in GB.
      type: float
      sample: 0.0484
    context_tokens:
      description: The context at which the limit was calculated.
      type: int
    formats:
      description: The format of each part of the checkpoint.
      type: dict
      sample: {"attention": "NVFP4", "dense_mlp": "NVFP4", "experts": "NVFP4", "router": "BF16", "lm_head": "BF16"}
    long_limit_tok_s:
      description: The limit of the long request, whose context is longer.
      type: float
    aggregate_limit_tok_s:
      description: The limit of the parallel requests together, if their tokens are routed to experts evenly.
      type: float
      sample: 170.8
    aggregate_share:
      description: The aggregate rate over it.
      type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client, ClientError
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._roofline import Ceiling, RooflineError, kv_value_bytes, read
from ansible_collections.dgx.spark.plugins.module_utils._throughput import MeasureError, contradictions
from ansible_collections.dgx.spark.plugins.module_utils._throughput_run import PROMPT, Workload, nothing, run

# Some 2,000 tokens. Repeated prefills of 70,000 freeze a GB10.
PROMPT_CHARACTERS = 8000


def workload(params: dict[str, Any], ceiling: Ceiling | None) -> Workload:
    """The workload that the options describe. Raises MeasureError for one that makes no sense."""
    thresholds = params["thresholds"]
    problems = contradictions(thresholds, params)
    if len(params["prompt"] or "") > PROMPT_CHARACTERS:
        problems.append(f"prompt has {len(params['prompt'])} characters, at most {PROMPT_CHARACTERS} are sent: long ones freeze a GB10")
    for part in ("sequential", "long", "parallel"):
        problems += [f"{part}.{key} must be at least 1" for key, value in (params[part] or {}).items() if value < 1]
    if problems:
        raise MeasureError("; ".join(problems))
    return Workload(
        model=params["model"],
        prompt=params["prompt"] or PROMPT,
        ignore_eos=params["ignore_eos"],
        warmup=params["warmup"],
        sequential=(params["sequential"]["runs"], params["sequential"]["tokens"]) if params["sequential"] else None,
        long=params["long"]["tokens"] if params["long"] else None,
        parallel=(params["parallel"]["requests"], params["parallel"]["tokens"]) if params["parallel"] else None,
        thresholds=thresholds,
        ceiling=ceiling,
    )


def ceiling(params: dict[str, Any] | None) -> Ceiling | None:
    """The limit that the option roofline describes; None without it. Raises RooflineError."""
    if not params:
        return None
    return Ceiling(read(params["checkpoint"]), params["bandwidth_gb_s"], kv_value_bytes(params["kv_cache_dtype"]))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_url": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "api_key_file": {"type": "path", "no_log": False},
            "validate_certs": {"type": "bool", "default": True},
            "prompt": {"type": "str"},
            "ignore_eos": {"type": "bool", "default": True},
            "warmup": {"type": "int", "default": 1},
            "sequential": {
                "type": "dict",
                "options": {"runs": {"type": "int", "required": True}, "tokens": {"type": "int", "required": True, "no_log": False}},
            },
            "long": {"type": "dict", "options": {"tokens": {"type": "int", "required": True, "no_log": False}}},
            "parallel": {
                "type": "dict",
                "options": {"requests": {"type": "int", "required": True}, "tokens": {"type": "int", "required": True, "no_log": False}},
            },
            "thresholds": {
                "type": "dict",
                "default": {},
                "options": {
                    "decode_tok_s_min": {"type": "float"},
                    "aggregate_tok_s_min": {"type": "float"},
                    "ttft_ms_max": {"type": "float"},
                    "roofline_share_min": {"type": "float"},
                },
            },
            "roofline": {
                "type": "dict",
                "options": {
                    "checkpoint": {"type": "path", "required": True},
                    "bandwidth_gb_s": {"type": "float", "required": True},
                    "kv_cache_dtype": {"type": "str", "default": "auto"},
                },
            },
            "timeout": {"type": "int", "default": 1800},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=[("api_key", "api_key_file")],
        supports_check_mode=False,
    )
    params = module.params
    unknown, limit = "", None
    try:
        limit = ceiling(params["roofline"])
    except RooflineError as exc:
        unknown = f"the memory-bound limit is not known: {exc}"
    try:
        wanted = workload(params, limit)
        result = run(
            Client.from_params(params),
            wanted,
            params["timeout"],
            Progress(params["progress_file"]),
        )
    except (MeasureError, ClientError) as exc:
        result = nothing(str(exc))
    result["notes"] += [unknown] if unknown else []
    if result["failures"]:
        module.fail_json(msg=f"The throughput is not proven. {'. '.join(result['failures'])}", **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
