# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The garbage detectors on the corpus: no false alarm, none missed."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._garbage import excerpt, judge

ANSWERS = Path(__file__).parents[1] / "corpus" / "answers"


def corpus(kind: str) -> list[Any]:
    """Every answer of a kind, as a parameter with its place as its name."""
    found = []
    for path in sorted((ANSWERS / kind).glob("*.jsonl")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            found.append(pytest.param(json.loads(line), id=f"{path.stem}:{number}"))
    return found


def text_of(entry: dict[str, Any]) -> str:
    unit, times = entry.get("repeat", ["", 0])
    whole: str = entry["text"] + unit * times + entry.get("end", "")
    return whole


def found_in(entry: dict[str, Any], **more: Any) -> list[str]:
    options = {key: entry[key] for key in ("tokens", "forced", "prose", "text_tokens") if key in entry} | more
    return [finding.detector for finding in judge(text_of(entry), **options)]


@pytest.mark.parametrize("entry", corpus("good"))
def test_no_false_alarm(entry: dict[str, Any]) -> None:
    assert found_in(entry) == []
    if "tokens" not in entry:
        # As many tokens as there could be: one for each visible byte and for each run of white space.
        assert found_in(entry, tokens=len(re.findall(rb"\s+|\S", entry["text"].encode()))) == []


@pytest.mark.parametrize("entry", corpus("bad"))
def test_none_missed(entry: dict[str, Any]) -> None:
    assert entry["detector"] in found_in(entry)


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    good, bad = corpus("good"), corpus("bad")
    assert len(good) >= 200
    assert len(bad) >= 60
    assert len({str(entry.id).partition(":")[0] for entry in bad}) >= 12


@pytest.mark.parametrize(
    "entry", [entry for entry in corpus("good") if str(entry.id).startswith(("prose", "code", "scripts", "poems", "tables"))]
)
def test_a_good_answer_that_breaks_in_its_middle_is_bad(entry: dict[str, Any]) -> None:
    """The same texts, broken in the ways that a GB10 has shown."""
    text = text_of(entry)
    for broken in (text + "!" * 64, text + " the keeper" * 60, text + "\ufffd" * (3 + len(text) // 20)):
        assert judge(broken), broken[-80:]
    assert judge(text, 4 * len(text.encode()))


def test_what_comes_after_a_literal_end_of_turn_is_not_judged() -> None:
    assert judge("The capital is Paris.<turn|>" + "!" * 500, 600, forced=True) == []
    assert judge("The capital is Paris." + "!" * 500, 600, forced=True)


def test_a_loop_counts_in_a_forced_text_only_when_it_begins_early() -> None:
    story = " ".join(f"Then came the {ordinal} day, and it was unlike the ones before." for ordinal in map(str, range(40)))
    assert judge(story + " The end." * 100, forced=True) == []
    assert [finding.detector for finding in judge(story + " The end." * 100)] == ["loop"]
    assert [finding.detector for finding in judge(story[:400] + " The end." * 100, forced=True)] == ["loop"]


def test_the_reason_shows_what_was_found() -> None:
    [finding] = judge("", 800)
    assert finding.why.startswith("800 completion tokens and no visible text")
    assert "'!' 64 times" in judge("x" + "!" * 64)[0].why
    assert excerpt("a\n b " * 100, 10) == "a b a b a…"


def test_a_long_text_is_judged_quickly() -> None:
    """A loop's period is looked for in linear time."""
    started = time.process_time()
    judge("ab" * 50000 + "a" * 30, 100000, prose=True)
    assert time.process_time() - started < 0.5
