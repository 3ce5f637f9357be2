# Copyright: (c) 2026, the dgx.spark maintainers
# SPDX-License-Identifier: Apache-2.0
# PRIVATE to the collection: it may change at any time.
"""Tells the text of a broken engine from that of a healthy one. Each threshold says why it is what it is; tests/corpus/answers tests it.

A broken engine on a GB10 answers HTTP 200. NaN logits make Gemma emit its token 0, <pad>, which the server strips: the text is empty and
the tokens count. Other models say C(!!!!!) then. Wrong scales give loops, mixed scripts, broken bytes or words at random.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

# What ends a turn where the server lets control tokens through. A request that ignores the natural end goes on after it with nonsense that
# says nothing about the engine, so nothing after it is judged.
_END_OF_TURN = re.compile(r"<turn\|>|<end_of_turn>|<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>|<\|end\|>|<eos>|</s>")

# Every token that is text is at least one byte, and tokens without visible bytes (spaces, line breaks, control tokens) alternate with
# others even in indented code and tables of digits. Below half a byte a token, most tokens were no text.
_BYTES_PER_TOKEN = 0.5
# Fewer tokens say little: "\n\n4" has three tokens and one byte.
_DENSITY_TOKENS = 16

# Nobody writes one character 32 times in a row ("Noooo" stays far below) ...
_RUN = 32
# ... but for zeros and other hexadecimal digits (a hash of zeros has 64, base64 of zeros many As) and X, which hides secrets, ...
_RUN_HEX = 100
# ... and for rules, borders, bars and leaders, which may be as wide as a page.
_RUN_RULE = 250
_RULES = frozenset("-=_*~#.+·•…─━═│┃║█▓▒░▁▂▃▄▅▆▇▀■□●○–—/\\|<>^:'\" ")

# A loop reaches the very end of a text, for nothing ends it; tables, matrices and lists that repeat end with something else. It is a loop
# when a unit came at least so often and the repetitions cover so many characters: a chorus comes four times and has 300 characters, rows of
# a table template or of zeros have no letters and cover more. A unit of a paragraph's length need not come so often.
_LOOP_COVER = 300
_LOOP_COVER_WITHOUT_LETTERS = 700
_LOOP_TIMES = ((100, 6), (200, 5), (4000, 3))
# The end must also compress better than prose, which zlib shortens to a half: 2.4 is what Whisper takes for speech that loops. Code,
# tables and logs compress better than that without being loops, hence both conditions.
_LOOP_RATIO = 2.4
_LOOP_WINDOW = 8000

# In a line of a hundred words prose has about sixty different ones, a drifting loop a handful. Truth tables and the like have short lines,
# minified data has more punctuation than words have between them.
_BABBLE_WORDS = 100
_BABBLE_DIFFERENT = 8
_BABBLE_LETTERS = 0.85

# One U+FFFD may come from a limit that cuts a character, a text about encodings may have some more; broken output has them everywhere.
_BROKEN = 3
_BROKEN_SHARE = 0.01
# A text has no control characters but tab, line feed, carriage return and form feed; a single one may be quoted.
_CONTROLS = 2
# UTF-8 that was read as Latin-1: "donâ€™t". Two may be quoted where somebody explains it.
_MOJIBAKE = re.compile("â€[™œ¦˜\\x9d\u201c\u201d]|Ã[©¨¤¶¼ŸŠ±]|Â[ §°»«]")
_MOJIBAKES = 4

# Control tokens and raw bytes as text. A text about chat templates has a few of them among words.
_SPECIAL = re.compile(r"<(?:pad|unk|bos|mask|s|unused\d+|0x[0-9A-F]{2}|\|[a-z_]+\|?|[a-z_]+\|)>|\[(?:PAD|UNK|MASK|multimodal)\]")
_SPECIALS = 4
_SPECIAL_SHARE = 0.15

# Letters of two scripts that stand side by side in a word: languages that use Latin words glue them to their own ("Tシャツ", "PDFка"), and
# units use Greek ("μm"), but nobody mixes Thai with Arabic. A few may be an artefact of a quotation.
_SWITCHES = 5
_SWITCH_SHARE = 0.05

_SCRIPTS_TEXT = (
    "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI BENGALI TAMIL TELUGU KANNADA MALAYALAM GUJARATI GURMUKHI ORIYA SINHALA THAI LAO"
    " KHMER MYANMAR TIBETAN GEORGIAN ARMENIAN ETHIOPIC MONGOLIAN CHEROKEE SYRIAC THAANA NKO TAGALOG BALINESE JAVANESE"
)
_SCRIPTS = frozenset(_SCRIPTS_TEXT.split())

# For texts that must be English prose. Foreign words and names may be in it, a fifth of all letters may not.
_FOREIGN_SHARE = 0.2
# In English 40 to 50 of 100 words are among these; words at random, names and code stay below 10. Short texts scatter more.
_COMMON_TEXT = (
    "the of and to a in that it is was he for on with as his be at by i this had not are but from or have an they which one you were"
    " her all she there would their we him been has when who will more no if out so said what up its about into than them can only"
    " other new some could time these two may then do first any my now such like our over man me even most made after also did many"
    " before must through back years where much your way well down should because each just those people how too little state good"
    " very make world still own see men work long get here between both life being under never day same another know while last might"
    " us great old year off come since against go came right"
)
_COMMON = frozenset(_COMMON_TEXT.split())
_COMMON_SHARE = 0.15
_COMMON_WORDS = 40
# English words have five letters on average; a text whose words have twenty is glued together.
_WORD_LETTERS = 15
_GLUED_LETTERS = 200

# Where a forced text stops in the middle of a sentence and the remaining tokens show nothing, the engine broke while it wrote.
_STOP_SHARE = 0.8
_SENTENCE_ENDS = frozenset(".!?…:;\"'\u201d\u2019)]}>*_`~|-。！？」』）")


@dataclass(frozen=True)
class Finding:
    """What is wrong with a text: the detector that found it, and why, with an excerpt."""

    detector: str
    why: str


def judge(
    text: str, tokens: int | None = None, *, forced: bool = False, prose: bool = False, text_tokens: int | None = None
) -> list[Finding]:
    """What is wrong with an answer; nothing for a healthy one.

    C(tokens) is the server's count of completion tokens. C(forced) says that the server was told to ignore the natural end; then a loop
    that begins in the second half is the model's, not the engine's. C(prose) says that English prose was asked for. C(text_tokens) is the
    count when the last visible character came. Nothing after a literal end of turn is judged.
    """
    whole = text
    end = _END_OF_TURN.search(text)
    if end:
        text, tokens, text_tokens = text[: end.start()], None, None
    found = [
        *_emptiness(text, tokens, forced, text_tokens),
        *_runs(text),
        *_specials(text),
        *_bytes(text),
        *_scripts(text),
        *(list(_loops(text, forced)) or _babble(text)),
    ]
    if prose and not found:
        # What is forced after the natural end need not be prose, and without a literal end of turn nobody knows where that is.
        found += _not_prose(text[: len(text) // 2] if forced and not end else text)
    if end and not _visible(text) and end.start() == 0 and len(whole) > end.end():
        found.append(Finding("empty", "the answer begins with an end-of-turn token"))
    return found


def excerpt(text: str, length: int = 120) -> str:
    """The beginning of a text on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _visible(text: str) -> int:
    """How many bytes of a text can be seen."""
    return len("".join(text.split()).encode("utf-8", "replace"))


