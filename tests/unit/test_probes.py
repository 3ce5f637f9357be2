# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""The probes against a scripted vLLM that is healthy, and broken in every way that it can play."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx.spark.plugins.module_utils import _probes
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import Client
from ansible_collections.dgx.spark.plugins.module_utils._picture import data_url
from ansible_collections.dgx.spark.plugins.module_utils._probes import NAMES, run
from ansible_collections.dgx.spark.plugins.modules import openai_probe
from sim.vllm_scripted import picture
from sim.vllm_scripted.answers import answer
from sim.vllm_scripted.server import ARTICLE, ScriptedServer
from unit.run_module import run_module

MODEL = "gemma-4-26b"
# Without a key there is nothing to be kept out of.
KEYLESS = [name for name in NAMES if name != "api_key"]
FAST = {"tok_s": 20000.0, "ttft_ms": 2.0}


def scripted(fault: dict[str, Any] | None = None, flags: list[str] | None = None, **stream: Any) -> ScriptedServer:
    return ScriptedServer({"stream": {**FAST, **stream}, "fault": fault or {}}, flags)


def probe(server: ScriptedServer, *names: str, timeout: float = 20, model: str = MODEL) -> dict[str, str]:
    """{name: why it failed, empty for passed}."""
    return {result["name"]: result["why"] for result in run(Client(server.base_url), model, names or KEYLESS, timeout)}


def test_a_healthy_server_passes_all_of_them() -> None:
    with scripted() as server:
        results = run(Client(server.base_url), MODEL, KEYLESS, 20)
    assert [(result["name"], result["why"]) for result in results if not result["ok"]] == []
    answers = {result["name"]: result["answer"] for result in results}
    assert answers["arithmetic"] == "4"
    assert answers["fact"] == "The capital of France is Paris."
    assert answers["json"] == '{"ok": true}'
    assert answers["tool_call"] == answers["tool_call_stream"] == 'get_weather({"city": "Paris"})'
    assert "391" in answers["reasoning"]
    assert "after thinking: 17 times 20 is 340" in answers["reasoning"]
    assert answers["story"].endswith("…")
    assert answers["image"] == "red: Red, blue: Blue"
    assert all(result["prompt"] for result in results)


@pytest.mark.parametrize(
    ("garbage", "words"),
    [("empty", "no visible text"), ("bang", "times in a row"), ("loop", "loop"), ("replacement", "U+FFFD"), ("script", "script")],
)
def test_garbage_fails_every_probe_that_reads_text(garbage: str, words: str) -> None:
    with scripted({"garbage": garbage}) as server:
        whys = probe(server, "arithmetic", "json", "tool_call")
    assert all(words in why for why in whys.values()), whys


def test_words_at_random_are_no_story() -> None:
    with scripted({"garbage": "gibberish"}) as server:
        whys = probe(server, "arithmetic", "fact", "story")
    assert "256 tokens" in whys["arithmetic"]
    assert "gibberish" in whys["story"]
    assert all(whys.values())


def test_nan_shows_in_the_log_probabilities_only() -> None:
    with scripted({"nan_logprobs": True}) as server:
        whys = probe(server, "fact", "logprobs")
    assert whys["fact"] == ""
    assert "log probabilities are NaN: HTTP 500" in whys["logprobs"]


