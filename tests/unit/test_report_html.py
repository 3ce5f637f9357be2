# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The report's page: what it says, what it escapes, and that nothing that lacks breaks it."""

from __future__ import annotations

import copy
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.plugin_utils._report_page import page
from ansible_collections.dgx.spark.plugins.plugin_utils._report_read import clean, moment
from ansible_collections.dgx.spark.plugins.plugin_utils._report_text import summary
from unit import report_rows

VOID = {"meta", "br"}


class Tree(HTMLParser):
    """Checks that what is opened is closed; collects elements with their attributes, and the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_decl(self, decl: str) -> None:
        assert decl == "DOCTYPE html"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def parsed(*rows: dict[str, Any]) -> Tree:
    tree = Tree()
    tree.feed(page(list(rows), report_rows.RUN, report_rows.RECIPE))
    assert tree.open == []
    return tree


def said(*rows: dict[str, Any]) -> str:
    return " ".join(parsed(*rows).text.split())


def test_one_proven_box_is_told_in_full() -> None:
    text = said(report_rows.row())
    for part in (
        "spark-1 proven",
        "Run of 2026-11-23 10:05 UTC",
        "was fresh, proof of 2026-11-23 10:05 UTC",
        "51.6 tok/s at least 46.8, last time 51.4",
        "53 ms at most 130, last time 54",
        "114.6 tok/s at least 103.0, last time 113.9",
        "62 % limit 83.2 tok/s",
        "threshold 46.8 memory-bound limit 83.2 last time 51.4",
        "memory-bound limit 170.8",
        "run 5 long run",
        "FLASHINFER_CUTLASS MoE backend MARLIN",
        "15.76 GiB KV cache 81.8 GiB, 714,768 tokens",
        "weights 84 s, compile 23 s, CUDA graphs 13 s",
        "3 warnings",
        "273 GB/s of memory, over 3.235 GB of weights and 0.048 GB of KV cache",
        "lm_head BF16",
        "Probes: 9/9 passed",
        "arithmetic ok What is 2+2? Answer with one number. 4",
        "bg-digitalservices/Gemma-4-26B-A4B-it-NVFP4@" + "77ab03de" * 5,
        "sha256:" + "e31fa8d4" * 8,
        "Driver 580.95.05 Kernel 6.11.0-1016-nvidia",
        "DGX OS 7.2.3",
    ):
        assert part in text
    assert "The end of its log" not in text


def test_a_draft_model_is_told_beside_the_model() -> None:
    row = report_rows.row()
    assert "Draft model" not in said(row)
    row["evidence"]["draft"] = {"repo": "google/draft", "commit": "d" * 40}
    assert f"Draft model google/draft@{'d' * 40}" in said(row)


def test_a_failed_box_tells_what_failed_what_serves_and_how_its_log_ended() -> None:
    row = report_rows.slow()
    text = said(row)
    assert "spark-2 failed" in text
    for failure in row["failed"]["failures"]:
        assert text.count(failure) == 1, "nothing is told twice"
    assert "What served before was restored and answers again." in text
    assert "Serves now: gemma4-nvfp4 (vllm/vllm-openai:gemma4-cu130), vLLM 0.19.1.dev6, proven 2026-11-23 10:05 UTC, 51.6 decode" in text
    assert "The end of its log (APIServer pid=1)" in text
    assert "77aa77aa" in text, "the versions are those of the container that failed"


def test_a_failed_probe_tells_question_answer_and_why() -> None:
    text = said(report_rows.garbage())
    assert "fact failed What is the capital of France? !!!!" in text
    assert "repeats: one sign makes up all of the answer; '!!!" in text
    assert "Startup log: failed" in text
    assert "There is no evidence of this box." not in text


def test_what_is_hidden_of_a_long_answer_can_be_unfolded() -> None:
    text = said(report_rows.row())
    story = report_rows.evidence()["probes"][8]["answer"]
    assert text.count(story) == 1
    assert text.count(story[:200]) == 2


def test_bars_that_miss_the_threshold_and_figures_too_are_marked() -> None:
    def marked(row: dict[str, Any]) -> tuple[int, int]:
        elements = parsed(row).elements
        return (
            sum(1 for tag, attributes in elements if tag == "rect" and "low" in str(attributes["class"])),
            sum(1 for tag, attributes in elements if tag == "div" and attributes.get("class") == "bad"),
        )

    assert marked(report_rows.row()) == (0, 0)
    assert marked(report_rows.slow()) == (6, 2)


def test_a_regressed_box_says_what_became_worse() -> None:
    assert "Worse than the last time decode 47.3 tok/s, 8.0 % less than the 51.4 of 2026-11-20" in said(report_rows.regressed())


def test_a_box_that_was_never_reached_says_why_and_has_no_figures() -> None:
    text = said(report_rows.lost(), report_rows.row())
    assert "No route to host" in text
    assert "There is no evidence of this box." in text


def test_in_a_fleet_the_bad_ones_are_first_and_unfolded_and_the_others_are_folded() -> None:
    tree = parsed(*report_rows.fleet(100))
    boxes = [attributes for tag, attributes in tree.elements if tag == "details" and str(attributes.get("class")).startswith("box ")]
    assert [str(box["class"]) for box in boxes] == ["box failed"] + ["box proven"] * 99
    assert ["open" in box for box in boxes] == [True] + [False] * 99
    assert "100 boxes 1 failed 99 proven" in " ".join(tree.text.split())
    assert sum(1 for tag, _attributes in tree.elements if tag == "circle") == 100
    links = [attributes["href"] for tag, attributes in tree.elements if tag == "a"]
    anchors = [f"#{attributes['id']}" for _tag, attributes in tree.elements if attributes.get("id")]
    assert links == anchors
    assert len(set(links)) == 100


def test_the_spread_of_a_fleet_names_its_extremes() -> None:
    assert "Decode tok/s 31.2 spark-07 51.6 52.0 spark-96" in said(*report_rows.fleet(100))
    assert "median" not in said(*report_rows.fleet(7)[:4]), "four boxes are seen at a glance"


def test_all_boxes_of_a_few_are_unfolded() -> None:
    tree = parsed(report_rows.row("a"), report_rows.row("b"), report_rows.row("c"))
    boxes = [attributes for tag, attributes in tree.elements if tag == "details" and str(attributes.get("class")).startswith("box ")]
    assert ["open" in box for box in boxes] == [True] * 3


HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)> & {{ 7 * 7 }} {% raw %} ]]>"


def hostile(value: Any) -> Any:
    """The same document with something hostile in each text."""
    if isinstance(value, dict):
        return {key if key in KNOWN else HOSTILE: hostile(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [hostile(entry) for entry in value]
    return HOSTILE if isinstance(value, str) else value


# The keys that documents have; those of `formats` are the checkpoint's.
KNOWN = set(re.findall(r'"(\w+)":', Path(report_rows.__file__).read_text(encoding="utf-8"))) - {
    "attention",
    "MLP",
    "experts",
    "router",
    "lm_head",
}
KNOWN |= {"state", "box", "evidence", "failed", "why", "mean", "stdev"}


def test_every_text_is_escaped_wherever_it_comes_from() -> None:
    tree = parsed(*(hostile(row) for row in (report_rows.row(), report_rows.slow(), report_rows.lost(), report_rows.regressed())))
    assert [tag for tag, _attributes in tree.elements if tag in ("script", "img")] == []
    assert [name for _tag, attributes in tree.elements for name in attributes if name.startswith("on")] == []
    assert tree.text.count(clean(HOSTILE)) > 100
    assert html.escape(HOSTILE, quote=False).replace("'", "&#39;").replace('"', "&#34;") in page(
        [hostile(report_rows.row())], report_rows.RUN, report_rows.RECIPE
    )


def test_the_page_needs_nothing_from_outside_and_no_script() -> None:
    text = page(report_rows.fleet(7), report_rows.RUN, report_rows.RECIPE)
    assert not re.search(r"<script|<link|<img|\bsrc=|url\(|@import|href=\"(?!#)", text)
    assert "default-src 'none'" in text


def without(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy in which `value` stands at the path; the path's last key is taken away when it is `...`."""
    copied = copy.deepcopy(document)
    part = copied
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return copied


