# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Which bytes the boxes serve, in a few lines: what to know of a deployment whose names may mean something else tomorrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 3  # sets of bytes; a fleet that serves more has another problem
_NAMED = 3  # boxes of each


def served_bytes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for C(rows) as the report has them: each set of bytes that boxes serve, with the boxes where they differ."""
    sets: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if evidence := row.get("evidence"):
            sets.setdefault(tuple(_facts(evidence)), []).append(str(row["box"]))
    lines = []
    for facts, names in list(sets.items())[:SHOWN]:
        if len(sets) > 1:
            lines.append(f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}:")
        lines += facts
    if len(sets) > SHOWN:
        lines.append(f"… and {len(sets) - SHOWN} other sets of bytes on the other boxes")
    return lines


def _facts(evidence: Mapping[str, Any]) -> list[str]:
    image, model, draft = (evidence.get(key) or {} for key in ("image", "model", "draft"))
    return [
        f"image    {image.get('name')} is {image.get('digest') or 'without a digest: it came from no registry'}",
        f"weights  {model.get('repo')} at commit {model.get('commit')}",
        *([f"draft    {draft.get('repo')} at commit {draft.get('commit')}"] if draft else []),
        *(f"patch    {file} has sha256 {sha256}" for file, sha256 in sorted((evidence.get("patches") or {}).items())),
    ]
