# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
"""English prose of any length that hangs together loosely and does not repeat itself, and the tokens that it is sent in."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

PARTS = Path(__file__).with_suffix(".txt")
_TOKEN = re.compile(r"\s?[A-Za-z]{1,7}|\s?[A-Za-z]+|\s?\d{1,3}|\s?[^\sA-Za-z\d]|\s")

LINKS = ["because", "and everyone agreed that", "for", "although", "as if", "since", "and it was plain that", "so that in the end"]
VERBS = ["said", "whispered", "repeated", "called", "murmured", "answered", "insisted", "wrote"]
OPENING = (
    "There was once a lighthouse on a reef so far from the coast that the charts gave it no name, only a number and a warning."
    " Its tower was built of grey granite blocks, each fitted to the next without mortar, and its lamp could be seen for twenty miles"
    " on a clear night. The people who kept it came and went, but the light stayed."
)


class _Deck:
    """Draws every phrase once before any comes again."""

    def __init__(self, phrases: Sequence[str], rng: random.Random) -> None:
        self._phrases, self._rng, self._left = list(phrases), rng, list[str]()

    def draw(self) -> str:
        if not self._left:
            self._left = self._rng.sample(self._phrases, len(self._phrases))
        return self._left.pop()


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


@cache
def _parts() -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    name = ""
    for line in PARTS.read_text().splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            parts[name] = []
        elif name and line:
            parts[name] += line.split(" | ")
    return parts


class _Words:
    """Draws the parts of a sentence: some of them whole phrases, most of them composed."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(zlib.crc32(seed.encode()))
        self._decks = {name: _Deck(phrases, self.rng) for name, phrases in _parts().items()}

    def draw(self, part: str) -> str:
        return self._decks[part].draw()

    def thing(self) -> str:
        adjective = self.draw("adjectives") + " " if self.rng.random() < 0.7 else ""
        noun = adjective + self.draw("things")
        article = self.rng.choice(("the", "a", "a", "her", "his"))
        return f"{'an' if article == 'a' and noun[0] in 'aeiou' else article} {noun}"

    def person(self) -> str:
        return self.draw("people") if self.rng.random() < 0.4 else f"the {self.draw('adjectives')} {self.draw('trades')}"

    def deed(self) -> str:
        if self.rng.random() < 0.35:
            return self.draw("deeds")
        more = f" and {self.draw('acts')} {self.thing()}" if self.rng.random() < 0.3 else ""
        return f"{self.draw('acts')} {self.thing()}{more}"


def sentences(seed: str) -> Iterator[str]:
    """Sentences without end, the same for the same seed."""
    w = _Words(seed)
    while True:
        match w.rng.randrange(9):
            case 0:
                yield f"{w.draw('times')}, {w.person()} {w.deed()} {w.draw('places')}."
            case 1:
                yield f"{_capital(w.person())} {w.deed()}, {w.rng.choice(LINKS)} {w.draw('thoughts')}."
            case 2:
                yield f"{w.draw('senses')}, and {w.draw('places')} {w.person()} {w.deed()}."
            case 3:
                saying = w.draw("sayings")
                yield f'"{saying[:-1] + "," if saying[-1] == "." else saying}" {w.rng.choice(VERBS)} {w.person()}.'
            case 4:
                yield f"{w.draw('senses')}."
            case 5:
                yield f"{w.draw('times')} {w.person()} {w.deed()}, then {w.deed()}."
            case 6:
                yield f"{_capital(w.draw('thoughts'))}; {w.person()} {w.deed()} {w.draw('places')}."
            case 7:
                yield f"{_capital(w.draw('places'))}, {w.person()} {w.deed()}, while {w.person()} {w.deed()}."
            case _:
                time = w.draw("times")
                yield f"{_capital(w.person())} remembered it well: {time[0].lower() + time[1:]}, {w.person()} {w.deed()}."


def story(seed: str) -> Iterator[str]:
    """The tokens of a story without end."""
    yield from tokens(OPENING)
    rng = random.Random(seed)
    left = 0
    for sentence in sentences(seed):
        if left == 0:
            left = rng.randrange(4, 8)
            yield from ("\n", "\n")
            yield from tokens(sentence)
        else:
            yield from tokens(" " + sentence)
        left -= 1


def tokens(text: str) -> list[str]:
    """Text cut as a tokenizer cuts it: a blank belongs to the word that follows, long words have several tokens."""
    return _TOKEN.findall(text)
