# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the scripted model says: sense to the questions that are used to prove a deployment, garbage where the scenario wants it."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sim.vllm_scripted import picture, prose
from sim.vllm_scripted.flags import Flags

STORY_TOKENS = 2200
ABOUT = "I am a scripted stand-in for a model. I know a few answers and many stories, and the server that plays me is working."
CAPITALS = {
    **{"france": "Paris", "germany": "Berlin", "italy": "Rome", "spain": "Madrid", "japan": "Tokyo", "austria": "Vienna"},
    **{"portugal": "Lisbon", "poland": "Warsaw", "norway": "Oslo", "sweden": "Stockholm", "finland": "Helsinki", "greece": "Athens"},
    **{"egypt": "Cairo", "canada": "Ottawa", "australia": "Canberra", "china": "Beijing", "india": "New Delhi", "ireland": "Dublin"},
    **{"the united kingdom": "London", "england": "London", "switzerland": "Bern", "denmark": "Copenhagen", "brazil": "Brasília"},
}
FACTS = {
    r"colou?r.*\bsky\b": "The sky is blue.",
    r"days.*\bweek\b": "A week has 7 days.",
    r"^(?:hello|hi|hey)\b": "Hello! How can I help you today?",
    r"count (?:from 1 )?to (?:10|ten)|numbers from 1 to 10": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
    r"what is a gpu": "A GPU is a processor that runs many simple calculations at the same time.",
    r"^thank": "You are welcome.",
    r"who are you|what are you": ABOUT,
}
WRITES = re.compile(r"\b(?:story|essay|poem|novel|write|tell me|explain|describe|long|detailed|summari[sz]e)\b")
OPERATIONS = {"+": "plus", "plus": "plus", "-": "minus", "minus": "minus", "*": "times", "x": "times", "×": "times", "times": "times"}
SYMBOLS = {"plus": "+", "minus": "-", "times": "*"}
SUM = re.compile(r"(\d+)\s*(\+|-|\*|×|x|plus|minus|times)\s*(\d+)", re.I)
CITY = re.compile(r"\b(?:in|for|at)\s+([A-Z][\w'-]*(?:\s+[A-Z][\w'-]*)*)")
WHERE = re.compile(r"city|location|place|town|where", re.I)


@dataclass(frozen=True)
class Piece:
    """One token. Kinds: content, reasoning, silent (a control token that a parser takes), name and arguments (of a tool call), end."""

    kind: str
    text: str


@dataclass(frozen=True)
class Answer:
    """All tokens of an answer and why it ends."""

    pieces: list[Piece]
    finish: str


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def prompt_text(body: Mapping[str, Any]) -> str:
    """The text of a request's prompt, tools included."""
    if "messages" in body:
        parts = [_content(message) for message in body["messages"]]
        if body.get("tools"):
            parts.append(json.dumps(body["tools"]))
        return "\n".join(parts)
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else "".join(map(str, prompt))


def _sum(text: str) -> tuple[str, str] | None:
    found = SUM.search(text)
    if not found:
        return None
    a, b, word = int(found[1]), int(found[3]), OPERATIONS[found[2].lower()]
    result = {"plus": a + b, "minus": a - b, "times": a * b}[word]
    thought = f"{a} {word} {b} is {result}."
    if word == "times" and b > 10:
        tens, ones = b // 10 * 10, b % 10
        thought = f"{a} times {tens} is {a * tens}. {a} times {ones} is {a * ones}. {a * tens} plus {a * ones} is {result}."
    short = word == "plus" or "number" in text.lower()
    return (str(result) if short else f"{a} {SYMBOLS[word]} {b} = {result}."), thought


