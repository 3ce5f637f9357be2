# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The startup logs of the corpus, as vLLM writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LOGS = Path(__file__).parents[1] / "corpus" / "logs"

# What the log of the article's start says.
ARTICLE_FACTS: dict[str, Any] = {
    "vllm_version": "0.19.1.dev6+g6d4a8e6d2",
    "linear_backend": "FLASHINFER_CUTLASS",
    "moe_backend": "MARLIN",
    "attention_backend": "TRITON_ATTN",
    "model_memory_gib": 15.76,
    "kv_cache_memory_gib": 81.8,
    "kv_cache_tokens": 714768,
    "max_concurrency": 29.41,
    "weights_seconds": 84.07,
    "compile_seconds": 23.44,
    "graph_capture_seconds": 13.0,
    "speculative": None,
    "ready": True,
}


def startup_log(name: str) -> bytes:
    """A log's bytes. Its file shows as ␍ the carriage returns with which progress bars begin anew."""
    return (LOGS / name).read_text().replace("␍", "\r").encode()
