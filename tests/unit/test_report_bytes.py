# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

from ansible_collections.dgx.spark.plugins.plugin_utils._report_bytes import served_bytes

PATCH = {"gemma4_patched.py": "p" * 64}


def row(box: str, digest: str | None = "sha256:1", commit: str = "c1", patches: dict[str, str] | None = None) -> dict[str, Any]:
    evidence = {"image": {"name": "vllm:x", "digest": digest}, "model": {"repo": "a/b", "commit": commit}, "patches": patches}
    return {"box": box, "evidence": evidence}


def test_boxes_that_serve_the_same_bytes_are_told_once_without_their_names() -> None:
    assert served_bytes([row("spark-1", patches=PATCH), row("spark-2", patches=PATCH)]) == [
        "image    vllm:x is sha256:1",
        "weights  a/b at commit c1",
        f"patch    gemma4_patched.py has sha256 {'p' * 64}",
    ]


def test_boxes_that_serve_other_bytes_are_named() -> None:
    rows = [row(f"spark-{n}", commit="c1" if n < 6 else "c2") for n in range(1, 7)]
    lines = served_bytes(rows)
    assert lines[0] == "spark-1, spark-2, spark-3 and 2 more:"
    assert lines[3] == "spark-6:"
    assert "commit c2" in lines[5]
    many = served_bytes([row(f"spark-{n}", commit=f"c{n}") for n in range(9)])
    assert many[-1] == "… and 6 other sets of bytes on the other boxes"


def test_a_box_without_evidence_serves_nothing_that_is_known_and_an_image_may_have_no_digest() -> None:
    assert served_bytes([{"box": "spark-1", "evidence": None}]) == []
    assert served_bytes([row("spark-1", digest=None)])[0] == "image    vllm:x is without a digest: it came from no registry"


def test_a_draft_model_is_told_beside_the_weights() -> None:
    drafting = row("spark-1")
    drafting["evidence"]["draft"] = {"repo": "google/draft", "commit": "d1"}
    assert served_bytes([drafting])[1:3] == ["weights  a/b at commit c1", "draft    google/draft at commit d1"]
