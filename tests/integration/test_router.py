# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The gateway with the real vllm-router before scripted boxes: it says where a prompt belongs, and HAProxy keeps all that it promises."""

from __future__ import annotations

import contextlib
import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.gateway import CALM, Gateway, boxes, module, more_streams, under_load, until
from integration.scripted_box import Box
from load.streams import BROKEN

MODEL = "gemma-4-26b"
ENGINE = {"gateway_engine": "vllm-router"}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with boxes("spark-1", "spark-2", "spark-3") as made, Gateway(tmp_path, made, **ENGINE) as running:
        running.admit()
        yield running


def beginning(number: int) -> str:
    """A long beginning that no other one shares."""
    return " ".join(random.Random(number).choices(["lamp", "reef", "chart", "tower", "granite", "mortar", "night", "coast"], k=400))


@contextlib.contextmanager
def stream(gateway: Gateway, system: str, question: str, url: str = "") -> Iterator[str]:
    """A stream that lasts as long as the block; the name of its box."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 10_000, "ignore_eos": True, "stream": True}
    request = urllib.request.Request(
        f"{url or gateway.base_url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.readline().startswith(b"data:")
        yield answer.headers["x-served-by"]


def box_of(gateway: Gateway, system: str, question: str) -> str:
    """Which box answers a prompt."""
    with stream(gateway, system, question) as name:
        return name


def by_name(gateway: Gateway, name: str) -> Box:
    return next(box for box in gateway.boxes if box.name == name)


def test_prompts_that_begin_alike_go_to_one_box_and_others_to_others(gateway: Gateway) -> None:
    with contextlib.ExitStack() as held:
        first = [held.enter_context(stream(gateway, beginning(number), "How high is it?")) for number in range(3)]
        again = [held.enter_context(stream(gateway, beginning(number), "And how old?")) for number in (2, 0, 1, 0)]
    assert sorted(first) == ["spark-1", "spark-2", "spark-3"]
    assert again == [first[number] for number in (2, 0, 1, 0)]


def test_a_beginning_that_all_share_does_not_fill_one_box_while_others_idle(gateway: Gateway) -> None:
    with contextlib.ExitStack() as held:
        chosen = [held.enter_context(stream(gateway, beginning(0), f"Question {number}?")) for number in range(12)]
    counts = [chosen.count(box.name) for box in gateway.boxes]
    assert min(counts) >= 2
    assert max(counts) - min(counts) <= 5


def test_a_drain_loses_no_stream_and_a_drained_box_gets_nothing_until_it_is_admitted(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    home = by_name(gateway, box_of(gateway, beginning(0), "How high is it?"))
    with under_load(gateway) as load:
        result = module(gateway, capsys, home, "drained", timeout=60)
        assert (result["changed"], result["server"]["state"], result["server"]["sessions"]) == (True, "drained", 0)
        until("nothing runs there but what the agent asks", lambda: home.running == 0)
        more_streams(load, 1)
        before = load.tokens_of(home.name)
        gateway.reload()
        more_streams(load, 12)
        assert load.tokens_of(home.name) == before > 0
        assert box_of(gateway, beginning(0), "And how old?") != home.name
        assert module(gateway, capsys, home, "ready")["changed"]
        until("it takes part again", lambda: load.tokens_of(home.name) > before)
    assert load.result()["failures"] == []


def test_a_drain_waits_for_a_stream_that_came_through_the_router(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    with stream(gateway, beginning(0), "How high is it?") as name:
        result = module(gateway, capsys, by_name(gateway, name), "drained", timeout=1)
    assert f"1 streams run on {name} after 1 s" in result["msg"]


def test_a_box_that_answers_garbage_is_out_for_its_own_prompts_too(gateway: Gateway) -> None:
    home = by_name(gateway, box_of(gateway, beginning(0), "How high is it?"))
    home.play({**CALM, "fault": {"garbage": "gibberish"}})
    gateway.until_status(home, "DOWN")
    assert box_of(gateway, beginning(0), "And how old?") != home.name


def test_a_full_box_waits_for_nobody(gateway: Gateway) -> None:
    url = f"http://127.0.0.1:{gateway.variables['__gateway_boxes_port']}/box/spark-2"
    with contextlib.ExitStack() as held:
        chosen = [held.enter_context(stream(gateway, beginning(0), "A story.", url)) for _number in range(18)]
    assert chosen[:16] == ["spark-2"] * 16
    assert "spark-2" not in chosen[16:]


def test_only_the_streams_of_a_box_that_dies_break(gateway: Gateway) -> None:
    with under_load(gateway) as load:
        # Not one that only answers the agent.
        until("a box has streams", lambda: max(box.running for box in gateway.boxes) >= 3)
        dying = max(gateway.boxes, key=lambda box: box.running)
        others = [box for box in gateway.boxes if box is not dying]
        dying.die()
        gateway.until_status(dying, "DOWN")
        until("the others do its work", lambda: sum(box.running for box in others) >= 9)
    result = load.result()
    assert result["failures"] != []
    assert {failure["box"] for failure in result["failures"]} == {dying.name}
    assert BROKEN in {failure["kind"] for failure in result["failures"]}


def test_a_router_that_is_restarted_loses_no_stream(gateway: Gateway) -> None:
    with under_load(gateway) as load:
        gateway.stop_router()
        more_streams(load, 9)
        gateway.start_router()
        more_streams(load, 9)
    assert load.result()["failures"] == []


def test_a_router_that_dies_takes_its_streams_with_it_and_haproxy_goes_on_alone(gateway: Gateway) -> None:
    with under_load(gateway) as load:
        died = load.now
        gateway.kill_router()
        more_streams(load, 18)
        assert gateway.router_status().startswith("DOWN")
        gateway.start_router()
        more_streams(load, 9)
    failures = load.result()["failures"]
    assert 0 < len(failures) <= 9
    assert all(failure["started"] <= died + 0.5 for failure in failures)


def test_a_key_is_handed_on_and_the_doors_of_the_router_are_shut(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\n")
    with (
        boxes("spark-1", flags=("--api-key", "sk-1")) as made,
        Gateway(tmp_path, made, key_file=str(tmp_path / "key"), **ENGINE) as running,
    ):
        running.admit()

        def asked(path: str, key: str, body: object = None) -> int:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            try:
                with urllib.request.urlopen(urllib.request.Request(running.base_url + path, data, headers), timeout=10) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as exc:
                return exc.code

        question = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        assert (asked("/v1/chat/completions", "sk-1", question), asked("/v1/chat/completions", "sk-2", question)) == (200, 401)
        for path in ("/workers", "/list_workers", "/get_loads", "/metrics", "/box/spark-1/v1/models", "/v1/../workers", "/v1/workers"):
            assert asked(path, "sk-1") == 404
        for path in ("/add_worker?url=http://127.0.0.1:1", "/remove_worker?url=http://127.0.0.1:1", "/flush_cache", "/v1//add_worker"):
            assert asked(path, "sk-1", {}) == 404
        assert "/box/spark-1" in running.ask_router("/list_workers")
