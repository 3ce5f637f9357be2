# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filter dgx.spark.rollout_refusal: can the fleet spare the boxes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx.spark.plugins.plugin_utils import _rollout


def rollout_refusal(serving: int, moved: int, batches: _rollout.Count | Sequence[_rollout.Count], least: _rollout.Count) -> str:
    try:
        return _rollout.refusal(serving, moved, batches, least)
    except _rollout.CountError as exc:
        raise AnsibleFilterError(f"rollout_batches or rollout_min_available: {exc}") from exc


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rollout_refusal": rollout_refusal}
