# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""From how a start ended, what its log says and what was expected: the failures, each with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._log_follow import End
from ansible_collections.dgx.spark.plugins.module_utils._startup_expect import failure, unmet
from ansible_collections.dgx.spark.plugins.module_utils._startup_log import StartupLog

_READY = "Application startup complete."
# What a shell or the kernel says with an exit code.
_EXIT_CODES = {
    0: "it ended without an error, which a server does not do by itself: see the log's tail",
    125: "Docker could not run it: see 'docker inspect' (State.Error)",
    126: "its program cannot be executed: see the image's entrypoint and its processor",
    127: "its program is not in the image: see the image's entrypoint",
    132: "the processor lacks an instruction that the image uses: take an image for this processor",
    134: "it aborted: the log's tail has the reason",
    137: "it was killed: by 'docker stop', an administrator, or for want of memory ('journalctl -k', 'journalctl -u earlyoom')",
    139: "it crashed (segmentation fault): the log's tail has the last words",
    143: "it was asked to stop: somebody or something stops this container",
}


def failures(log: StartupLog, end: End, expect: Mapping[str, Any], timeout: float) -> list[dict[str, str]]:
    """[{expected, seen, line, remedy}], the reason why it did not start first; empty when it is ready and all expectations are met.

    C(expect) is checked already. Where the start did not get so far, only what the log contradicts counts, not what it still lacks.
    """
    if end.kind == "begins_late":
        remedy = (
            "the log of this start was rotated away, so nothing can be proven from it: restart the container, and raise log_max_size if its"
            " log rotates between the start and the proof"
        )
        return [failure("the log of this start", "a server that takes requests, without the lines of its start", "", remedy)]
    missed = unmet(log, expect)
    if end.kind == "ready":
        return missed
    contradicted = [entry for entry in missed if entry["line"]]
    return [_not_started(log, end, timeout), *contradicted]


def _not_started(log: StartupLog, end: End, timeout: float) -> dict[str, str]:
    times = "once" if end.restarts == 1 else f"{end.restarts} times"
    if log.fatal:
        loop = f"; Docker started it again ({times} so far), a crash loop: stop the container to end it" if end.restarts else ""
        return failure("vLLM starts", log.fatal.seen, log.fatal.line, log.fatal.remedy + loop)
    if end.kind == "timeout":
        remedy = "see where the log's tail stops; if it was only slow, raise the timeout"
        return failure(f"{_READY!r} within {timeout:g} s", f"still {end.progress} after {end.waited:g} s", log.last_error, remedy)
    how = f"the container exited with code {end.exit_code}" if end.exit_code is not None else "the container exited"
    if end.error:
        how += f" ({end.error})"
    if end.oom_killed:
        remedy = "it was killed for want of memory: unload what else holds memory, or lower gpu-memory-utilization"
    else:
        remedy = _EXIT_CODES.get(end.exit_code or 0, "the log's tail says why") if end.exit_code is not None else "the log's tail says why"
    if end.kind == "crash_loop":
        how += f" and Docker started it again ({times} so far): a crash loop"
        return failure("vLLM starts", how, end.earlier, "the cause is in the line or in the log's tail; stop the container to end the loop")
    return failure(
        "vLLM starts", how + (f" while {end.progress}" if end.progress != "ready" else " after it was ready"), log.last_error, remedy
    )


def sentence(entry: Mapping[str, str]) -> str:
    """One failure as a sentence."""
    text = f"expected {entry['expected']}, saw {entry['seen']}"
    if entry["line"] and entry["line"] != entry["seen"]:
        text += f" in the line '{entry['line'][:300]}'"
    return f"{text}; {entry['remedy']}"
