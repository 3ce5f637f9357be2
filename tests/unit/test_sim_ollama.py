# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The lab's stand-in for Ollama."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.dgx.spark.plugins.module_utils._garbage import judge
from sim.ollama import Ollama

MODEL = "gemma4:26b"
SIZE = 17_000_000_000


def call(ollama: Ollama, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer; POST when there is a body."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(ollama.url + path, data=data), timeout=10) as answer:
        return json.load(answer)


def lines(ollama: Ollama, path: str, body: dict[str, Any]) -> list[str]:
    """The lines of a streamed answer."""
    with urllib.request.urlopen(urllib.request.Request(ollama.url + path, data=json.dumps(body).encode()), timeout=10) as answer:
        return [line for line in answer.read().decode().splitlines() if line]


def names(ollama: Ollama) -> list[str]:
    """The models in memory, as /api/ps shows them."""
    return [model["name"] for model in call(ollama, "/api/ps")["models"]]


def eventually(true: Callable[[], bool], within: float = 3.0) -> bool:
    """Does it come true in time?"""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return false_now(true)


def false_now(true: Callable[[], bool]) -> bool:
    """The last look."""
    return true()


def test_it_starts_with_nothing_loaded() -> None:
    with Ollama() as ollama:
        assert names(ollama) == []
        assert ollama.claims == {}
        assert [model["name"] for model in call(ollama, "/api/tags")["models"]] == [MODEL]
        assert call(ollama, "/api/version")["version"]
        assert [model["id"] for model in call(ollama, "/v1/models")["data"]] == [MODEL]


def test_an_empty_prompt_loads_and_takes_memory() -> None:
    with Ollama(load_delay=0.05) as ollama:
        answer = call(ollama, "/api/generate", {"model": MODEL})
        assert (answer["done"], answer["done_reason"]) == (True, "load")
        (model,) = call(ollama, "/api/ps")["models"]
        assert (model["size"], model["size_vram"]) == (SIZE, SIZE)
        assert ollama.claims == {MODEL: SIZE}


def test_unload_is_asynchronous_and_memory_comes_back_later() -> None:
    with Ollama(loaded=[{"name": MODEL, "size": SIZE}], unload_delay=0.3, memory_delay=0.4) as ollama:
        answer = call(ollama, "/api/generate", {"model": MODEL, "keep_alive": 0})
        assert (answer["done"], answer["done_reason"], answer["response"]) == (True, "unload", "")
        assert names(ollama) == [MODEL]
        assert eventually(lambda: names(ollama) == [])
        assert ollama.claims == {MODEL: SIZE}
        assert eventually(lambda: ollama.claims == {})


def test_unload_by_chat_without_messages() -> None:
    with Ollama(loaded=[{"name": MODEL}], unload_delay=0, memory_delay=0) as ollama:
        assert call(ollama, "/api/chat", {"model": "Gemma4:26B", "messages": [], "keep_alive": 0})["done_reason"] == "unload"
        assert eventually(lambda: names(ollama) == [] and ollama.claims == {})


def test_unload_waits_for_a_request_in_flight() -> None:
    with Ollama(loaded=[{"name": MODEL}], unload_delay=0, memory_delay=0, tok_s=20.0, ttft=0.0) as ollama:
        ended: list[float] = []

        def long_request() -> None:
            lines(ollama, "/api/generate", {"model": MODEL, "prompt": "Go on.", "options": {"num_predict": 12}})
            ended.append(time.monotonic())

        thread = threading.Thread(target=long_request)
        thread.start()
        assert eventually(lambda: bool(ollama.requests))
        time.sleep(0.1)
        call(ollama, "/api/generate", {"model": MODEL, "keep_alive": 0})
        time.sleep(0.2)
        assert names(ollama) == [MODEL]
        assert eventually(lambda: names(ollama) == [])
        gone = time.monotonic()
        thread.join()
        assert gone - ended[0] > -0.05


def test_a_stuck_model_stays() -> None:
    with Ollama(loaded=[{"name": MODEL}], unload_delay=0, memory_delay=0, stuck=True) as ollama:
        call(ollama, "/api/generate", {"model": MODEL, "keep_alive": 0})
        time.sleep(0.3)
        assert names(ollama) == [MODEL]
        call(ollama, "/_sim/state", {"stuck": False})
        assert eventually(lambda: names(ollama) == [])


def test_a_later_request_loads_again() -> None:
    with Ollama(loaded=[{"name": MODEL}], load_delay=0.05, unload_delay=0.1, memory_delay=0.2, ttft=0, tok_s=1000) as ollama:
        call(ollama, "/api/generate", {"model": MODEL, "keep_alive": 0})
        assert eventually(lambda: names(ollama) == [])
        call(ollama, "/api/generate", {"model": MODEL, "prompt": "x", "stream": False})
        assert names(ollama) == [MODEL]
        time.sleep(0.3)
        assert ollama.claims == {MODEL: SIZE}  # not given back by the unload that came before


def test_a_model_expires() -> None:
    with Ollama(load_delay=0, unload_delay=0, memory_delay=0, ttft=0, tok_s=1000) as ollama:
        call(ollama, "/api/generate", {"model": MODEL, "keep_alive": "200ms"})
        assert names(ollama) == [MODEL]
        assert eventually(lambda: names(ollama) == [])


def test_a_model_split_between_cpu_and_gpu() -> None:
    with Ollama() as ollama:
        call(ollama, "/_sim/state", {"loaded": [{"name": MODEL, "size": SIZE, "size_vram": 5_780_000_000}]})
        (model,) = call(ollama, "/api/ps")["models"]
        assert round((model["size"] - model["size_vram"]) / model["size"] * 100) == 66


def test_an_unknown_model_is_not_found() -> None:
    with Ollama() as ollama, pytest.raises(urllib.error.HTTPError) as refused:
        call(ollama, "/api/generate", {"model": "none"})
    assert refused.value.code == 404
    assert "not found" in json.load(refused.value)["error"]


def test_a_bad_setting_is_refused() -> None:
    with Ollama() as ollama, pytest.raises(urllib.error.HTTPError) as refused:
        call(ollama, "/_sim/state", {"stcuk": True})
    assert "stuck" in json.load(refused.value)["error"]


def test_a_streamed_chat_completion_with_usage() -> None:
    with Ollama(load_delay=0, ttft=0.05, tok_s=200.0) as ollama:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20, "stream": True}
        events = lines(ollama, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        assert events[-1] == "data: [DONE]"
        chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
        assert chunks[-1]["usage"]["completion_tokens"] == 20
        assert chunks[-1]["choices"] == []
        assert len([c for c in chunks if c["choices"] and c["choices"][0]["delta"]["content"]]) == 20
        whole = call(ollama, "/v1/chat/completions", {**body, "stream": False})
        assert whole["usage"]["completion_tokens"] == 20


def test_the_speed_is_what_was_set() -> None:
    with Ollama(load_delay=0, ttft=0.1, tok_s=100.0) as ollama:
        answer = call(ollama, "/api/generate", {"model": MODEL, "prompt": "x", "stream": False, "options": {"num_predict": 51}})
        assert answer["eval_count"] == 51
        assert 20 < answer["eval_count"] / (answer["eval_duration"] / 1e9) < 110


def chat(ollama: Ollama, tokens: int) -> str:
    """The text of a streamed chat completion."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": tokens, "stream": True}
    chunks = [json.loads(event.removeprefix("data: ")) for event in lines(ollama, "/v1/chat/completions", body) if "[DONE]" not in event]
    if "error" in chunks[-1]:
        raise OSError(chunks[-1]["error"]["message"])
    return "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


def test_a_long_answer_is_no_garbage() -> None:
    with Ollama(load_delay=0, ttft=0, tok_s=1e5) as ollama:
        text = chat(ollama, 1600)
    assert len(text.split()) == 1600
    assert judge(text, 1600, prose=True) == []


@pytest.mark.parametrize(("parallel", "in_line"), [(1, True), (2, False)])
def test_requests_beyond_those_at_once_wait_in_line(parallel: int, in_line: bool) -> None:
    with Ollama(load_delay=0, ttft=0, tok_s=50.0, num_parallel=parallel) as ollama:
        came: list[int] = []  # whose token came, one after the other

        def ask(number: int) -> None:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 40, "stream": True}
            request = urllib.request.Request(ollama.url + "/v1/chat/completions", data=json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                for line in answer:
                    if b'"content"' in line:
                        came.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # Two readers may get their turn late, so that some tokens seem to overlap.
    second = next(index for index, number in enumerate(came) if number != came[0])
    assert (second > 30) == in_line


def test_a_runner_that_dies_says_so_in_the_middle_of_the_answer() -> None:
    with Ollama(load_delay=0, ttft=0, tok_s=1e5, dies_after=1) as ollama:
        chat(ollama, 20)
        with pytest.raises(OSError, match="llama runner process has terminated"):
            chat(ollama, 20)


def test_tools_are_called_or_refused() -> None:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    with Ollama(load_delay=0, tools=True) as ollama:
        (choice,) = call(ollama, "/v1/chat/completions", body)["choices"]
        called = choice["message"]["tool_calls"][0]["function"]
        assert (called["name"], json.loads(called["arguments"])) == ("get_weather", {"city": "Paris"})
    with Ollama(load_delay=0) as ollama, pytest.raises(urllib.error.HTTPError) as refused:
        call(ollama, "/v1/chat/completions", body)
    assert refused.value.code == 400
    assert "does not support tools" in json.load(refused.value)["error"]["message"]
