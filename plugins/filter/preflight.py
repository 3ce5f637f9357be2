# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Filters dgx.spark.unfit and dgx.spark.box_state: what the role preflight decides over a box's facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils import _preflight


def unfit(spark: Mapping[str, Any], recipe: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Why the box is not fit for the recipe; an empty list when it is."""
    return _preflight.problems(spark, recipe, wanted)


def box_state(spark: Mapping[str, Any], recipe: Mapping[str, Any], plan: Mapping[str, Any], container: str) -> dict[str, Any]:
    """The box's state (fresh, serving or current) and the reasons why it is not current."""
    return _preflight.state(spark, recipe, plan, container)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"unfit": unfit, "box_state": box_state}
