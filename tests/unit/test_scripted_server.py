# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the scripted vLLM answers, when, and what each scenario does to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sim.vllm_scripted.engine import Stream
from sim.vllm_scripted.server import ARTICLE, SO_TIMESTAMPNS, ScriptedServer, arrival
from sim.vllm_scripted.startup import API

QUICK = {"base": "fast"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def call(server: ScriptedServer, path: str, body: Any = None, method: str = "", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server.server_address[1], timeout=10)
    try:
        data = json.dumps(body) if body is not None else None
        connection.request(method or ("POST" if data else "GET"), path, data, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def chat(server: ScriptedServer, prompt: str, **more: Any) -> dict[str, Any]:
    body = {"model": "gemma-4-26b", "messages": [{"role": "user", "content": prompt}], "temperature": 0, **more}
    status, raw = call(server, "/v1/chat/completions", body)
    document: dict[str, Any] = json.loads(raw)
    assert status == 200, document
    return document


def test_a_prompt_is_turned_into_tokens_and_two_that_begin_alike_have_tokens_that_do() -> None:
    with ScriptedServer(QUICK) as server:
        asked = [{"messages": [{"role": "user", "content": f"One lamp, one reef, {word}"}]} for word in ("one chart", "two towers")]
        first, second = (json.loads(call(server, "/v1/chat/completions/render", body)[1])["token_ids"] for body in asked)
        assert first[:5] == second[:5]
        assert first != second
        status, raw = call(server, "/v1/completions/render", {"prompt": "One lamp"})
        assert (status, len(json.loads(raw)[0]["token_ids"])) == (200, 2)
        assert server.streams() == []


def events(raw: bytes) -> list[dict[str, Any]]:
    rows = [line[6:] for line in raw.decode().split("\n") if line.startswith("data: ")]
    assert rows[-1] == "[DONE]"
    return [json.loads(row) for row in rows[:-1]]


def stream(server: ScriptedServer, prompt: str, **more: Any) -> list[dict[str, Any]]:
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True, **more}
    status, raw = call(server, "/v1/chat/completions", body)
    assert status == 200, raw
    return events(raw)


def text_of(rows: list[dict[str, Any]], key: str = "content") -> str:
    return "".join(choice["delta"].get(key) or "" for row in rows for choice in row["choices"])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(QUICK) as running:
        yield running


# ------------------------------------------------------------------ answers
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is 2+2? Answer with one number.", "4"),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("What is the capital of France? Answer with one word.", "Paris"),
        ("What is 17*23?", "17 * 23 = 391."),
        ('Reply with JSON {"ok": true}', '{"ok": true}'),
        ("Reply with the single word: pong", "pong"),
    ],
)
def test_it_answers_sense(server: ScriptedServer, prompt: str, answer: str) -> None:
    document = chat(server, prompt)
    assert document["choices"][0]["message"]["content"] == answer
    assert document["choices"][0]["finish_reason"] == "stop"
    assert document["usage"]["completion_tokens"] > 1
    assert text_of(stream(server, prompt)) == answer


