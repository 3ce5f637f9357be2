# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""A pull as Docker reports it: how far it is, and why it failed.

Docker tells the size of a layer only when its download begins, three at a time, so the whole size is a lower bound until the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REMEDIES = (
    # Words of Docker or of a registry, and what to do.
    (("no matching manifest",), "the image is not built for this processor: a DGX Spark needs linux/arm64"),
    (
        ("manifest unknown", "not found"),
        "the registry has no such name, tag or digest: correct it; a tag can also have been removed, which a pinned digest survives",
    ),
    (("toomanyrequests", "rate limit"), "the registry limits how much is pulled from this address: wait, log in, or use a mirror"),
    (("denied", "unauthorized", "authentication required"), "log in with 'docker login' on the box, or correct the name"),
    (("no space left",), "make room on Docker's disk ('docker system df', 'docker image prune')"),
    (("no such host", "i/o timeout", "connection refused", "TLS handshake", "proxyconnect"), "see the box's network, DNS and proxy"),
)


class Pull:
    """Collects Docker's events of one pull."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}
        self._unpacking = 0
        self._unpacked = 0
        self.error = ""

    def take(self, event: Mapping[str, Any]) -> None:
        """One event, as the engine's API sends it."""
        if event.get("error"):
            self.error = str(event["error"])
        layer, status = str(event.get("id") or ""), event.get("status")
        detail = event.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self._layers[layer] = (int(detail.get("current") or 0), int(detail["total"]))
        elif status in ("Download complete", "Verifying Checksum") and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        elif status == "Pull complete":
            self._unpacked += 1
        self._unpacking += status == "Extracting"

    @property
    def fetched(self) -> int:
        """Bytes that have come."""
        return sum(current for current, _total in self._layers.values())

    def describe(self, seconds: float) -> str:
        """How far it is after so many seconds, in a few words."""
        total = sum(total for _current, total in self._layers.values())
        if not total:
            return "asking the registry"
        done = self.fetched
        if done == total and self._unpacking:
            return f"unpacking {done / 1e9:.1f} GB, {self._unpacked} layers done"
        rate = done / seconds if seconds > 0 else 0.0
        left = f", {(total - done) / rate:.0f} s left of these layers" if rate else ""
        return f"{done / 1e9:.1f} GB of at least {total / 1e9:.1f} GB, {rate / 1e6:.0f} MB/s{left}"


def explain(error: str) -> str:
    """Docker's words and what to do."""
    remedy = next((remedy for words, remedy in _REMEDIES if any(word.lower() in error.lower() for word in words)), "")
    return f"{error.strip().rstrip('.')}: {remedy or 'see the network of the box, and journalctl -u docker'}"
