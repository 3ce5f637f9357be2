# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""vLLM's versions as they are met in the wild, and whether one lies in a range.

Only the release number counts: C(0.19.1.dev6+g6d4a8e6d2) is 0.19.1 here, although PEP 440 puts a development build before its release.
vLLM's images are built from branches whose version is counted up from the last tag, so a dev build already has the code of its number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_VERSION = re.compile(
    r"""\s*v?(?P<release>\d+(?:\.\d+)*)
        (?P<suffix>(?:[-._]?(?:a|b|rc|post|dev)\d*)*)
        (?:\+[a-z0-9._-]+)?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_CLAUSE = re.compile(r"(?P<operator>>=|<=|==|!=|>|<)\s*(?P<version>\S+)")


class VersionError(ValueError):
    """A version or a range cannot be read; the message shows it and what is understood."""


@dataclass(frozen=True)
class Version:
    """C(release) as numbers, and C(suffix) as it was written (C(rc1.dev790)); the local part after + is not kept."""

    release: tuple[int, ...]
    suffix: str

    @property
    def is_dev(self) -> bool:
        return "dev" in self.suffix


def parse(text: str) -> Version:
    """Read C(0.19.1), C(v0.23.1rc1.dev790+g85d9), C(0.18.2-dev) or C(0.32.0+cpu). Raises VersionError."""
    match = _VERSION.fullmatch(text)
    if not match:
        raise VersionError(f"{text!r} is not a version like 0.19.1 or 0.19.1.dev6+g6d4a8e6d2")
    release = tuple(int(part) for part in match["release"].split("."))
    return Version(release, match["suffix"].lstrip("-._").lower())


def satisfies(version: str, wanted: str) -> bool:
    """Does C(version) lie in the range C(wanted), such as C(>=0.19.0,<0.20)? An empty range accepts every version.

    Understood are >=, <=, >, <, == and != joined by commas; missing numbers count as zero. Raises VersionError.
    """
    clauses = [clause.strip() for clause in wanted.split(",") if clause.strip()]
    if not clauses:
        return True
    have = parse(version).release
    return all(_holds(have, clause, wanted) for clause in clauses)


def _holds(have: tuple[int, ...], clause: str, wanted: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    if not match:
        raise VersionError(f"{wanted!r} is not a range like >=0.19.0,<0.20 (understood are >=, <=, >, <, == and !=)")
    bound = parse(match["version"]).release
    width = max(len(have), len(bound))
    left, right = (release + (0,) * (width - len(release)) for release in (have, bound))
    return {
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
        "==": left == right,
        "!=": left != right,
    }[match["operator"]]