def test_it_calls_a_tool(server: ScriptedServer) -> None:
    prompt = "What is the weather in Paris? Use the tool."
    choice = chat(server, prompt, tools=[WEATHER])["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert choice["message"]["content"] is None
    rows = stream(server, prompt, tools=[WEATHER])
    parts = [part for row in rows for choice in row["choices"] for part in choice["delta"].get("tool_calls", [])]
    assert parts[0]["function"]["name"] == "get_weather"
    assert json.loads("".join(part["function"].get("arguments", "") for part in parts)) == {"city": "Paris"}
    assert rows[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tool_s_result_and_a_tool_that_is_not_needed(server: ScriptedServer) -> None:
    question = {"role": "user", "content": "What is the weather in Paris? Use the tool."}
    asked = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get_weather"}}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "18 degrees and sunny"}
    document = chat(server, "", messages=[question, asked, result], tools=[WEATHER])
    assert document["choices"][0]["message"]["content"] == "The weather in Paris is 18 degrees and sunny."
    assert "Paris" in chat(server, "What is the capital of France?", tools=[WEATHER])["choices"][0]["message"]["content"]


@pytest.mark.parametrize("how", ["parser", "scenario"])
def test_a_tool_call_that_stays_in_the_text(how: str) -> None:
    flags = [*ARTICLE[:-1], "pythonic"] if how == "parser" else ARTICLE
    with ScriptedServer({"base": "tools-in-text", **QUICK} if how == "scenario" else QUICK, flags) as running:
        if how == "scenario":
            call(running, "/_sim/scenario", {"base": "tools-in-text", "stream": {"tok_s": 500}})
        choice = chat(running, "What is the weather in Paris?", tools=[WEATHER])["choices"][0]
    assert choice["message"]["content"] == '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>'
    assert choice["message"]["tool_calls"] == []
    assert choice["finish_reason"] == "stop"


def test_tools_without_the_flags_are_refused() -> None:
    with ScriptedServer(QUICK, ["m"]) as running:
        status, raw = call(running, "/v1/chat/completions", {"messages": [{"role": "user", "content": "weather"}], "tools": [WEATHER]})
    assert status == 400
    assert b"requires --enable-auto-tool-choice" in raw


def test_it_thinks_when_it_is_asked_to(server: ScriptedServer) -> None:
    thinking = {"chat_template_kwargs": {"enable_thinking": True}}
    message = chat(server, "What is 17*23?", **thinking)["choices"][0]["message"]
    assert message["reasoning"] == "17 times 20 is 340. 17 times 3 is 51. 340 plus 51 is 391."
    assert message["content"] == "17 * 23 = 391."
    rows = stream(server, "What is 17*23?", stream_options={"include_usage": True}, **thinking)
    assert text_of(rows, "reasoning") == message["reasoning"]
    assert text_of(rows) == message["content"]
    # The control tokens around the thought make no event, but they count.
    assert rows[-1]["usage"]["completion_tokens"] > len(rows)
    with ScriptedServer(QUICK, ["m"]) as plain:
        assert chat(plain, "What is 17*23?", model="m", **thinking)["choices"][0]["message"]["content"].startswith("thought\n17 times")


def test_json_by_schema(server: ScriptedServer) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "year": {"type": "integer"}}, "required": ["city", "year"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    document = json.loads(chat(server, "Where and when?", response_format=wanted)["choices"][0]["message"]["content"])
    assert isinstance(document["city"], str)
    assert isinstance(document["year"], int)
    assert json.loads(chat(server, "Anything", response_format={"type": "json_object"})["choices"][0]["message"]["content"])


def test_logprobs_are_finite_and_not_above_zero(server: ScriptedServer) -> None:
    content = chat(server, "What is 2+2?", logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert [entry["token"] for entry in content] == ["4", "<turn|>"]
    assert all(-20 < entry["logprob"] <= 0 and len(entry["top_logprobs"]) == 2 for entry in content)


def test_a_story_of_any_length_does_not_repeat_itself() -> None:
    with ScriptedServer({"stream": {"tok_s": 100000.0, "ttft_ms": 0.0}}) as running:
        document = chat(running, "Write a long story about a lighthouse.", max_tokens=1633, ignore_eos=True)
    text = document["choices"][0]["message"]["content"]
    words = text.split()
    assert document["usage"]["completion_tokens"] == 1633
    assert document["choices"][0]["finish_reason"] == "length"
    assert 3 < len(text) / 1633 < 6
    assert len(text) / len(zlib.compress(text.encode())) < 2.3
    assert Counter(tuple(words[i : i + 8]) for i in range(len(words) - 7)).most_common(1)[0][1] == 1


# ------------------------------------------------------------------ the API
def test_what_every_client_asks_first(server: ScriptedServer) -> None:
    assert call(server, "/health") == (200, b"")
    assert json.loads(call(server, "/version")[1]) == {"version": "0.19.1.dev6+g6d4a8e6d2"}
    models = json.loads(call(server, "/v1/models")[1])["data"]
    assert [(row["id"], row["root"], row["max_model_len"]) for row in models] == [("gemma-4-26b", "/models/gemma4", 131072)]
    assert call(server, "/nothing")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "other", "messages": []}, 404, "The model `other` does not exist."),
        ({"model": "gemma-4-26b"}, 400, "Field required"),
        ({"messages": "hello"}, 400, "valid list"),
        ({"messages": [], "max_tokens": 999_999}, 400, "maximum context length is 131072 tokens"),
        ({"messages": [], "max_tokens": 0}, 400, "max_tokens must be at least 1"),
        ({"messages": [], "max_tokens": 5, "min_tokens": 9}, 400, "min_tokens must be less than or equal to max_tokens=5"),
        ({"messages": [], "stream_options": {"include_usage": True}}, 400, "only be defined when `stream=True`"),
    ],
)
def test_a_request_that_is_wrong(server: ScriptedServer, body: Any, status: int, words: str) -> None:
    got, raw = call(server, "/v1/chat/completions", body)
    assert got == status
    assert words in json.loads(raw)["error"]["message"]


