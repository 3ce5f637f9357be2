#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Reads a verdict from vLLM's startup log."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_startup_log
short_description: Read a verdict from vLLM's startup log
version_added: "0.1.0"
description:
  - Follows the log of a container's current start, or of a file, until vLLM is ready, until a line says that it will not start, until the
    container dies, or until O(timeout). It compares what the log says with O(expect).
  - Lines of earlier starts never count, and neither does what a container logs after it is ready, for clients' words may stand there. A
    container that somebody restarts meanwhile is followed into its new start; one that Docker restarts because it died is reported as a
    crash loop.
  - It understands vLLM 0.19.0 to 0.33. Process names, levels, timestamps and colours in the lines do not matter, and the log may
    be JSON.
  - Being ready is not enough. An expectation that is not met fails the task, and so does a line that should tell and is not there.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
    details: It only reads, in check mode too.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  container:
    description:
      - The container's name or ID. It is read over Docker's Unix socket (E(DOCKER_HOST), or V(/var/run/docker.sock)).
      - Exactly one of O(container) and O(path) is needed.
    type: str
  path:
    description:
      - A file with a log instead. It may still grow or be rotated. Where it has several starts, the newest counts.
    type: path
  expect:
    description:
      - What the log must say. Nothing is expected by default but that vLLM gets ready.
      - V(vllm_version) is a range such as V(>=0.19,<0.20).
      - V(linear_backend), V(moe_backend) and V(attention_backend) are a name or a list of names of which any will do, written as in vLLM's
        flags (V(marlin), V(cutlass)) or as in its log (V(MARLIN), V(VLLM_CUTLASS), V(FlashInferCutlassNvFp4LinearKernel)).
      - V(model_memory_gib), V(kv_cache_memory_gib), V(kv_cache_tokens), V(max_concurrency), V(weights_seconds) and V(compile_seconds) are
        bounds with V(min), V(max) or both. vLLM's versions count V(kv_cache_tokens) differently, so it needs V(vllm_version)
        with an upper end beside it.
      - V(absent) is a list of regular expressions. A line that matches one, without what stands before its text, fails the task.
    type: dict
    default: {}
  timeout:
    description:
      - The number of seconds to wait at most. V(0) judges what a file says now.
    type: int
    default: 900
  poll:
    description:
      - How often to look whether the container still lives, in seconds. Its log is followed without a pause.
    type: float
    default: 1.0
"""

EXAMPLES = r"""
- name: Wait until vLLM serves with the backends that work on a GB10
  dgx.spark.vllm_startup_log:
    container: gemma4-nvfp4
    expect:
      vllm_version: ">=0.19,<0.20"
      linear_backend: FLASHINFER_CUTLASS
      moe_backend: MARLIN
      model_memory_gib: {min: 15, max: 17}
      kv_cache_memory_gib: {min: 60}
      absent:
        - Using uncalibrated q_scale
    timeout: 900

- name: Judge a log that somebody sent
  dgx.spark.vllm_startup_log:
    path: /tmp/vllm.log
    expect:
      moe_backend: [marlin, flashinfer_b12x]
    timeout: 0
"""

RETURN = r"""
startup:
  description: What the log says; what it lacks is null.
  returned: always
  type: dict
  contains:
    vllm_version:
      description: vLLM's version, with the suffix of a development build.
      type: str
    linear_backend:
      description: What multiplies the dense NVFP4 layers, by its one name in all versions.
      type: str
      sample: FLASHINFER_CUTLASS
    moe_backend:
      description: What computes the experts.
      type: str
      sample: MARLIN
    attention_backend:
      description: What computes the attention.
      type: str
      sample: TRITON_ATTN
    model_memory_gib:
      description: What the weights take.
      type: float
      sample: 15.76
    kv_cache_memory_gib:
      description: What is left for the KV cache.
      type: float
      sample: 81.8
    kv_cache_tokens:
      description: The tokens that fit into the KV cache, as this version counts them.
      type: int
      sample: 714768
    max_concurrency:
      description: How many requests of full length fit into the KV cache.
      type: float
      sample: 5.45
    weights_seconds:
      description: How long the weights took to load.
      type: float
    compile_seconds:
      description: How long torch.compile took in total.
      type: float
    graph_capture_seconds:
      description: How long capturing CUDA graphs took.
      type: float
    speculative:
      description: The configuration of speculative decoding, as the log writes it.
      type: str
    warnings:
      description: Warnings that matter here, such as missing native FP4 or KV scales that were not calibrated.
      type: list
      elements: str
    ready:
      description: Whether it got ready.
      type: bool
    seconds:
      description: The time from the container's start to its ready line. Null for a file.
      type: float
failures:
  description: What is not as expected; empty when the task succeeds.
  returned: always
  type: list
  elements: dict
  contains:
    expected:
      description: What should have been there.
      type: str
    seen:
      description: What was there.
      type: str
    line:
      description: The line of the log that says so; empty where none does.
      type: str
    remedy:
      description: What to do.
      type: str
ended:
  description:
    - How the wait ended. V(begins_late) means that it serves, but the lines of its start were rotated away.
  returned: always
  type: str
  sample: ready
waited:
  description: How many seconds the task waited.
  returned: always
  type: float
restarts:
  description: How often Docker restarted the container since it was last started on purpose.
  returned: always
  type: int
exit_code:
  description: The container's exit code, null while it runs.
  returned: always
  type: int
tail:
  description: The last 30 lines of the log.
  returned: failure
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._log_follow import ContainerSource, FileSource, LogError, follow
from ansible_collections.dgx.spark.plugins.module_utils._memory import read_memory
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import ExpectError, check, startup
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog
from ansible_collections.dgx.spark.plugins.module_utils._startup_verdict import failures, sentence


def judge(params: dict[str, Any]) -> dict[str, Any]:
    """Follow the log and return the module's result. Raises ExpectError and LogError."""
    expect = check(params["expect"])
    source = ContainerSource(params["container"]) if params["container"] else FileSource(params["path"])
    log = StartupLog(expect.get("absent", ()), one_start=bool(params["container"]))
    progress = Progress(params["progress_file"])

    def tell(doing: str) -> None:
        progress(f"vLLM: {doing}, {read_memory().available:.1f} GiB of memory available")

    end = follow(source, log, params["timeout"], params["poll"], tell)
    failed = failures(log, end, expect, params["timeout"])
    result: dict[str, Any] = {
        "changed": False,
        "startup": startup(log, end.seconds),
        "failures": failed,
        "ended": end.kind,
        "waited": end.waited,
        "restarts": end.restarts,
        "exit_code": end.exit_code,
    }
    if failed:
        result["tail"] = log.tail()
        result["msg"] = f"{params['container'] or params['path']}: " + ". ".join(sentence(entry) for entry in failed)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str"},
            "path": {"type": "path"},
            "expect": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 900},
            "poll": {"type": "float", "default": 1.0},
            "progress_file": {"type": "path"},
        },
        mutually_exclusive=[("container", "path")],
        required_one_of=[("container", "path")],
        supports_check_mode=True,
    )
    try:
        result = judge(module.params)
    except ExpectError as exc:
        result = {"failures": [], "msg": f"Cannot judge the log: the option expect is wrong: {exc}"}
    except LogError as exc:
        result = {"failures": [], "msg": f"Cannot read the log: {exc}"}
    if "msg" in result:
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
