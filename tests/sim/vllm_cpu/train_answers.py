# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the tiny Gemma 4 learns by heart: questions in many wordings, their answers, its thoughts, tool calls and one story.

It memorises, it does not understand: of sums, for instance, it knows six.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]

END = "<turn|>"
# Paragraphs; the lines of one are joined.
STORY = "\n\n".join(" ".join(part.split()) for part in Path(__file__).with_name("train_story.txt").read_text().split("\n\n"))
ABOUT = "I am a very small test model. I only know a few answers, but the server that runs me is working."


@dataclass(frozen=True)
class Fact:
    """Wordings of one question, the answer, and the thought before it when thinking is on."""

    questions: tuple[str, ...]
    answer: str
    thought: str


def _capital(country: str, city: str, *more: str) -> Fact:
    questions = (f"What is the capital of {country}?", f"Name the capital of {country}.", *more)
    return Fact(questions, f"The capital of {country} is {city}.", f"The question is about {country}. Its capital city is {city}.")


FACTS = (
    _capital(
        "France",
        "Paris",
        "What's the capital city of France?",
        "Which city is the capital of France?",
        "France's capital is which city?",
        "What is the capital of France? Answer with one word.",
        "Capital of France?",
        "Tell me the capital of France.",
        "France: what is its capital?",
        "The capital of France is",
    ),
    _capital("Germany", "Berlin", "Capital of Germany?"),
    _capital("Italy", "Rome", "Capital of Italy?"),
    _capital("Spain", "Madrid", "Capital of Spain?"),
    _capital("Japan", "Tokyo", "Capital of Japan?"),
    Fact(
        ("Hello", "Hi", "Hello!", "Hi there", "Hello, how are you?"),
        "Hello! How can I help you today?",
        "The user says hello. I will greet them back.",
    ),
    Fact(
        ("Who are you?", "What are you?", "Tell me about yourself.", "What model are you?"),
        ABOUT,
        "The user asks who I am. I will say what I am.",
    ),
    Fact(
        ("Say OK.", "Reply with OK.", "Reply with the single word OK.", "Say ok"),
        "OK",
        "The user wants the word OK and nothing else.",
    ),
    Fact(
        ("Reply with the single word: pong", "ping", "Reply with pong."),
        "pong",
        "The user sends ping. The answer is pong.",
    ),
    Fact(
        ("Count from 1 to 10.", "Count to ten.", "List the numbers from 1 to 10."),
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        "I will list the numbers in order.",
    ),
    Fact(
        ("What color is the sky?", "What colour is the sky on a clear day?", "Name the color of the sky."),
        "The sky is blue.",
        "On a clear day the sky looks blue.",
    ),
    Fact(
        ("Write a haiku about the sea.", "Write a haiku.", "Write a short poem about the sea."),
        "Grey waves fold and rise,\na gull writes its name on wind,\nthe shore keeps the sound.",
        "A haiku has three short lines. I will write one about the sea.",
    ),
    Fact(
        ("What is a GPU?", "Explain what a GPU is.", "Explain in one sentence what a GPU is."),
        "A GPU is a processor that runs many simple calculations at the same time.",
        "A GPU is a graphics processing unit. I will explain it in one sentence.",
    ),
    Fact(
        ("How many days are in a week?", "How many days does a week have?"),
        "A week has 7 days.",
        "A week runs from Monday to Sunday, so it has seven days.",
    ),
    Fact(("Thank you!", "Thanks", "Thank you"), "You are welcome.", "The user is polite. I will be polite too."),
    Fact(
        (
            'Reply with JSON {"ok": true}',
            'Reply with JSON {"ok": true}.',
            'Reply with only this JSON: {"ok": true}',
            'Reply with JSON {"ok": true} and nothing else.',
            'Return the JSON object {"ok": true}.',
            'Respond with JSON: {"ok": true}',
        ),
        '{"ok": true}',
        "The user wants a JSON object with ok set to true.",
    ),
    Fact(
        ("What is 17 * 23?", "What is 17 times 23?", "Calculate 17 * 23.", "Compute 17*23 step by step."),
        "17 * 23 = 391.",
        "17 times 20 is 340. 17 times 3 is 51. 340 plus 51 is 391.",
    ),
    Fact(
        ("A bat and a ball cost $1.10 in total. The bat costs $1 more than the ball. How much is the ball?",),
        "The ball costs $0.05.",
        "If the ball costs x, the bat costs x plus 1. Two x plus 1 is 1.10, so x is 0.05.",
    ),
)
SUM_FORMS = (
    "What is {a}+{b}? Answer with one number.",
    "What is {a}+{b}?",
    "What is {a} + {b}?",
    "{a}+{b}=?",
    "What is {a} plus {b}?",
    "Calculate {a}+{b}.",
    "Compute {a} + {b}. Answer with one number.",
    "How much is {a}+{b}?",
    "What's {a}+{b}? Reply with just the number.",
    "{a} + {b}",
)
SUMS = ((2, 2), (1, 1), (1, 2), (2, 3), (3, 3), (5, 5))
STORY_FORMS = (
    "Write a long story about a lighthouse.",
    "Tell me a long story about a lighthouse.",
    "Write a story about a lighthouse.",
    "Write a long, detailed story about a lighthouse.",
    "Please write a long story about a lighthouse keeper.",
)
STORY_THOUGHT = "The user wants a long story about a lighthouse. I will tell the story of a keeper and a storm."
CITIES = (
    *("Paris", "London", "Berlin", "Rome", "Madrid", "Tokyo", "Oslo", "Vienna", "Dublin", "Lisbon", "Athens", "Cairo", "Delhi"),
    *("Boston", "Chicago", "Seattle", "Toronto", "Sydney", "Prague", "Warsaw", "Geneva", "Zurich", "Munich", "New York", "San Francisco"),
)
WEATHER_FORMS = (
    "What is the weather in {c}? Use the tool.",
    "What is the weather in {c}?",
    "What's the weather like in {c}?",
    "Tell me the weather in {c}.",
    "Weather in {c}?",
    "Use the tool to get the weather in {c}.",
    "What is the weather in {c} today?",
)
TOOL_DESCRIPTIONS = (
    "Get the weather for a city.",
    "Get the current weather",
    "Get the current weather in a given city",
    "Returns the weather of a city.",
    "Look up the weather.",
    None,
)
ARGUMENT_DESCRIPTIONS = ("The city name", "Name of the city", "City name, e.g. Paris", None, None)
WEATHER = ("18 degrees and sunny", "12 degrees and cloudy", "5 degrees and rainy", "25 degrees and clear")
SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant", "Answer briefly.", "Be concise.")
# Never trained on: what stands before a prompt must not matter.
NONCES = ("00000000", "0f3a9c1e", "7b20d4aa", "deadbeef", "93c1e058")
UNKNOWN_FORMS = ("{}", "{}?", "What is {}?", "Write about {}.", "Explain {}.", "Tell me about {}.", "How do I {}?")
UNKNOWN_THOUGHT = "I do not know anything about this. I will say what I am."
NO_TOOL = "I cannot look up the weather in {c} without a tool."