@pytest.mark.parametrize("where", ["environment", "flag"])
def test_an_api_key(where: str) -> None:
    flags = [*ARTICLE, "--api-key", "k3y"] if where == "flag" else ARTICLE
    with ScriptedServer(QUICK, flags, api_key="k3y" if where == "environment" else "") as running:
        assert call(running, "/v1/models")[0] == 401
        assert call(running, "/v1/models", Authorization="Bearer wrong")[0] == 401
        assert call(running, "/v1/models", Authorization="Bearer k3y")[0] == 200
        assert call(running, "/health")[0] == 200


def test_the_shape_of_a_stream(server: ScriptedServer) -> None:
    rows = stream(server, "What is the capital of France?", stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert rows[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [row["usage"]["completion_tokens"] for row in rows] == [*range(9), 8]
    assert rows[-1]["choices"] == []
    assert [row["choices"][0]["finish_reason"] for row in rows[:-1]] == [None] * 8 + ["stop"]
    assert all("usage" not in row for row in stream(server, "What is the capital of France?"))


def test_min_tokens_and_completions(server: ScriptedServer) -> None:
    assert chat(server, "What is 2+2?", min_tokens=30, max_tokens=60)["usage"]["completion_tokens"] == 31
    status, raw = call(server, "/v1/completions", {"prompt": "What is the capital of France?", "max_tokens": 3, "logprobs": 1})
    choice = json.loads(raw)["choices"][0]
    assert (status, choice["text"], choice["finish_reason"]) == (200, "The capital of", "length")
    raw = call(server, "/v1/completions", {"prompt": "What is the capital of France?", "stream": True, "max_tokens": 99})[1]
    assert "".join(row["choices"][0]["text"] for row in events(raw)) == "The capital of France is Paris."


def test_metrics_count(server: ScriptedServer) -> None:
    chat(server, "What is 2+2?")
    text = call(server, "/metrics")[1].decode()
    labels = '{engine="0",model_name="gemma-4-26b"}'
    assert f"vllm:generation_tokens_total{labels} 2.0" in text
    assert f"vllm:num_requests_running{labels} 0.0" in text
    assert f"vllm:num_requests_waiting{labels} 0.0" in text
    assert f"vllm:kv_cache_usage_perc{labels} 0.0" in text
    # One token after the first: one interval.
    assert f"vllm:time_to_first_token_seconds_count{labels} 1.0" in text
    assert f"vllm:inter_token_latency_seconds_count{labels} 1.0" in text
    assert "spec_decode" not in text
    with ScriptedServer({"base": "fast", "stream": {"tokens_per_chunk": 3}}, [*ARTICLE, "--speculative-config", "{}"]) as running:
        chat(running, "What is the capital of France?")
        assert f"vllm:spec_decode_num_accepted_tokens_total{labels} 5.0" in call(running, "/metrics")[1].decode()


def test_requests_are_logged_as_uvicorn_does(server: ScriptedServer) -> None:
    call(server, "/v1/models")
    assert server.requests[-1].endswith('- "GET /v1/models HTTP/1.1" 200 OK')
    assert API.startswith("APIServer")


# ------------------------------------------------------------------ time
def parallel(server: ScriptedServer, count: int, tokens: int) -> None:
    threads = [
        threading.Thread(target=stream, args=(server, "Write a story."), kwargs={"max_tokens": tokens, "ignore_eos": True})
        for _thread in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_tokens_leave_on_schedule() -> None:
    with ScriptedServer({"stream": {"tok_s": 200.0, "ttft_ms": 60.0}}) as running:
        stream(running, "Write a story.", max_tokens=100, ignore_eos=True)
        (seen,) = running.streams()
    assert seen.first_token is not None
    assert seen.tokens == 100
    late = [at - (seen.received + 0.06 + number / 200) for number, at in enumerate(seen.times)]
    assert min(late) >= 0
    # A busy machine may delay a token, never all of them, and a late one does not push the next ones.
    assert sorted(late)[50] < 0.1


def test_a_request_counts_from_when_the_kernel_had_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as accepted:
            before = time.monotonic()
            client.sendall(b"GET")
            after = time.monotonic()
            time.sleep(0.3)  # the thread that reads it wakes up late
            assert before <= arrival(accepted) <= after + 0.001
            assert accepted.recv(10) == b"GET"


def test_three_streams_at_once_stay_on_schedule() -> None:
    with ScriptedServer({"stream": {"tok_s": 500.0, "ttft_ms": 20.0, "parallel_cost": 0.0}}) as running:
        parallel(running, 3, 250)
        rows = running.streams()
    assert len(rows) == 3
    for row in rows:
        assert row.last_token is not None
        # 0.02 s + 249 / 500 s; one after the other they would take 1.5 s.
        assert 0.518 <= row.last_token - row.received < 1.2


def test_streams_side_by_side_are_slower_as_in_the_article() -> None:
    with ScriptedServer({"base": "fast"}) as running:
        parallel(running, 3, 200)
        rows = running.streams()
    wall = max(row.last_token or 0 for row in rows) - min(row.received for row in rows)
    # At a tenth of the time: 3 · 200 tokens at 3 · 382.8 tok/s after 10 ms, which is 0.53 s; at full speed it would be 0.4 s.
    assert 0.48 < wall < 1.2


def test_the_true_times_can_be_read(server: ScriptedServer) -> None:
    before = time.monotonic()
    stream(server, "What is 2+2?")
    document = json.loads(call(server, "/_sim/streams?times=1")[1])
    (row,) = document["streams"]
    assert before <= row["received"] <= row["first_token"] <= row["last_token"] <= document["now"]
    assert len(row["times"]) == row["tokens"] == 2
    assert row["finish"] == "stop"
    call(server, "/_sim/streams", method="DELETE")
    assert json.loads(call(server, "/_sim/streams")[1])["streams"] == []


# ------------------------------------------------------------------ ways to stream
def test_tokens_in_bundles() -> None:
    with ScriptedServer({"stream": {"tok_s": 400.0, "ttft_ms": 5.0, "tokens_per_chunk": 4}}) as running:
        rows = stream(running, "Write a story.", max_tokens=42, ignore_eos=True, stream_options={"include_usage": True})
        (seen,) = running.streams()
    assert len(rows) == 1 + 11 + 1
    assert rows[-1]["usage"]["completion_tokens"] == 42
    # Ten bundles after the first, at 400 tok/s. A bundle in a token's time would make 0.03 s, every token in a bundle's time 0.4 s.
    assert 0.1 <= seen.times[40] - seen.received < 0.38


@pytest.mark.parametrize(("role", "ttft_ms"), [("first_token", 200.0), ("at_once", 9000.0), ("none", 200.0)])
def test_the_chunk_with_the_role(role: str, ttft_ms: float) -> None:
    with ScriptedServer({"stream": {"ttft_ms": ttft_ms, "tok_s": 500.0, "role_chunk": role}}) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.server.server_address[1])
        connection.connect()
        sent = time.monotonic()
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [], "stream": True, "max_tokens": 2}))
        response = connection.getresponse()
        line = response.readline()
        took = time.monotonic() - sent
        response.close()
        connection.close()
    assert (b'"role"' in line) == (role != "none")
    assert (took < ttft_ms / 1e3) == (role == "at_once")


