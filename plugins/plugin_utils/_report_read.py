# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Read documents of which any part may lack or be of another kind: evidence of every schema, of every way to fail.

What is looked up by a path of keys and is not there is None, "" or an empty list, and never an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

MISSING = "-"


def at(document: Any, *path: str) -> Any:
    """What is found there, or None."""
    for key in path:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def number(document: Any, *path: str) -> float | None:
    """A finite number, or None."""
    value = at(document, *path)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def text(document: Any, *path: str) -> str:
    """A text that can be shown and written, or "". Numbers are text, too."""
    value = at(document, *path)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return clean(str(value))


def texts(document: Any, *path: str) -> list[str]:
    """The texts of a list, without those that are empty."""
    value = at(document, *path)
    return [entry for entry in (text(entry) for entry in value) if entry] if isinstance(value, list) else []


def mappings(document: Any, *path: str) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    value = at(document, *path)
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def clean(value: str) -> str:
    """Somebody else's text without what a terminal obeys or UTF-8 cannot hold; it shows as the replacement character."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in value.replace("\r\n", "\n"))


def figure(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number with thousands separated and its unit, or a dash."""
    if value is None:
        return MISSING
    return f"{value:,.{digits}f}" + (f" {unit}" if unit else "")


def percent(value: float | None) -> str:
    """A share between 0 and 1 as whole per cent, or a dash."""
    return MISSING if value is None else f"{value * 100:.0f} %"


def moment(value: str) -> str:
    """An ISO time, or the name of a run, as UTC to the minute; what is none comes back as it is."""
    for pattern in ("%Y-%m-%dT%H%M%SZ", ""):
        try:
            found = datetime.strptime(value, pattern).replace(tzinfo=UTC) if pattern else datetime.fromisoformat(value)
        except ValueError:
            continue
        return f"{found.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return value