def _emptiness(text: str, tokens: int | None, forced: bool, text_tokens: int | None) -> Iterator[Finding]:
    visible = _visible(text)
    if visible == 0:
        if tokens is None or tokens > 0:
            count = "" if tokens is None else f"{tokens} completion tokens and "
            yield Finding("empty", f"{count}no visible text: NaN logits make Gemma emit <pad>, which the server strips")
        return
    if tokens is None:
        return
    counted = text_tokens if forced and text_tokens else tokens
    if counted >= _DENSITY_TOKENS and visible / counted < _BYTES_PER_TOKEN:
        yield Finding("empty", f"{visible} visible bytes in {counted} completion tokens: most tokens show nothing, as <pad> does")
    elif forced and text_tokens and text_tokens < _STOP_SHARE * tokens and text.rstrip()[-1] not in _SENTENCE_ENDS:
        yield Finding(
            "stops", f"no visible text after token {text_tokens} of {tokens}, in the middle of a sentence: …{excerpt(text.rstrip()[-60:])}"
        )


def _runs(text: str) -> Iterator[Finding]:
    for match in re.finditer(rf"([^\s])\1{{{_RUN - 1},}}", text):
        character, length = match[1], len(match[0])
        limit = _RUN_RULE if character in _RULES else _RUN_HEX if character in "0123456789abcdefABCDEFxX" else _RUN
        if length >= limit:
            yield Finding("run", f"{character!r} {length} times in a row")
            return


def _specials(text: str) -> Iterator[Finding]:
    found = _SPECIAL.findall(text)
    covered = sum(map(len, found))
    if len(found) >= _SPECIALS and covered >= _SPECIAL_SHARE * _visible(text):
        yield Finding("special", f"{len(found)} control tokens as text, such as {found[0]}")