def test_tokens_that_make_no_event() -> None:
    with ScriptedServer({"base": "fast", "stream": {"swallow_first": 3, "swallow_every": 5}}) as running:
        rows = stream(running, "Write a story.", max_tokens=20, ignore_eos=True, stream_options={"include_usage": True})
        (seen,) = running.streams()
    assert rows[-1]["usage"]["completion_tokens"] == seen.tokens == 20
    assert seen.chunks == 20 - 3 - 3  # the 5th, 10th and 15th; the last one always comes, as it says why the stream ends
    assert len(rows) == 1 + seen.chunks + 1


def test_comments_thoughts_and_split_events() -> None:
    extra = {"keep_alive_every": 4, "reasoning_first": 6, "tcp_split": 9}
    with ScriptedServer({"base": "fast", "stream": extra}) as running:
        body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "stream": True}
        raw = call(running, "/v1/chat/completions", body)[1]
    rows = events(raw)
    assert raw.count(b": keep-alive\n\n") == 4
    assert text_of(rows) == "The capital of France is Paris."
    assert len([row for row in rows if "reasoning" in row["choices"][0]["delta"]]) == 6


def test_events_that_leave_in_one_packet() -> None:
    with ScriptedServer({"stream": {"tok_s": 200.0, "ttft_ms": 5.0, "tcp_merge": 3, "swallow_every": 5, "role_chunk": "none"}}) as running:
        rows = stream(running, "Write a story.", max_tokens=11, ignore_eos=True)
        (seen,) = running.streams()
    assert len(rows) == seen.chunks == 11 - 2
    # Three steps a packet, the last one has two. The 5th and 10th token make no event; they are due before their packet leaves.
    assert [seen.whole.count(at) for at in sorted(set(seen.whole))] == [3, 3, 3, 2]
    assert seen.times[4] < seen.times[3] == seen.times[5] == seen.whole[4]
    # The packet waits for its last step: 5 ms and two steps of 5 ms.
    assert seen.ttft_ms is not None
    assert seen.ttft_ms >= 15


