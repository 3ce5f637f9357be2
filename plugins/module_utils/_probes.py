# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Questions whose answers show whether a deployment answers sense, calls tools, thinks where it should, computes finite numbers and sees.

Each is a request of its own with a natural end, at temperature 0. The words of the questions are fixed: the lab's tiny model knows them by
heart.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx.spark.plugins.module_utils._garbage import excerpt, judge
from ansible_collections.dgx.spark.plugins.module_utils._openai_client import (
    Client,
    ClientError,
    Reply,
    ServerHangs,
    ServerRefused,
)
from ansible_collections.dgx.spark.plugins.module_utils._picture import data_url

SUM = "What is 2+2? Answer with one number."
FACT = "What is the capital of France?"
JSON = 'Reply with JSON {"ok": true}'
TOOL = "What is the weather in Paris? Use the tool."
PRODUCT = "What is 17 * 23?"
STORY = "Write a long story about a lighthouse."
COLOUR = "What colour is this picture? Answer with one word."

# What an answer may take at most. A healthy model ends by itself long before, but for the story.
_SHORT, _LONG, _THOUGHT = 256, 1024, 2048
_ANSWER_KEPT = 2000
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather for a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Two pictures, for a model that is blind may guess one. The words are what a colour may be called.
_PICTURES = {"red": (255, 0, 0), "blue": (0, 0, 255)}
_COLOURS = {
    "red": {"red", "scarlet", "crimson", "vermilion"},
    "blue": {"blue", "navy", "azure", "cobalt", "ultramarine"},
    "another": {"black", "white", "grey", "gray", "green", "yellow", "orange", "pink", "purple", "violet", "magenta", "brown", "cyan"},
}
_CALL_AS_TEXT = re.compile(r"<\|?tool_call|call:get_weather|get_weather\s*[({]|\"name\"\s*:\s*\"get_weather\"")
_CONTROL = re.compile(r"<\|?(?:channel|think|turn)\|?>")
_PARSER = (
    "--tool-call-parser does not understand this model's calls: Gemma 4 needs gemma4 (pythonic reads only [name(arg=…)] and leaves its"
    " calls in the text)"
)
_REASONING = "see --reasoning-parser: Gemma 4 needs gemma4"
_OPEN = "Is it this container that answers, and did it start with its key (its log, and --middleware among its arguments)?"
_BLIND = "the model does not see: the checkpoint lacks its vision weights, or the chat template drops pictures"
_NO_PICTURES = (
    "the server takes no pictures: allow them with --limit-mm-per-prompt '{\"image\": 1}' and without --language-model-only, or leave the"
    " probe image out of the recipe's probes if its checkpoint is for text only"
)


class ProbeError(Exception):
    """The answer is not what a healthy deployment gives; the message says why. C(answer) is what came."""

    def __init__(self, why: str, answer: str = "") -> None:
        super().__init__(why)
        self.answer = answer