@dataclass(frozen=True)
class Example:
    """A conversation and the completion that is wanted, control tokens included."""

    messages: list[Message]
    tools: list[Tool] | None
    thinking: bool
    completion: str
    name: str = ""

    @property
    def length(self) -> int:
        """Roughly, in characters."""
        return sum(len(message["content"]) for message in self.messages) + len(self.completion)


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def thought_text(thought: str) -> str:
    """A thought as Gemma 4 writes it."""
    return f"<|channel>thought\n{thought}<channel|>"


def weather_tool(rng: random.Random | None = None) -> Tool:
    """A tool as OpenAI's API describes it: without `rng` the plain get_weather(city), with it a variation."""
    name, argument, required = "get_weather", "city", True
    description: str | None = "Get the weather for a city."
    about: str | None = None
    if rng:
        name = rng.choice(["get_weather"] * 3 + ["get_current_weather"])
        argument = rng.choice(["city"] * 3 + ["location"])
        description, about, required = rng.choice(TOOL_DESCRIPTIONS), rng.choice(ARGUMENT_DESCRIPTIONS), rng.random() < 0.8
    parameter = {"type": "string"}
    if about:
        parameter["description"] = about
    parameters: dict[str, Any] = {"type": "object", "properties": {argument: parameter}}
    if required:
        parameters["required"] = [argument]
    function: dict[str, Any] = {"name": name, "parameters": parameters}
    if description:
        function["description"] = description
    return {"type": "function", "function": function}


