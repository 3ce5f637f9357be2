# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.report_rows: what a run knows of each box, for the report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_rows
short_description: What a run knows of each box
version_added: "0.1.0"
description:
  - Takes the variables of hosts and keeps what the report needs. Hosts of which this run knows nothing, such as those outside of
    C(--limit), are left out.
options:
  _input:
    description: The variables of the hosts.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep what is known of all boxes
  ansible.builtin.copy:
    dest: report.json
    content: "{{ groups['spark'] | map('extract', hostvars) | dgx.spark.report_rows | to_nice_json }}"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description:
    - One mapping a box. C(box) is its name, C(state) what it was before the run, C(evidence) that of the container that serves or null,
      C(failed) that of a container that this run did not prove or null, and C(why) the reason why the run stopped there, else empty.
    - C(outcome) is what the run did to it. V(moved) to what was asked, V(back) to what served before, V(restored) after a failure,
      V(stopped) because nothing served before, V(lost), V(failed) in any other way, or V(untouched).
  type: list
  elements: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._evidence import PROVEN

_KNOWN = ("preflight_state", "proof_evidence", "rollout_why")


def report_rows(hosts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_row(host) for host in hosts if any(name in host for name in _KNOWN)]


def _row(host: Mapping[str, Any]) -> dict[str, Any]:
    evidence = host.get("proof_evidence") or (host.get("spark") or {}).get("evidence")
    if evidence and evidence.get("verdict") != PROVEN:
        evidence = None
    why = " ".join(str(host[name]) for name in ("rollout_why", "rollout_effect") if host.get(name)) if host.get("rollout_why") else ""
    return {
        "box": host["inventory_hostname"],
        "state": host.get("preflight_state", "unknown"),
        "evidence": evidence,
        "failed": host.get("proof_failed_evidence"),
        "why": why,
        "outcome": _outcome(host),
    }


def _outcome(host: Mapping[str, Any]) -> str:
    if host.get("rollout_lost"):
        return "lost"
    return str(host.get("rollout_outcome") or ("failed" if host.get("rollout_why") else "untouched"))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"report_rows": report_rows}
