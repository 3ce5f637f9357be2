# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The startup logs of the corpus, as vLLM writes them."""

from __future__ import annotations

from pathlib import Path

LOGS = Path(__file__).parents[1] / "corpus" / "logs"


def startup_log(name: str) -> bytes:
    """A log's bytes. Its file shows as ␍ the carriage returns with which progress bars begin anew."""
    return (LOGS / name).read_text().replace("␍", "\r").encode()
