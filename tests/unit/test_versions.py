# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._versions import Version, VersionError, parse, satisfies
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("0.19.1", Version((0, 19, 1), "")),
        ("0.19.1.dev6+g6d4a8e6d2", Version((0, 19, 1), "dev6")),
        ("0.18.2.dev0", Version((0, 18, 2), "dev0")),
        ("0.18.2-dev", Version((0, 18, 2), "dev")),
        ("0.32.0+cpu", Version((0, 32, 0), "")),
        ("v0.23.1rc1.dev790+g85d9", Version((0, 23, 1), "rc1.dev790")),
        ("0.11.0.post1", Version((0, 11, 0), "post1")),
        ("0.19.1.dev6+g6d4a8e6d2.d20260402.cu130", Version((0, 19, 1), "dev6")),
        ("0.20", Version((0, 20), "")),
    ],
)
def test_versions_are_read_as_vllm_writes_them(text: str, version: Version) -> None:
    assert parse(text) == version


def test_a_development_build_is_told_from_a_release() -> None:
    assert parse("0.19.1.dev6+g6d4a8e6d2").is_dev
    assert not parse("0.19.1rc1").is_dev


@pytest.mark.parametrize("text", ["", "dev", "gemma4-cu130", "0.19.x", "nightly-20260402", "1..2"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError, match="is not a version like 0.19.1"):
        parse(text)


@pytest.mark.parametrize(
    ("version", "wanted", "answer"),
    [
        ("0.19.1.dev6+g6d4a8e6d2", ">=0.19.0,<0.20", True),
        # By its release number: PEP 440 would put it before 0.19.0.
        ("0.19.0.dev5", ">=0.19.0", True),
        ("0.18.2.dev0", ">=0.19.0,<0.20", False),
        ("0.18.2-dev", ">=0.19.0,<0.20", False),
        ("0.20.0", ">=0.19.0,<0.20", False),
        ("0.20.0.dev1", "<0.20", False),
        ("0.20.2", ">=0.19.0,<0.20", False),
        ("0.19.10", "<0.19.2", False),
        ("0.32.0+cpu", ">=0.32,<0.33", True),
        ("0.19", "==0.19.0", True),
        ("0.19.1", "!=0.19.1", False),
        ("0.19.1", " >= 0.19 , <= 0.19.1 ", True),
        ("0.19.1", ">0.19.1", False),
        ("0.19.1", "", True),
        ("anything", "", True),
    ],
)
def test_a_range_is_checked_by_release_numbers(version: str, wanted: str, answer: bool) -> None:
    assert satisfies(version, wanted) is answer


@pytest.mark.parametrize("wanted", ["0.19", "=>0.19", "~=0.19", ">=0.19 <0.20", ">="])
def test_a_range_that_cannot_be_read_is_refused(wanted: str) -> None:
    with pytest.raises(VersionError):
        satisfies("0.19.1", wanted)


release = st.lists(st.integers(0, 40), min_size=1, max_size=4)


@given(release, release)
def test_exactly_one_of_less_equal_and_greater_holds(left: list[int], right: list[int]) -> None:
    version, bound = (".".join(map(str, numbers)) for numbers in (left, right))
    assert [satisfies(version, operator + bound) for operator in ("<", "==", ">")].count(True) == 1
    assert satisfies(version, f">={bound}") is not satisfies(version, f"<{bound}")