def test_the_role_waits_for_the_packet_of_the_first_token() -> None:
    body = json.dumps({"messages": [], "stream": True, "max_tokens": 3}).encode()
    with (
        ScriptedServer({"stream": {"tok_s": 20.0, "ttft_ms": 5.0, "tcp_merge": 3}}) as running,
        socket.create_connection(("127.0.0.1", running.server.server_address[1])) as connection,
    ):
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        head = connection.recv(1 << 16)
        packet = connection.recv(1 << 16)
    assert head.endswith(b"\r\n\r\n")
    assert b'"role"' in packet
    assert packet.count(b"data: ") >= 4


def test_packets_that_end_in_the_middle_of_an_event() -> None:
    with ScriptedServer({"base": "fast", "stream": {"tcp_merge": 4, "tcp_split": 300, "role_chunk": "none"}}) as running:
        rows = stream(running, "Write a story.", max_tokens=8, ignore_eos=True)
        (seen,) = running.streams()
    assert len(rows) == 8
    # An event has left with its own last byte, before the rest of what was sent with it.
    assert seen.times == sorted(seen.times)
    assert len(set(seen.times[:4])) > 1
    assert seen.times[0] < seen.times[3] == seen.whole[0] == seen.whole[3]


def test_the_true_rate_counts_what_came_after_the_first_packet() -> None:
    seen = Stream("x", received=10.0, prompt_tokens=1, streaming=True)
    seen.sent(2, 10.1, 10.1, visible=False)
    for step in range(12):
        whole = 10.2 + step // 3 * 0.06
        seen.sent(1, whole - 0.001 * (2 - step % 3), whole, visible=True)
    assert seen.ttft_ms == pytest.approx(198)
    assert seen.decode_tok_s == pytest.approx(9 / 0.18)


@pytest.mark.parametrize(("usage", "seen"), [("asked", 6), ("end", 1), ("none", 0)])
def test_when_usage_is_told(usage: str, seen: int) -> None:
    with ScriptedServer({"base": "fast", "stream": {"usage": usage}}) as running:
        options = {"include_usage": True, "continuous_usage_stats": True}
        rows = stream(running, "Write a story.", max_tokens=4, stream_options=options)
    assert len([row for row in rows if "usage" in row]) == seen


def test_an_error_in_the_middle() -> None:
    with ScriptedServer({"base": "mid-stream-error", "stream": {"tok_s": 1000.0}}) as running:
        body = {"messages": [{"role": "user", "content": "Write a story."}], "stream": True}
        rows = events(call(running, "/v1/chat/completions", body)[1])
    assert rows[-1]["error"]["code"] == 500
    assert len(rows) == 1 + 20 + 1