def paths(document: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where anything stands in it."""
    entries: Any = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in entries:
        yield (*prefix, key)
        # The entries of a list are alike.
        if not isinstance(document, list) or key == 0:
            yield from paths(value, (*prefix, key))


@pytest.mark.parametrize("value", [None, ..., "text", -1, [], {}, [None, 3], float("nan"), True], ids=repr)
def test_nothing_that_lacks_or_is_of_another_kind_breaks_the_page_or_the_text(value: Any) -> None:
    row = report_rows.slow()
    for path in paths(row):
        changed = without(row, path, value)
        parsed(changed)
        summary([changed])


def test_old_evidence_shows_its_share_and_dashes() -> None:
    text = said(report_rows.old())
    assert "62 %" in text
    assert "Driver - Kernel -" in text
    assert "memory-bound limit 83.2" not in text


def test_a_server_without_a_model_of_ours_has_dashes() -> None:
    text = said(report_rows.row(evidence={"verdict": "proven", "startup": {"ready": True}, "throughput": {}}))
    assert "Linear backend - MoE backend -" in text
    assert "Model - Image -" in text


def test_remarks_name_speculation_and_foreign_traffic() -> None:
    row = report_rows.row()
    row["evidence"]["throughput"] |= {
        "speculation": {"acceptance_length": 2.75, "steps_s": 39.2},
        "other_traffic": {"running_before": 2, "foreign_tokens": 512, "seen": True},
        "notes": ["the clock was capped"],
    }
    text = said(row)
    assert "Speculation: 2.75 tokens a step, 39.2 steps/s." in text
    assert "Others used the server meanwhile: 2 requests ran before, 512 tokens were not ours." in text
    assert "the clock was capped" in text
    assert "Others used" not in said(report_rows.row())


def test_what_utf_8_cannot_hold_can_be_written() -> None:
    row = report_rows.row()
    row["evidence"]["probes"][2]["answer"] = "half a pair \ud83d and a bell \x07 and \x00"
    page([row], report_rows.RUN, report_rows.RECIPE).encode()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2026-11-23T100530Z", "2026-11-23 10:05 UTC"),
        ("2026-11-23T10:05:30Z", "2026-11-23 10:05 UTC"),
        ("2026-11-23T12:05:30+02:00", "2026-11-23 10:05 UTC"),
        ("2026-11-23T10:00:01.123456789Z", "2026-11-23 10:00 UTC"),
        ("nightly", "nightly"),
        ("", ""),
    ],
)
def test_times_are_shown_as_utc(given: str, shown: str) -> None:
    assert moment(given) == shown
