#!/usr/bin/python
# Copyright: (c) 2026, the dgx.spark maintainers
# Apache License 2.0 or GNU General Public License v3.0+ (see LICENSE and https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
"""Waits until vLLM answers nobody."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vllm_idle
short_description: Wait until vLLM answers nobody
version_added: "0.1.0"
description:
  - Reads C(vllm:num_requests_running) and C(vllm:num_requests_waiting) until both have been 0 for a second. Who stops vLLM then cuts
    nobody off, as long as no new requests come, which is the gateway's part.
  - Fails when requests are still there at the end of O(timeout), and says how many.
  - A vLLM that cannot be asked is no failure. RV(requests) is null then, and RV(why) says why.
author:
  - The dgx.spark maintainers (@dgx-spark)
extends_documentation_fragment:
  - dgx.spark.attributes
  - dgx.spark.attributes.actiongroup_spark
  - dgx.spark.progress
attributes:
  check_mode:
    support: full
    details: Looks without waiting, and never fails.
  diff_mode:
    support: none
    details: It changes nothing.
  idempotent:
    support: full
options:
  base_url:
    description: Where vLLM listens, as seen from the box.
    type: str
    default: http://127.0.0.1:8002
  timeout:
    description: How many seconds to wait. V(0) looks without waiting for a request to end.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Wait until nobody is being answered
  dgx.spark.vllm_idle:
    base_url: http://127.0.0.1:8002
    timeout: 300
"""

RETURN = r"""
requests:
  description: How many requests run or wait. V(null) when vLLM could not be asked.
  type: int
  returned: always
running:
  description: How many of them run.
  type: int
  returned: always
waiting:
  description: How many of them wait.
  type: int
  returned: always
seconds:
  description: How many seconds it waited.
  type: float
  returned: always
why:
  description: Why vLLM could not be asked, else empty.
  type: str
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx.spark.plugins.module_utils._idle import NoAnswer, NobodyListens, Seen, wait_idle
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client, ClientError
from ansible_collections.dgx.spark.plugins.module_utils._progress import Progress
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import Metrics, read

REQUEST_S = 5.0


def metrics(client: Client) -> Metrics:
    """What vLLM counts now. Raises NobodyListens, NoAnswer."""
    try:
        return read(client.metrics(REQUEST_S))
    except ClientError as exc:
        if isinstance(exc.__cause__, ConnectionRefusedError):
            raise NobodyListens(str(exc)) from exc
        raise NoAnswer(str(exc)) from exc


def wait(params: dict[str, Any], check: bool) -> Seen:
    """Wait as the options say; raises ClientError for a URL that is none."""
    client = Client(params["base_url"])
    return wait_idle(lambda: metrics(client), 0 if check else params["timeout"], Progress(params["progress_file"]))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base_url": {"type": "str", "default": "http://127.0.0.1:8002"},
            "timeout": {"type": "int", "default": 300},
            "progress_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    result: dict[str, Any] = {"changed": False}
    failure, cause = "", None
    try:
        seen = wait(module.params, module.check_mode)
        result |= {"requests": seen.requests, "running": seen.running, "waiting": seen.waiting, "seconds": round(seen.seconds, 1)}
        result["why"] = seen.why
        if seen.requests and not module.check_mode:
            failure = f"{seen.words} after {seen.seconds:.0f} s: they would be cut off when it stops"
    except ClientError as exc:
        failure, cause = str(exc), exc
    if failure:
        module.fail_json(msg=failure, exception=cause, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