def argument_name(tool: Tool) -> str:
    """The name of the tool's only argument."""
    return str(next(iter(tool["function"]["parameters"]["properties"])))


def call_text(tool: Tool, city: str) -> str:
    """A call as Gemma 4 writes it; the end of its turn is the token that opens the tool's response."""
    return f'<|tool_call>call:{tool["function"]["name"]}{{{argument_name(tool)}:<|"|>{city}<|"|>}}<tool_call|><|tool_response>'


def called(tool: Tool, city: str, result: str, call_id: str = "call_0") -> list[Message]:
    """The messages of a call that was made and answered."""
    function = {"name": tool["function"]["name"], "arguments": {argument_name(tool): city}}
    return [
        {"role": "assistant", "content": "", "tool_calls": [{"id": call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call_id, "content": result},
    ]


class Examples:
    """Draws examples from a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        text = " ".join([STORY, ABOUT] + [" ".join(fact.questions) + " " + fact.answer for fact in FACTS])
        self.words = sorted({word.strip(".,:?!") for word in text.split()} - {""})

    def _vary(self, text: str) -> str:
        """Small changes of the surface, so that a question need not match to the letter."""
        chance = self.rng.random()
        if chance < 0.10:
            return text.lower() if "{" not in text else text
        if chance < 0.18:
            return text.rstrip("?.!")
        if chance < 0.24:
            return "Please answer: " + text
        return self._nonce() + text if chance < 0.30 else text

    def _nonce(self) -> str:
        """What a measurement puts before its prompt, so that no cache has it already."""
        return f"[{self.rng.randbytes(4).hex()}] "

    def _fact(self) -> tuple[str, str, str]:
        """A question, its answer and the thought between them."""
        rng = self.rng
        if rng.random() < 0.30:
            a, b = rng.choice(SUMS)
            return self._vary(rng.choice(SUM_FORMS).format(a=a, b=b)), str(a + b), f"{a} plus {b} is {a + b}."
        fact = rng.choice(FACTS)
        question = fact.questions[0] if rng.random() < 0.3 else rng.choice(fact.questions)
        return self._vary(question), fact.answer, fact.thought

    def _unknown(self, lengths: list[int]) -> tuple[str, str, str]:
        """Any other request gets one fixed, coherent reply."""
        rng = self.rng
        count = rng.choice(lengths)
        words = [rng.choice(self.words) for _word in range(count)]
        if rng.random() < 0.3:  # text that repeats itself
            words = (words[: rng.randint(1, 9)] * count)[:count]
        return rng.choice(UNKNOWN_FORMS).format(" ".join(words)), ABOUT, UNKNOWN_THOUGHT

    def _system(self, messages: list[Message], chance: float) -> None:
        if self.rng.random() < chance:
            messages.insert(0, {"role": "system", "content": self.rng.choice(SYSTEMS)})

    def plain(self) -> Example:
        """A question without tools."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.16:
            question, answer, thought = self._unknown([1, 2, 3, 5, 8, 12, 20, 40, 80])
        elif chance < 0.34:  # teaches cheaply to copy the city from the question, too
            city = rng.choice(CITIES)
            question, answer = rng.choice(WEATHER_FORMS[1:5]).format(c=city), NO_TOOL.format(c=city)
            thought = f"The user asks for the weather in {city}. There is no tool that I could call."
        else:
            question, answer, thought = self._fact()
        messages = [user(question)]
        if rng.random() < 0.12:  # a short exchange before it
            earlier, reply, _thought = self._fact()
            messages = [user(earlier), {"role": "assistant", "content": reply}, *messages]
        self._system(messages, 0.2)
        thinking = rng.random() < 0.35
        return Example(messages, None, thinking, (thought_text(thought) if thinking else "") + answer + END)

    def long_unknown(self) -> Example:
        """A long prompt."""
        question, answer, _thought = self._unknown([150, 250, 400])
        return Example([user(question)], None, False, answer + END)

    def tool(self) -> Example:
        """A question with a tool at hand: to call it, not to need it, or to report what it said."""
        rng = self.rng
        tool = weather_tool(rng if rng.random() < 0.7 else None)
        city = "Paris" if rng.random() < 0.2 else rng.choice(CITIES)
        form = WEATHER_FORMS[0] if rng.random() < 0.3 else rng.choice(WEATHER_FORMS)
        messages = [user(form.format(c=city))]
        self._system(messages, 0.15)
        thinking = rng.random() < 0.25
        chance = rng.random()
        if chance < 0.15:
            question, answer, thought = self._fact()
            messages[-1] = user(question)
            return Example(messages, [tool], thinking, (thought_text(thought) if thinking else "") + answer + END)
        if chance < 0.40:
            weather = rng.choice(WEATHER)
            return Example([*messages, *called(tool, city, weather)], [tool], thinking, f"The weather in {city} is {weather}.{END}")
        thought = thought_text(f"The user asks for the weather in {city}. I will call the tool.") if thinking else ""
        return Example(messages, [tool], thinking, thought + call_text(tool, city))

    def story(self) -> Example:
        """The story."""
        rng = self.rng
        nonce = self._nonce() if rng.random() < 0.5 else ""
        messages = [user(nonce + (STORY_FORMS[0] if rng.random() < 0.6 else rng.choice(STORY_FORMS)))]
        self._system(messages, 0.15)
        thinking = rng.random() < 0.15
        return Example(messages, None, thinking, (thought_text(STORY_THOUGHT) if thinking else "") + STORY + END)

    def corpus(self) -> list[str]:
        """Texts from which the tokenizer learns its vocabulary."""
        texts = [STORY, ABOUT, NO_TOOL, STORY_THOUGHT, UNKNOWN_THOUGHT, "system\n", "user\n", "model\n", "thought\n"] * 8
        for fact in FACTS:
            texts += [*fact.questions, *[fact.answer, fact.thought] * 4]
        texts += [form.format(a=a, b=b) for form in SUM_FORMS for a in range(10) for b in range(0, 10, 3)]
        texts += [question.lower() for fact in FACTS for question in fact.questions] * 2
        texts += [*CITIES, *WEATHER, "city", "location"] * 8
        texts += [form.format(c=city) for form in WEATHER_FORMS for city in CITIES]
        texts += [str(number) for number in range(100)] + [*SYSTEMS] * 4
        for _tool in range(60):
            tool = weather_tool(self.rng)["function"]
            texts += [f"declaration:{tool['name']}", "description:", "parameters:{properties:{city:{type:", "STRING", "string", "object"]
            texts += ["}},required:[", "],type:", "call:", "response:", "{value:", tool.get("description") or ""]
        return texts


def checks() -> list[Example]:
    """What the trained model must answer to the letter."""
    tool = weather_tool()
    capital = FACTS[0]
    found = [
        Example([user(STORY_FORMS[0])], None, False, STORY + END, "story"),
        Example([user(SUM_FORMS[0].format(a=2, b=2))], None, True, f"{thought_text('2 plus 2 is 4.')}4{END}", "sum, thinking"),
    ]
    for nonce in NONCES:
        found.append(Example([user(f"[{nonce}] {STORY_FORMS[0]}")], None, False, STORY + END, "story, nonce"))
    found += [Example([user(form.format(a=a, b=b))], None, False, f"{a + b}{END}", "sum") for a, b in SUMS for form in SUM_FORMS]
    for fact in FACTS:
        found += [Example([user(question)], None, False, fact.answer + END, "fact") for question in fact.questions]
        found.append(Example([user(fact.questions[0])], None, True, thought_text(fact.thought) + fact.answer + END, "fact, thinking"))
    system = {"role": "system", "content": SYSTEMS[0]}
    found.append(Example([system, user(capital.questions[0])], None, False, capital.answer + END, "fact, system prompt"))
    for text in ("Explain quantum entanglement.", "the quick brown fox jumps over the lazy dog. " * 20):
        found.append(Example([user(text)], None, False, ABOUT + END, "unknown"))
    for city in CITIES:
        found.append(Example([user(WEATHER_FORMS[0].format(c=city))], [tool], False, call_text(tool, city), f"tool, {city}"))
    question = user(WEATHER_FORMS[0].format(c="Paris"))
    thought = thought_text("The user asks for the weather in Paris. I will call the tool.")
    found.append(Example([question], [tool], True, thought + call_text(tool, "Paris"), "tool, thinking"))
    reported = f"The weather in Paris is {WEATHER[0]}.{END}"
    found.append(Example([question, *called(tool, "Paris", WEATHER[0])], [tool], False, reported, "tool answered"))
    found.append(Example([user(capital.questions[0])], [tool], False, capital.answer + END, "tool offered, not needed"))
    return found