def _sample(schema: Mapping[str, Any], name: str = "") -> Any:
    """A value that fits a JSON schema."""
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _sample(schema[key][0], name)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {key: _sample(value, key) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [_sample(schema.get("items", {}), name) for _item in range(max(1, schema.get("minItems", 1)))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 4)
    return {"boolean": True, "null": None}.get(kind, "Paris" if WHERE.search(name) else name or "text")


def _json_answer(body: Mapping[str, Any], text: str) -> str | None:
    """The answer to a request for JSON, or None when it is not one."""
    wanted = body.get("response_format") or {}
    found = re.search(r"JSON[^{\[]{0,40}([{\[].*[}\]])", text, re.I | re.S)
    echo = None
    if found:
        try:
            echo = json.loads(found[1])
        except json.JSONDecodeError:
            echo = None
    if wanted.get("type") == "json_schema":
        schema = wanted.get("json_schema", {}).get("schema", {})
        sample = _sample(schema)
        if isinstance(sample, dict) and isinstance(echo, dict) and set(schema.get("required", sample)) <= set(echo):
            sample = echo
        return json.dumps(sample)
    if echo is not None:
        return json.dumps(echo)
    return json.dumps({"answer": _plain(text)[0]}) if wanted.get("type") == "json_object" else None


def _plain(text: str) -> tuple[str, str]:
    """Answer and thought for a question without tools; an empty answer stands for a story."""
    low = text.lower().strip()
    if answer := _sum(text):
        return answer
    capital = next((country for country in CAPITALS if country in low), "") if "capital" in low else ""
    if capital:
        city, country = CAPITALS[capital], capital.title().replace("The ", "the ")
        thought = f"The question is about {country}. Its capital city is {city}."
        return (city if "one word" in low else f"The capital of {country} is {city}."), thought
    if found := re.search(
        r"(?:reply|respond|answer) with (?:only )?(?:the )?(?:single )?(?:word:? )?[\"']?(\w+)[\"']?\.?$|^say (\w+)\.?$", low
    ):
        start = found.start(1) if found[1] else found.start(2)
        word = text.strip()[start : start + len(found[1] or found[2])]
        return word, f"The user wants the word {word} and nothing else."
    if low in ("ping", "ping?"):
        return "pong", "The user sends ping."
    for pattern, answer_text in FACTS.items():
        if re.search(pattern, low):
            return answer_text, "I know the answer to this question."
    if WRITES.search(low):
        return "", "The user wants a text. I will tell a story of a keeper, a village and the sea."
    if "weather" in low:
        return "I cannot look up the weather without a tool.", "There is no tool that I could call."
    return ABOUT, "I do not know this. I will say what I am."


def _tool(body: Mapping[str, Any], text: str) -> Mapping[str, Any] | None:
    """The function that answers the request, or None when no tool is needed."""
    functions = [tool["function"] for tool in body.get("tools") or [] if tool.get("type", "function") == "function"]
    choice = body.get("tool_choice", "auto")
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        return next((f for f in functions if f["name"] == choice.get("function", {}).get("name")), None)
    words = {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3}
    for function in functions:
        about = set(re.findall(r"[a-z]+", function["name"].lower()))
        if about & words or "tool" in words:
            return function
    return functions[0] if choice == "required" else None


def _arguments(function: Mapping[str, Any], text: str) -> dict[str, Any]:
    properties = function.get("parameters", {}).get("properties", {})
    required = function.get("parameters", {}).get("required", list(properties))
    city = CITY.search(text)
    values = {}
    for name in properties:
        if city and WHERE.search(name):
            values[name] = city[1]
        elif name in required:
            values[name] = _sample(properties[name], name)
    return values


def _gemma_value(value: Any) -> str:
    if isinstance(value, str):
        return f'<|"|>{value}<|"|>'
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_gemma_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_gemma_value, value)) + "]"
    return json.dumps(value)


def _texts(kind: str, text: str) -> list[Piece]:
    return [Piece(kind, token) for token in prose.tokens(text)]


def _call(name: str, arguments: Mapping[str, Any], parsed: bool) -> list[Piece]:
    """A tool call: parsed as vLLM's parser streams it, or as Gemma 4 writes it."""
    if not parsed:
        raw = f"call:{name}{_gemma_value(arguments)}"
        inner = [piece for part in re.split(r'(<\|"\|>)', raw) for piece in ([part] if part == '<|"|>' else prose.tokens(part))]
        return [Piece("content", token) for token in ["<|tool_call>", *inner, "<tool_call|>"]]
    pieces = [Piece("silent", token) for token in ["<|tool_call>", "call", ":"]]
    pieces.append(Piece("name", name))
    return [*pieces, *_texts("arguments", json.dumps(arguments)), Piece("silent", "<tool_call|>")]


def _weather_reported(body: Mapping[str, Any]) -> str | None:
    """What to say when the last message is a tool's result."""
    messages = body.get("messages") or []
    if not messages or messages[-1].get("role") != "tool":
        return None
    result = _content(messages[-1]).strip().rstrip(".")
    asked = next((CITY.search(_content(m)) for m in reversed(messages) if m.get("role") == "user"), None)
    return f"The weather in {asked[1]} is {result}." if asked else f"The tool says: {result}."