def _bytes(text: str) -> Iterator[Finding]:
    broken = text.count("\ufffd")
    if broken >= _BROKEN and broken >= _BROKEN_SHARE * len(text):
        yield Finding("bytes", f"{broken} broken characters (U+FFFD) in {len(text)}")
    odd = [c for c in text if (c < " " and c not in "\t\n\r\f") or "\x7f" <= c <= "\x9f" or unicodedata.category(c) in ("Cn", "Cs")]
    if len(odd) >= _CONTROLS:
        yield Finding("bytes", f"{len(odd)} control or unassigned characters, such as U+{ord(odd[0]):04X}")
    mojibake = _MOJIBAKE.findall(text)
    if len(mojibake) >= _MOJIBAKES:
        yield Finding("bytes", f"UTF-8 that was read as Latin-1, {len(mojibake)} times, such as {mojibake[0]!r}")


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str:
    """The script of a letter; empty for what belongs to none. Those that are written together count as one."""
    if character < "\x80":
        return "LATIN" if character.isalpha() else ""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    first = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    if first in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"):
        return "EAST ASIAN"
    return first if first in _SCRIPTS else ""


def _scripts(text: str) -> Iterator[Finding]:
    if text.isascii():
        return
    switches = letters = 0
    before = ""
    for character in text:
        script = _script(character)
        if script:
            letters += 1
            if before and script != before and not {script, before} & {"LATIN", "GREEK"}:
                switches += 1
        before = script
    if switches >= _SWITCHES and switches >= _SWITCH_SHARE * letters:
        yield Finding("scripts", f"the script changes {switches} times within words: {excerpt(text, 60)}")


def _loops(text: str, forced: bool) -> Iterator[Finding]:
    text = text.rstrip()
    unit, covered = _period(text[-_LOOP_WINDOW:])
    if not covered:
        return
    least = next((times for length, times in _LOOP_TIMES if unit <= length), 3)
    shown = text[-unit:]
    cover = _LOOP_COVER if any(character.isalpha() for character in shown) else _LOOP_COVER_WITHOUT_LETTERS
    if covered < max(cover, least * unit):
        return
    if forced and len(text) - covered > len(text) / 2:
        return
    ending = text[-2 * covered :].encode("utf-8", "replace")
    if len(ending) / len(zlib.compress(ending, 6)) > _LOOP_RATIO:
        yield Finding("loop", f"a loop to the end: {excerpt(shown, 60)!r} about {covered // unit} times")


def _period(text: str) -> tuple[int, int]:
    """The shortest unit whose repetitions cover the most of a text's end: (its length, how much it covers); (0, 0) without one."""
    backwards = text[::-1]
    length = len(backwards)
    # match[i] is how far backwards[i:] agrees with backwards: the Z function.
    # A text that repeats its last i characters covers i + match[i].
    match = [0] * length
    left = right = best = unit = 0
    for i in range(1, length):
        agree = min(right - i, match[i - left]) if i < right else 0
        while i + agree < length and backwards[agree] == backwards[i + agree]:
            agree += 1
        match[i] = agree
        if i + agree > right:
            left, right = i, i + agree
        if agree >= i and i + agree > best:
            best, unit = i + agree, i
    return unit, best


def _babble(text: str) -> Iterator[Finding]:
    for line in text.splitlines():
        words = re.findall(r"[^\W\d_]+", line.lower())
        if len(words) < _BABBLE_WORDS or sum(map(len, words)) + line.count(" ") < _BABBLE_LETTERS * len(line):
            continue
        if len(set(words)) <= _BABBLE_DIFFERENT:
            yield Finding(
                "loop", f"a loop that drifts: {len(words)} words in a line, only {len(set(words))} different ones: {excerpt(line, 60)!r}"
            )
            return


def _not_prose(text: str) -> Iterator[Finding]:
    letters = [script for script in map(_script, text) if script]
    foreign = sum(1 for script in letters if script != "LATIN")
    if foreign >= 10 and foreign > _FOREIGN_SHARE * len(letters):
        yield Finding("scripts", f"{foreign} of {len(letters)} letters are in another script than the question: {excerpt(text, 60)}")
        return
    words = re.findall(r"[a-z]+", text.lower())
    if len(letters) >= _GLUED_LETTERS and len(letters) > _WORD_LETTERS * max(1, len(text.split())):
        yield Finding("gibberish", f"words are glued together: {excerpt(text, 60)}")
    elif len(words) >= _COMMON_WORDS:
        common = sum(1 for word in words if word in _COMMON)
        if common < _COMMON_SHARE * len(words):
            yield Finding("gibberish", f"only {common} of {len(words)} words are common English ones: {excerpt(text, 60)}")
