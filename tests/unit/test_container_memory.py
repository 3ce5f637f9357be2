# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._memory import Memory, MemoryShort, parse_meminfo, required_gib, wait_available

MEMINFO = "MemTotal:       125829120 kB\nMemFree:          1048576 kB\nMemAvailable:   104857600 kB\nSwapTotal:             0 kB\n"


class Clock:
    """Time that only passes when somebody sleeps."""

    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def test_meminfo_is_read_in_gib() -> None:
    assert parse_meminfo(MEMINFO) == Memory(total=120.0, available=100.0)


@pytest.mark.parametrize(
    ("args", "gpus", "version", "gib"),
    [
        ({"gpu-memory-utilization": 0.85}, "all", "0.19.1", 102.0),
        ({"gpu-memory-utilization": "0.5"}, "all", "0.19.1", 60.0),
        # What vLLM takes when nothing is said.
        ({}, "all", "0.19.1.dev6+g6d4a8e6d2", 108.0),
        ({}, "all", "0.20.2", 110.4),
        ({}, "all", None, 110.4),
        ({"gpu-memory-utilization": 0.85}, "none", "0.32.0+cpu", 0.0),
    ],
)
def test_the_flags_say_what_is_reserved(args: dict[str, object], gpus: str, version: str | None, gib: float) -> None:
    assert required_gib(args, gpus, version, 120.0) == pytest.approx(gib)


def test_the_wait_ends_when_the_memory_is_back() -> None:
    clock = Clock()
    wait_available(102.0, 180, read=lambda: Memory(120.0, 40.0 if clock.now < 55 else 110.0), sleep=clock.sleep, clock=clock)
    assert clock.now == 55


def test_memory_that_is_there_needs_no_wait() -> None:
    clock = Clock()
    wait_available(0.0, 0, read=lambda: Memory(120.0, 1.0), sleep=clock.sleep, clock=clock)
    assert clock.now == 0


def test_the_wait_is_bounded_and_shows_who_holds_the_memory() -> None:
    clock = Clock()
    with pytest.raises(MemoryShort) as caught:
        wait_available(102.0, 60, read=lambda: Memory(120.0, 40.0), sleep=clock.sleep, clock=clock)
    assert clock.now == 60
    assert "only 40.0 GiB of memory are available after 60 s, 102.0 are needed (120.0 in all; largest: " in str(caught.value)
    assert "(pid " in str(caught.value)
    assert "memory_required_gib" in str(caught.value)