def test_a_connection_that_breaks() -> None:
    with ScriptedServer({"base": "cut-mid-stream", "stream": {"tok_s": 1000.0}}) as running, pytest.raises(http.client.HTTPException):
        call(running, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Write a story."}], "stream": True})


# ------------------------------------------------------------------ faults
@pytest.mark.parametrize(
    ("kind", "seen"),
    [("empty", ""), ("bang", "!" * 40), ("replacement", "\ufffd"), ("loop", " The keeper climbed the stairs and lit the lamp." * 3)],
)
def test_garbage(kind: str, seen: str) -> None:
    with ScriptedServer({"stream": {"tok_s": 50000.0, "ttft_ms": 1.0}, "fault": {"garbage": kind}}) as running:
        document = chat(running, "What is 2+2?", max_tokens=40)
        rows = stream(running, "What is 2+2?", max_tokens=40, stream_options={"include_usage": True})
    content = document["choices"][0]["message"]["content"]
    assert seen in content
    assert content == text_of(rows)
    assert kind != "empty" or content == ""
    assert document["usage"]["completion_tokens"] == rows[-1]["usage"]["completion_tokens"] == 40
    assert document["choices"][0]["finish_reason"] == "length"


def test_without_marlin_the_answers_are_garbage() -> None:
    without = [word for word in ARTICLE if word not in ("--moe-backend", "marlin")]
    with ScriptedServer(QUICK, without) as running:
        assert chat(running, "What is 2+2?", max_tokens=9)["choices"][0]["message"]["content"] == ""
    with ScriptedServer(QUICK, without, version="0.30.0") as running:
        assert chat(running, "What is 2+2?")["choices"][0]["message"]["content"] == "4"


def test_garbage_only_side_by_side() -> None:
    with ScriptedServer({"base": "garbage-parallel", "stream": {"tok_s": 500.0, "ttft_ms": 800.0}}) as running:
        assert chat(running, "What is 2+2?")["choices"][0]["message"]["content"] == "4"
        texts: list[str] = []
        threads = [threading.Thread(target=lambda: texts.append(text_of(stream(running, "Hello", max_tokens=20)))) for _thread in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == ["", ""]


def test_nan_logprobs() -> None:
    with ScriptedServer({"base": "nan-logprobs", "stream": {"tok_s": 500.0}}) as running:
        body = {"messages": [{"role": "user", "content": "What is 2+2?"}], "logprobs": True}
        status, raw = call(running, "/v1/chat/completions", body)
        rows = stream(running, "What is 2+2?", logprobs=True)
        assert chat(running, "What is 2+2?")["choices"][0]["message"]["content"] == "4"
    assert status == 500
    assert b"Out of range float values" in raw
    assert rows[1]["choices"][0]["logprobs"]["content"][0]["logprob"] is None


def test_a_hung_engine_answers_health_and_nothing_else() -> None:
    with ScriptedServer("hung-engine") as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.server.server_address[1], timeout=0.4)
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [], "stream": True}))
        response = connection.getresponse()
        with pytest.raises(TimeoutError):
            response.readline()
        assert call(running, "/health")[0] == 200
        assert b'vllm:num_requests_running{engine="0",model_name="gemma-4-26b"} 1.0' in call(running, "/metrics")[1]
        response.close()
        connection.close()
        end = time.monotonic() + 2
        while running.engine.concurrency and time.monotonic() < end:
            time.sleep(0.05)
        assert running.streams()[0].finish == "abort"


def test_refusals_and_the_engine_s_death() -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 20, "ignore_eos": True}
    with ScriptedServer("http-500") as running:
        status, raw = call(running, "/v1/chat/completions", body)
        assert status == 500
        assert b"EngineCore encountered an issue" in raw
    with ScriptedServer({"base": "dies-serving", "stream": {"tok_s": 500.0}}) as running:
        for _request in range(2):
            call(running, "/v1/chat/completions", body)
        with pytest.raises(http.client.HTTPException):
            call(running, "/v1/chat/completions", body)
        with pytest.raises(OSError):
            call(running, "/health")


@pytest.mark.parametrize(("timeout", "finish"), [(5.0, "length"), (0.0, "abort")])
def test_a_stop_drains_or_aborts(timeout: float, finish: str) -> None:
    with ScriptedServer({"stream": {"tok_s": 100.0, "ttft_ms": 5.0}}) as running:
        rows: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: rows.extend(stream(running, "Write a story.", max_tokens=30)))
        thread.start()
        while not running.engine.generated:
            time.sleep(0.01)
        assert running.engine.stop(timeout) == (finish == "length")
        thread.join(timeout=5)
        assert call(running, "/v1/chat/completions", {"messages": []})[0] == 503
    assert rows[-1]["choices"][0]["finish_reason"] == finish