def garbage(kind: str) -> Iterator[str]:
    """Tokens of a broken engine, without end. An empty token is a <pad> that the server strips."""
    rng = random.Random(7)
    letters = {"script": "वहांکتاب書道ሰላምпривітไทย", "gibberish": ""}
    loop = prose.tokens(" The keeper climbed the stairs and lit the lamp.")
    for position in itertools.count():
        if kind == "empty":
            yield ""
        elif kind == "bang":
            yield "!"
        elif kind == "replacement":
            yield "\ufffd" if position % 4 else " "
        elif kind == "script":
            yield "".join(rng.choice(letters["script"]) for _letter in range(2))
        elif kind == "gibberish":
            yield rng.choice([" mult", "mult", "ify", " =>", " der", "qz", " ()", "ttt", "Vx", " onon"])
        else:
            yield loop[position % len(loop)]


def answer(
    body: Mapping[str, Any],
    flags: Flags,
    *,
    limit: int,
    broken: str = "",
    tools_in_text: bool = False,
    thoughts: int = 0,
    blind: bool = False,
) -> Answer:
    """The answer to a chat or completion request, at most `limit` tokens.

    `broken` is a kind of garbage; `thoughts` so many tokens of reasoning come first, whatever was asked; `blind` takes any picture for red.
    """
    shortest = limit if body.get("ignore_eos") else min(limit, int(body.get("min_tokens") or 0))
    if broken:
        # The end-of-turn token never wins: garbage goes on to the limit, or until nobody can want more.
        count = min(limit, max(shortest, 2048))
        pieces = [Piece("content", token) for token in itertools.islice(garbage(broken), count)]
        return Answer(pieces, "length")
    head, natural, finish = _thinking_and_answer(body, flags, tools_in_text, blind)
    if thoughts:
        head = [Piece("reasoning", token) for token in itertools.islice(prose.story("thoughts"), thoughts)]
    pieces = [*head, *natural]
    if body.get("ignore_eos") or len(pieces) < shortest:
        if finish == "tool_calls":
            finish = "stop"
        filling = prose.story("after " + prompt_text(body))
        lead = [Piece("content", "\n"), Piece("content", "\n")]
        more = itertools.chain(lead, (Piece("content", token) for token in filling))
        pieces += itertools.islice(more, max(0, shortest - len(pieces)))
    if not body.get("ignore_eos"):
        pieces.append(Piece("end", "<turn|>"))
    if len(pieces) > limit or body.get("ignore_eos"):
        return Answer(pieces[:limit], "length")
    return Answer(pieces, finish)


def _colour(body: Mapping[str, Any], text: str, blind: bool) -> str:
    """What colour the newest picture has, if that was asked; else empty."""
    urls = picture.urls(body)
    if not urls or not re.search(r"colou?r", text, re.I):
        return ""
    return ("red" if blind else picture.colour(urls[-1])).title()


def _thinking_and_answer(body: Mapping[str, Any], flags: Flags, tools_in_text: bool, blind: bool) -> tuple[list[Piece], list[Piece], str]:
    messages = body.get("messages")
    users = [_content(message) for message in messages or [] if message.get("role") == "user"]
    text = users[-1] if users else prompt_text(body)
    plain, thought = _plain(text)
    function = None if _weather_reported(body) else _tool(body, text)
    thinking = bool((body.get("chat_template_kwargs") or {}).get("enable_thinking"))
    head: list[Piece] = []
    if messages and thinking:
        if function:
            thought = f"The user asks: {text} I will call {function['name']}."
        if flags.gemma_reasoning:
            control = [Piece("silent", token) for token in ("<|channel>", "thought", "\n")]
            head = [*control, *_texts("reasoning", thought), Piece("silent", "<channel|>")]
        else:
            head = _texts("content", f"thought\n{thought}")
    if function:
        parsed = flags.gemma_tools and not tools_in_text
        return head, _call(function["name"], _arguments(function, text), parsed), "tool_calls" if parsed else "stop"
    reply = _colour(body, text, blind) or _weather_reported(body) or _json_answer(body, text) or plain
    if reply:
        return head, _texts("content", reply), "stop"
    story = itertools.islice(prose.story(text), STORY_TOKENS)
    return head, [Piece("content", token) for token in story], "stop"
