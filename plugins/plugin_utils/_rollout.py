# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""The arithmetic of a rollout: how many boxes a batch takes out of service, and whether the fleet can spare them."""

from __future__ import annotations

import re
from collections.abc import Sequence

Count = int | str


class CountError(ValueError):
    """What should be a number of boxes is none; the message shows it."""


def batch_sizes(serial: Count | Sequence[Count], boxes: int) -> list[int]:
    """The sizes of the batches into which Ansible's C(serial) cuts so many boxes: the last entry goes on until none is left.

    A percentage is of all boxes, rounded down, and at least one. Raises CountError.
    """
    entries = list(serial) if isinstance(serial, Sequence) and not isinstance(serial, str) else [serial]
    wanted = [max(number(entry, boxes), 1 if _is_share(entry) else 0) for entry in entries] or [0]
    sizes: list[int] = []
    while (left := boxes - sum(sizes)) > 0:
        size = wanted[min(len(sizes), len(wanted) - 1)]
        # As with Ansible: zero is all that are left.
        sizes.append(min(left, size) if size > 0 else left)
    return sizes


def refusal(serving: int, moved: int, serial: Count | Sequence[Count], least: Count) -> str:
    """Why the rollout would undercut C(least), a number or a percentage of those that serve now, and the remedy; empty when it would not.

    C(moved) of the C(serving) boxes are to be taken out of service, in the batches of C(serial). Raises CountError.
    """
    needed = number(least, serving, up=True)
    sizes = batch_sizes(serial, moved)
    largest = max(sizes, default=0)
    left = serving - largest
    if not sizes or left >= needed:
        return ""
    share = f" ({least} of {serving}, rounded up)" if _is_share(least) else ""
    batches = " + ".join(str(size) for size in sizes) if len(sizes) <= 8 else f"{len(sizes)} batches of up to {largest}"
    smaller = "Take smaller batches (-e '{\"rollout_batches\": [1]}')" if largest > 1 else "No batch is smaller: let more boxes serve first"
    return (
        f"rollout_min_available is {needed}{share}. Now {serving} boxes serve; {moved} of them are to be moved in batches of {batches}, so"
        f" that {serving} - {largest} = {left} would be left to serve: too few. {smaller}, or allow fewer (rollout_min_available)"
    )


def number(count: Count, boxes: int, up: bool = False) -> int:
    """So many boxes, or so many per cent of C(boxes), rounded down, or C(up). Raises CountError."""
    text = str(count).strip()
    if isinstance(count, bool) or not re.fullmatch(r"\d+%?", text):
        raise CountError(f"{count!r} is not a number of boxes, such as 2 or 25%")
    if not _is_share(count):
        return int(text)
    share = boxes * int(text.removesuffix("%"))
    return -(-share // 100) if up else share // 100


def _is_share(count: Count) -> bool:
    return str(count).strip().endswith("%")
