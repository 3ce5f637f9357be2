# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Memory before a start: how much vLLM will reserve, and a bounded wait until that much is available.

A GB10 shares one memory between CPU and GPU, so /proc/meminfo tells (nvidia-smi says N/A there). A stopped vLLM gives it back late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._versions import satisfies

_GIB = 1024 * 1024  # KiB in a GiB


class MemoryShort(Exception):
    """Not enough memory became available in time; the message says how much there is and who holds the rest."""


@dataclass(frozen=True)
class Memory:
    """The box's memory in GiB."""

    total: float
    available: float


def parse_meminfo(text: str) -> Memory:
    """Read the text of /proc/meminfo, which counts in KiB."""
    kib = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name in ("MemTotal", "MemAvailable"):
            kib[name] = int(value.split()[0])
    return Memory(total=kib["MemTotal"] / _GIB, available=kib["MemAvailable"] / _GIB)


def read_memory() -> Memory:
    with open("/proc/meminfo", encoding="ascii") as file:
        return parse_meminfo(file.read())


def required_gib(args: Mapping[str, Any], gpus: str, vllm_version: str | None, total: float) -> float:
    """What a vLLM with these flags takes of C(total) GiB when it starts. Without a GPU the flag reserves nothing: 0."""
    if gpus != "all":
        return 0.0
    share = args.get("gpu-memory-utilization")
    if share is None:
        # vLLM's own default, raised in 0.20.2.
        share = 0.9 if vllm_version and satisfies(vllm_version, "<0.20.2") else 0.92
    return float(share) * total


def wait_available(
    required: float,
    timeout: float,
    remedy: str = "stop what holds it, lower gpu-memory-utilization, or set memory_required_gib",
    read: Callable[[], Memory] = read_memory,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return as soon as C(required) GiB are available; look once a second, for at most C(timeout) seconds. Raises MemoryShort."""
    deadline = clock() + timeout
    while (memory := read()).available < required:
        if clock() >= deadline:
            raise MemoryShort(
                f"only {memory.available:.1f} GiB of memory are available after {timeout:g} s, {required:.1f} are needed"
                f" ({memory.total:.1f} in all; {_holders()}): {remedy}"
            )
        sleep(1)


def _holders(count: int = 3) -> str:
    """The largest processes, as evidence: a name, a pid and GiB each. Memory that only the GPU's driver counts is not in it."""
    page = os.sysconf("SC_PAGE_SIZE")
    sizes: list[tuple[int, str, str]] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                resident = int(file.read().split()[1]) * page
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                sizes.append((resident, file.read().strip(), pid))
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    largest = sorted(sizes, reverse=True)[:count]
    return "largest: " + ", ".join(f"{name} (pid {pid}) {size / 1024**3:.1f}" for size, name, pid in largest)


def drop_caches() -> str | None:
    """Give the page cache back, as CUDA does not count it as free. Returns a warning when this machine does not allow it."""
    try:
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")
    except OSError as exc:
        return f"The page cache was not dropped ({exc.strerror}); where it is not allowed set drop_caches to false"
    return None