@dataclass(frozen=True)
class _Asker:
    """Sends the questions. Everything has to be over at C(deadline), in seconds of time.monotonic()."""

    client: Client
    model: str
    deadline: float

    def left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise ProbeError(
                "not asked, because the time for all probes is over: raise timeout, or see why the answers before took so long"
            )
        return left

    def ask(self, prompt: str | list[dict[str, Any]], limit: int, stream: bool = True, **more: Any) -> Reply:
        """Ask with a text, or with the parts of a message. Raises ClientError and ProbeError."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": limit,
            **more,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return self.client.ask(body, self.left())

    def text(self, prompt: str | list[dict[str, Any]], limit: int, prose: bool = False, cut: bool = False, **more: Any) -> Reply:
        """Ask for a text. Raises ProbeError for garbage and, unless C(cut), for an answer that does not end by itself."""
        reply = self.ask(prompt, limit, **more)
        # The tokens of thoughts count too.
        found = judge(f"{reply.reasoning}\n{reply.text}" if reply.reasoning else reply.text, reply.completion_tokens, prose=prose)
        if found:
            raise ProbeError("; ".join(f"{finding.detector}: {finding.why}" for finding in found), reply.text)
        if not reply.text.strip():
            raise ProbeError(f"no text, only reasoning: {excerpt(reply.reasoning or '')!r}; {_REASONING}")
        if reply.finish_reason == "length" and not cut:
            raise ProbeError(f"it did not end by itself within {limit} tokens", reply.text)
        return reply


def _api_key(asker: _Asker) -> str:
    if not asker.client.has_key:
        raise ProbeError("no key was given, so the port is open: give the server one (vllm_api_key), or take the probe out")
    chat = {"model": asker.model, "messages": [{"role": "user", "content": FACT}], "max_tokens": 1}
    seen = []
    for path, body in (("/v1/models", None), ("/v1/chat/completions", chat), ("/invocations", chat)):
        for how, key in (("without a key", ""), ("with a wrong key", secrets.token_urlsafe(16))):
            status = asker.client.status(path, body, key, asker.left())
            # An older server, or another one, may not have the path at all.
            if status not in (401, 403) and not (path == "/invocations" and status in (404, 405)):
                raise ProbeError(
                    f"{path} {how} was answered with HTTP {status} instead of 401: whoever reaches the port may use it. {_OPEN}"
                )
            seen.append(f"{path} {how}: {status}")
    return ", ".join(seen)


def _models(asker: _Asker) -> str:
    served = asker.client.models(asker.left())
    if asker.model not in served:
        raise ProbeError(f"{asker.model} is not served, but {', '.join(served) or 'nothing'}: see --served-model-name", ", ".join(served))
    return ", ".join(served)


def _arithmetic(asker: _Asker) -> str:
    text = asker.text(SUM, _SHORT).text
    numbers = re.findall(r"\d+(?:\.\d+)?", text)
    if not numbers or numbers[-1] != "4":
        raise ProbeError(f"2 + 2 is 4, not {excerpt(text)!r}", text)
    return text


def _fact(asker: _Asker) -> str:
    text = asker.text(FACT, _SHORT, prose=True).text
    if "paris" not in text.lower():
        raise ProbeError(f"the capital of France is Paris, not {excerpt(text)!r}", text)
    return text


def _json(asker: _Asker) -> str:
    text = asker.text(JSON, _SHORT).text
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        document = json.loads(found[0]) if found else None
    except ValueError:
        document = None
    if document != {"ok": True}:
        raise ProbeError(f'{{"ok": true}} was asked for, not {excerpt(text)!r}', text)
    return text


def _tool_call(asker: _Asker) -> str:
    return _called(asker, stream=False)


def _tool_call_stream(asker: _Asker) -> str:
    return _called(asker, stream=True)


def _called(asker: _Asker, stream: bool) -> str:
    try:
        reply = asker.ask(TOOL, _SHORT, stream=stream, tools=[_WEATHER], tool_choice="auto")
    except ServerRefused as exc:
        if "enable-auto-tool-choice" in str(exc):
            raise ProbeError(f"{exc}; add both flags to the recipe's args, the parser for Gemma 4 is gemma4") from exc
        raise
    if not reply.tool_calls:
        if _CALL_AS_TEXT.search(reply.text) or _CALL_AS_TEXT.search(reply.reasoning or ""):
            raise ProbeError(f"the call stands in the text instead of tool_calls: {excerpt(reply.text)!r}. {_PARSER}", reply.text)
        found = judge(reply.text, reply.completion_tokens)
        why = f"{found[0].detector}: {found[0].why}" if found else f"it answered {excerpt(reply.text)!r}; {_PARSER}"
        raise ProbeError(f"no tool was called (tool_calls is empty): {why}", reply.text)
    call = reply.tool_calls[0]
    answer = f"{call.name}({call.arguments})"
    try:
        arguments = json.loads(call.arguments)
    except ValueError as exc:
        raise ProbeError(f"the arguments of the call are not JSON: {excerpt(call.arguments)!r}", answer) from exc
    city = arguments.get("city") if isinstance(arguments, Mapping) else None
    if call.name != "get_weather" or not isinstance(city, str) or not city.strip().lower().startswith("paris"):
        raise ProbeError(f'get_weather({{"city": "Paris"}}) should be called, not {excerpt(answer)}', answer)
    if _CALL_AS_TEXT.search(reply.text):
        raise ProbeError(f"the call stands in the text too: {excerpt(reply.text)!r}. {_PARSER}", reply.text)
    return answer


def _reasoning(asker: _Asker) -> str:
    thought = asker.text(PRODUCT, _THOUGHT, chat_template_kwargs={"enable_thinking": True})
    if _CONTROL.search(thought.text):
        raise ProbeError(f"thoughts stand in the text: {excerpt(thought.text)!r}; {_REASONING}", thought.text)
    if not (thought.reasoning or "").strip():
        raise ProbeError(f"asked to think, it sent no reasoning in its own field; {_REASONING}", thought.text)
    plain = asker.text(PRODUCT, _SHORT)
    if (plain.reasoning or "").strip():
        raise ProbeError(f"not asked to think, it sent reasoning: {excerpt(plain.reasoning or '')!r}", plain.text)
    for how, reply in (("with", thought), ("without", plain)):
        if "391" not in reply.text:
            raise ProbeError(f"17 * 23 is 391; {how} thinking it answered {excerpt(reply.text)!r}", reply.text)
    return f"{thought.text} (after thinking: {excerpt(thought.reasoning or '')})"


def _logprobs(asker: _Asker) -> str:
    try:
        reply = asker.ask(FACT, 32, stream=False, logprobs=True, top_logprobs=1)
    except ServerRefused as exc:
        # A dead engine answers 500 too, and says so.
        if exc.status >= 500 and "EngineCore" not in str(exc):
            raise ProbeError(
                f"log probabilities are NaN: {exc} (JSON cannot write NaN); the engine computes garbage, see the MoE backend"
            ) from exc
        raise
    choices = reply.document.get("choices")
    content = ((choices[0].get("logprobs") or {}).get("content") or []) if choices else []
    if not content:
        raise ProbeError("the server returned no log probabilities", reply.text)
    values = [entry.get("logprob") for entry in content]
    for entry, value in zip(content, values, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value) or value > 0.01:
            raise ProbeError(
                f"the log probability of {entry.get('token')!r} is {'NaN (null)' if value is None else value}: NaN in the logits; the"
                " engine computes garbage, see the MoE backend",
                reply.text,
            )
    return f"{len(values)} finite values from {min(values):.3g} to {max(values):.3g}"


def _story(asker: _Asker) -> str:
    text = asker.text(STORY, _LONG, prose=True, cut=True).text
    if len(text.split()) < 50 or "lighthouse" not in text.lower():
        raise ProbeError(f"no story about a lighthouse: {excerpt(text)!r}", text)
    return text


def _image(asker: _Asker) -> str:
    answers = {colour: _seen(asker, rgb) for colour, rgb in _PICTURES.items()}
    shown = ", ".join(f"{colour}: {excerpt(text)}" for colour, text in answers.items())
    if len({" ".join(text.lower().split()) for text in answers.values()}) == 1:
        raise ProbeError(f"a {' and a '.join(answers)} picture were both {excerpt(answers['red'])!r}; {_BLIND}", shown)
    for colour, text in answers.items():
        said = set(re.findall(r"[a-z]+", text.lower()))
        if [name for name, words in _COLOURS.items() if words & said] != [colour]:
            raise ProbeError(f"the {colour} picture is not {excerpt(text)!r}; {_BLIND}", shown)
    return shown


def _seen(asker: _Asker, rgb: tuple[int, int, int]) -> str:
    """What colour the model calls this one."""
    picture = {"type": "image_url", "image_url": {"url": data_url(rgb)}}
    try:
        return asker.text([picture, {"type": "text", "text": COLOUR}], _SHORT).text
    except ServerRefused as exc:
        # 400 and 422 say that the request is wrong, and but for its picture it is like the other probes'.
        if exc.status in (400, 422):
            raise ProbeError(f"{exc}; {_NO_PICTURES}") from exc
        raise


_PROBES: Mapping[str, tuple[str, Callable[[_Asker], str]]] = {
    "api_key": ("Who does not have the key?", _api_key),
    "models": ("GET /v1/models", _models),
    "arithmetic": (SUM, _arithmetic),
    "fact": (FACT, _fact),
    "json": (JSON, _json),
    "tool_call": (TOOL, _tool_call),
    "tool_call_stream": (TOOL, _tool_call_stream),
    "reasoning": (PRODUCT, _reasoning),
    "logprobs": (FACT, _logprobs),
    "story": (STORY, _story),
    "image": (COLOUR, _image),
}
NAMES = tuple(_PROBES)
# What any chat model should pass. A recipe whose model sees asks for image too, and where there is a key, the role proof asks for api_key.
OF_TEXT = tuple(name for name in NAMES if name not in ("api_key", "image"))


def run(
    client: Client, model: str, names: Sequence[str], timeout: float, tell: Callable[[str], None] = lambda text: None
) -> list[dict[str, Any]]:
    """Ask the named probes in their order, all within C(timeout) seconds: [{name, ok, why, prompt, answer}]. Nothing is raised.

    C(tell) hears which one is asked.
    """
    asker = _Asker(client, model, time.monotonic() + timeout)
    results = []
    hangs = ""
    for number, name in enumerate(names, 1):
        prompt, probe = _PROBES[name]
        tell(f"probe {number} of {len(names)}: {name}")
        why = answer = ""
        try:
            if hangs:
                raise ProbeError(hangs)
            answer = probe(asker)
        except ProbeError as exc:
            why, answer = str(exc), exc.answer
        except ServerHangs as exc:
            why, hangs = str(exc), f"not asked, because the server did not answer probe {name}"
        except ClientError as exc:
            why = str(exc)
        results.append({"name": name, "ok": not why, "why": why, "prompt": prompt, "answer": _kept(answer)})
    return results


def _kept(answer: str) -> str:
    return answer if len(answer) <= _ANSWER_KEPT else answer[:_ANSWER_KEPT] + "…"