@pytest.mark.parametrize("value", ["null", "NaN", "-Infinity", "0.7"])
def test_log_probabilities_that_are_no_finite_logarithms(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = f'{{"choices": [{{"message": {{"content": "x"}}, "logprobs": {{"content": [{{"token": "x", "logprob": {value}}}]}}}}]}}'
    with scripted() as server:
        client = Client(server.base_url)
        reply = client.ask({"model": MODEL, "messages": [{"role": "user", "content": "ping"}]}, 5)
        monkeypatch.setattr(client, "ask", lambda body, timeout: type(reply)(**{**reply.__dict__, "document": json.loads(document)}))
        [result] = run(client, MODEL, ["logprobs"], 5)
    assert "NaN in the logits" in result["why"]


@pytest.mark.parametrize("flags", ["scenario", "pythonic"])
def test_a_call_that_stands_in_the_text_is_told_with_its_parser(flags: str) -> None:
    position = ARTICLE.index("--tool-call-parser") + 1
    pythonic = [*ARTICLE[:position], "pythonic", *ARTICLE[position + 1 :]]
    with scripted({"tools_in_text": flags == "scenario"}, pythonic if flags == "pythonic" else None) as server:
        whys = probe(server, "tool_call", "tool_call_stream")
    for why in whys.values():
        assert "stands in the text instead of tool_calls: '<|tool_call>call:get_weather{city:<|\"|>Paris" in why
        assert "Gemma 4 needs gemma4 (pythonic reads only [name(arg=…)]" in why


def test_flags_that_lack_are_named() -> None:
    with scripted(flags=["--model", "m", "--served-model-name", MODEL]) as server:
        whys = probe(server, "tool_call", "reasoning")
    assert "--enable-auto-tool-choice" in whys["tool_call"]
    assert "--reasoning-parser: Gemma 4 needs gemma4" in whys["reasoning"]


def test_reasoning_that_nobody_asked_for() -> None:
    with scripted(reasoning_first=20) as server:
        assert "not asked to think, it sent reasoning" in probe(server, "reasoning")["reasoning"]


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("arithmetic", "5", "2 + 2 is 4, not '5'"),
        ("arithmetic", "2 + 2 = 4, and 3 more are 7", "not '2 + 2 = 4, and 3 more are 7'"),
        ("fact", "The capital of France is Lyon.", "not 'The capital of France is Lyon.'"),
        ("json", "ok: true", "asked for, not 'ok: true'"),
        ("json", '{"ok": false}', "was asked for"),
        ("story", "There was a lighthouse.", "no story about a lighthouse"),
    ],
)
def test_a_wrong_answer_is_shown(name: str, wrong: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = {"messages": [{"role": "user", "content": "ping"}]}

    def say(body: Any, flags: Any, **options: Any) -> Any:
        reply = answer(echo, flags, **options)
        return type(reply)([type(reply.pieces[0])("content", wrong)], "stop")

    monkeypatch.setattr("sim.vllm_scripted.server.answer", say)
    with scripted() as server:
        [result] = run(Client(server.base_url), MODEL, [name], 10)
    assert words in result["why"]
    assert result["answer"] == wrong
    assert not result["ok"]


@pytest.mark.parametrize("fenced", ['{"ok": true}', '```json\n{\n  "ok": true\n}\n```', 'Sure: {"ok": true}'])
def test_json_may_be_wrapped(fenced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def say(body: Any, flags: Any, **options: Any) -> Any:
        reply = answer({"messages": [{"role": "user", "content": "ping"}]}, flags, **options)
        return type(reply)([type(reply.pieces[0])("content", fenced)], "stop")

    monkeypatch.setattr("sim.vllm_scripted.server.answer", say)
    with scripted() as server:
        assert probe(server, "json") == {"json": ""}


def test_a_model_that_says_the_same_of_every_picture_does_not_see() -> None:
    with scripted({"vision": "blind"}) as server:
        [result] = run(Client(server.base_url), MODEL, ["image"], 20)
    assert result["why"].startswith("a red and a blue picture were both 'Red'; the model does not see")
    assert result["answer"] == "red: Red, blue: Red"


@pytest.mark.parametrize(
    ("colours", "words"),
    [
        (["Red.", "**blue**"], ""),
        (["It is scarlet.", "Navy Blue"], ""),
        (["Blue", "Red"], "the red picture is not 'Blue'"),
        (["Red", "Purple"], "the blue picture is not 'Purple'"),
        (["Red or blue", "blue or red"], "the red picture is not 'Red or blue'"),
        (["I see a coloured picture.", "Blue"], "the red picture is not 'I see a coloured"),
        (["Redundant", "Blue"], "the red picture is not 'Redundant'"),
        (["I cannot see pictures.", "I cannot see  pictures."], "a red and a blue picture were both 'I cannot see pictures.'"),
    ],
)
def test_what_is_said_of_the_pictures_must_be_their_colours(colours: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(colours)

    def say(body: Any, flags: Any, **options: Any) -> Any:
        reply = answer({"messages": [{"role": "user", "content": "ping"}]}, flags, limit=9)
        return type(reply)([type(reply.pieces[0])("content", next(said))], "stop")

    monkeypatch.setattr("sim.vllm_scripted.server.answer", say)
    with scripted() as server:
        why = probe(server, "image")["image"]
    assert why.startswith(words)
    assert bool(why) == bool(words)


@pytest.mark.parametrize(
    ("fault", "flags", "words"),
    [
        ({"vision": "none"}, [], "HTTP 400: gemma-4-26b is not a multimodal model"),
        ({}, ["--limit-mm-per-prompt", '{"image": 0}'], "HTTP 400: At most 0 image(s) may be provided in one prompt"),
        ({}, ["--language-model-only"], "HTTP 400: At most 0 image(s) may be provided in one prompt"),
    ],
)
def test_a_server_that_takes_no_pictures_is_told_with_the_flag_and_the_way_out(fault: dict[str, Any], flags: list[str], words: str) -> None:
    with scripted(fault, [*ARTICLE, *flags]) as server:
        whys = probe(server, "image", "fact")
    assert words in whys["image"]
    assert "--limit-mm-per-prompt" in whys["image"]
    assert "leave the probe image out of the recipe's probes" in whys["image"]
    assert whys["fact"] == ""


def test_garbage_about_a_picture_is_told_as_garbage() -> None:
    with scripted({"garbage": "bang"}) as server:
        assert "times in a row" in probe(server, "image")["image"]


def test_the_picture_is_small_and_what_it_says_it_is() -> None:
    url = data_url((255, 0, 0))
    assert len(url) < 1000
    assert picture.colour(url) == "red"
    # The stand-in really looks: other bytes are another picture or none.
    assert picture.colour(data_url((250, 160, 10))) == "orange"
    with pytest.raises(picture.PictureError):
        picture.colour(url[:-40] + "A" * 40)


def test_a_recipe_asks_for_pictures_by_name_and_the_role_for_the_key() -> None:
    assert set(NAMES) - set(_probes.OF_TEXT) == {"image", "api_key"}


def test_who_has_no_key_or_a_wrong_one_is_kept_out() -> None:
    with ScriptedServer({"stream": FAST}, api_key="geheim") as server:
        results = run(Client(server.base_url, "geheim"), MODEL, ["api_key", "models"], 20)
    assert [result["why"] for result in results] == ["", ""]
    assert results[0]["answer"].startswith("/v1/models without a key: 401, /v1/models with a wrong key: 401, /v1/chat/completions without")


def test_a_server_that_answers_without_the_key_is_found_out() -> None:
    with scripted() as server:
        why = run(Client(server.base_url, "geheim"), MODEL, ["api_key"], 20)[0]["why"]
    assert why.startswith("/v1/models without a key was answered with HTTP 200 instead of 401: whoever reaches the port may use it.")


def test_a_path_that_generates_beside_the_guarded_ones_is_found_out() -> None:
    class Unguarded(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if self.path == "/invocations" else 401)
            self.end_headers()

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Unguarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        why = run(Client(f"http://127.0.0.1:{server.server_port}", "geheim"), MODEL, ["api_key"], 20)[0]["why"]
        server.shutdown()
    assert "/invocations without a key was answered with HTTP 200" in why


def test_an_open_port_is_no_proof_of_a_key() -> None:
    with scripted() as server:
        assert "no key was given, so the port is open" in probe(server, "api_key")["api_key"]


def test_another_name_is_served() -> None:
    with scripted() as server:
        whys = probe(server, "models", "fact", model="gemma-5")
    assert whys["models"] == "gemma-5 is not served, but gemma-4-26b: see --served-model-name"
    assert "HTTP 404" in whys["fact"]


def test_a_hung_engine_costs_its_time_once() -> None:
    with scripted({"hung": True}) as server:
        whys = probe(server, "models", "arithmetic", "fact", "story", timeout=0.5)
    assert whys["models"] == ""
    assert "its engine may hang although /health answers" in whys["arithmetic"]
    assert whys["fact"] == whys["story"] == "not asked, because the server did not answer probe arithmetic"


def test_an_engine_that_dies_fails_the_rest() -> None:
    with scripted({"die_after": 1}) as server:
        whys = probe(server, "arithmetic", "story", "fact")
    assert whys["arithmetic"] == ""
    assert whys["story"]
    assert whys["fact"]


# --- the module


def module(capsys: pytest.CaptureFixture[str], server: ScriptedServer, check: bool = False, **arguments: Any) -> dict[str, Any]:
    return run_module(openai_probe.main, capsys, check, base_url=server.base_url, model=MODEL, **arguments)


def test_the_module_returns_all_answers_and_keeps_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer({"stream": FAST}, api_key="geheim") as server:
        result = module(capsys, server, api_key="geheim", probes=["models", "fact"])
        assert "failed" not in result
        assert [entry["name"] for entry in result["probes"]] == ["models", "fact"]
        assert (result["failures"], result["changed"]) == ([], False)
        assert "geheim" not in json.dumps(result)
        refused = module(capsys, server, api_key="wrong", probes=["fact"])
    assert refused["failed"]
    assert "give the right api_key" in refused["msg"]


def test_the_module_reads_the_key_from_a_file_of_the_box(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    file.write_text("geheim\n")
    with ScriptedServer({"stream": FAST}, api_key="geheim") as server:
        result = module(capsys, server, api_key_file=str(file), probes=["api_key", "models"])
        both = module(capsys, server, api_key_file=str(file), api_key="geheim")
        lost = module(capsys, server, api_key_file=str(tmp_path / "lost"), probes=["models"])
    assert "failed" not in result
    assert "geheim" not in json.dumps(result)
    assert "mutually exclusive" in both["msg"]
    assert "cannot be read (No such file or directory): only root may (become: true)" in lost["msg"]


def test_the_module_fails_with_every_reason_and_still_returns_all(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted({"tools_in_text": True}) as server:
        result = module(capsys, server)
    assert result["failed"]
    assert [entry["name"] for entry in result["probes"]] == list(KEYLESS)
    assert [failure.partition(":")[0] for failure in result["failures"]] == ["probe tool_call", "probe tool_call_stream"]
    assert result["msg"].startswith("2 of 10 probes failed. probe tool_call: the call stands in the text")


def test_in_check_mode_nothing_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted() as server:
        result = module(capsys, server, check=True)
        assert result["skipped"]
        assert server.requests == []


def test_wrong_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted() as server:
        assert "value of probes must be one or more of" in module(capsys, server, probes=["fakt"])["msg"]
    result = run_module(openai_probe.main, capsys, base_url="nowhere:x", model=MODEL)
    assert "has no valid port" in result["msg"]


def test_the_documentation_lists_every_probe() -> None:
    options = yaml.safe_load(openai_probe.DOCUMENTATION)["options"]
    assert options["probes"]["choices"] == ["all", *NAMES]
    described = " ".join(options["probes"]["description"])
    assert [name for name in NAMES if f"V({name})" not in described] == []
