# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""Module vllm_idle: when nobody is being answered, against the scripted vLLM and a clock of our own."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._idle import NoAnswer, NobodyListens, Seen, wait_idle
from ansible_collections.dgx.spark.plugins.module_utils._vllm_metrics import Metrics
from ansible_collections.dgx.spark.plugins.modules import vllm_idle
from sim.vllm_scripted.server import ScriptedServer
from unit.run_module import run_module

BUSY, FREE = Metrics(running=2.0, waiting=1.0), Metrics(running=0.0, waiting=0.0)


def watch(looks: list[Metrics | Exception], timeout: float) -> tuple[Seen, list[str]]:
    """What wait_idle says of these looks, one a second; and what it told meanwhile."""
    now: list[float] = [0.0]
    told: list[str] = []
    left: Iterator[Metrics | Exception] = iter(looks)

    def read() -> Metrics:
        found = next(left)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return wait_idle(read, timeout, told.append, sleep, lambda: now[0]), told


def test_it_waits_until_nothing_ran_for_a_second() -> None:
    # The third look is too early: a request that was taken a moment ago is in no counter yet.
    seen, told = watch([BUSY, BUSY, FREE, BUSY, FREE, FREE], 60)
    assert (seen.requests, seen.seconds) == (0, 5.0)
    assert told[0] == "2 requests run on vLLM and 1 wait, 60 s are left"


def test_it_ends_at_its_bound_with_what_is_left() -> None:
    seen, _told = watch([BUSY] * 4, 3)
    assert (seen.running, seen.waiting, seen.requests, seen.seconds) == (2, 1, 3, 3.0)


def test_where_nobody_listens_nothing_runs() -> None:
    seen, _told = watch([NobodyListens("refused")], 60)
    assert (seen.requests, seen.why, seen.seconds) == (None, "refused", 0)


def test_a_server_that_does_not_tell_is_asked_until_the_bound() -> None:
    assert watch([NoAnswer("hangs"), FREE, FREE], 60)[0].requests == 0
    seen, told = watch([NoAnswer("hangs")] * 3, 2)
    assert (seen.requests, seen.why) == (None, "hangs")
    assert "cannot be asked (hangs)" in told[0]
    assert watch([Metrics(running=0.0)] * 2, 1)[0].why == "its /metrics do not count requests"


def test_a_stream_that_goes_on_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": "Write a long story."}], "stream": True}
    headers = {"Content-Type": "application/json"}
    with ScriptedServer({"stream": {"tok_s": 10.0, "ttft_ms": 10.0}}) as server:
        idle = run_module(vllm_idle.main, capsys, base_url=server.base_url)
        request = urllib.request.Request(f"{server.base_url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.readline()
            busy = run_module(vllm_idle.main, capsys, base_url=server.base_url, timeout=0)
            looked = run_module(vllm_idle.main, capsys, check=True, base_url=server.base_url, timeout=60)
    assert (idle["changed"], idle["requests"], idle["why"]) == (False, 0, "")
    assert (busy["failed"], busy["running"], busy["waiting"]) == (True, 1, 0)
    assert "1 requests run on vLLM and 0 wait" in busy["msg"]
    assert "failed" not in looked
    assert looked["requests"] == 1


@pytest.mark.parametrize(("arguments", "says"), [({"base_url": "ftp://x"}, "is not a URL"), ({"timeout": "soon"}, "timeout")])
def test_a_misspelt_option_is_refused(arguments: dict[str, Any], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = run_module(vllm_idle.main, capsys, **arguments)
    assert refused["failed"]
    assert says in refused["msg"]


def test_no_server_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    gone = run_module(vllm_idle.main, capsys, base_url="http://127.0.0.1:1")
    assert "failed" not in gone
    assert gone["requests"] is None
    assert "Connection refused" in gone["why"]
