"""Benchmark prompts taken apart: the question, its choices, and the instruction how to answer.

Benchmarks write all three into one text, each in its own way; a template wants them apart, for the paper shows the
choices in the second turn only and asks for the answer in its own words. Training, evaluation and the demo read
choices by these functions. All of them take time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from mgpo_core.answers import choice_letter

__all__ = ["split_question", "strip_instructions", "without_letters"]

# `(A)`, `A.`, `A)`, `A:`, `**A.**`, `Option A:`, and the full-width forms. "A.M." are initials, no letter of a choice.
_MARK = (
    r"(?:\*\*)?(?:(?i:option|choice|选项)\s?)?"
    r"(?:[(\[（【]\s?(?P<inner>[A-Za-z])\s?(?P<closing>[)\]）】])(?:\*\*)?[.:：、．]?"
    r"|(?P<bare>[A-Za-z])(?:\*\*)?\s?(?P<mark>\.?[)）]|[:：、．]|\.(?![A-Za-z]\b)))(?:\*\*)?"
)
_LETTERED = re.compile(rf"\s*(?:{_MARK}|(?P<dashed>[A-Za-z])\s+[-–—]\s)\s*(?P<text>\S.*)", re.DOTALL)
_HEADER_WORDS = (
    r"(?i:(?:(?:the|here|are|answer|possible|available|following|given)[ \t]+){0,4}(?:choices|options)"
    r"(?:[ \t]+(?:are|is|listed|given|below|as|follows?)){0,4})"
    r"|(?:备选|可选|候选)?(?:答案)?选项(?:如下|有|是|为)?"
)
_HEADER = re.compile(rf"(?:^|(?<=[\n.?!:,;。？！：，；(]))[ \t]*(?:{_HEADER_WORDS})[ \t]*[.:：]?\s*$")
_AT_LINE_START = re.compile(
    rf"(?:^|(?:(?<=[\n.?!,;。？！，；( ]))(?:{_HEADER_WORDS})[ \t]*[:：])"
    rf"[ \t]*(?:[-*•][ \t]+)?{_MARK}[ \t]*",
    re.MULTILINE,
)
_BEHIND_HEADER = re.compile(rf"(?:\b(?:{_HEADER_WORDS})|选项)[ \t]*[:：]\s*(?={_MARK})")
_IN_LIST = re.compile(rf"(?:^|(?<=[\s,;:?|/，；：？、。])|(?<=[^\x00-\x7f])(?=\()|(?=[（【])){_MARK}\s*")
_BEHIND_QUESTION = re.compile(rf"(?<=[?？])\s*(?={_MARK})")
_IN_PARENTHESES = re.compile(r"(?:(?<=\s)|^)\((?P<inner>[A-Z])(?P<closing>\))(?:\s+|$)")
_AND = re.compile(r"(?:[,，、]\s*)?(?:\b(?:and|or)|[和或])$", re.IGNORECASE)
_BREAK = re.compile(r"[.!]\s+(?=[^\sa-z\d])|[。！]\s*(?=\S)")
_ABBREVIATIONS = frozenset(
    ("dr", "mr", "mrs", "ms", "st", "prof", "no", "vs", "jr", "sr", "inc", "ltd", "co", "mt", "ft", "fig", "ave")
)
_MOST_LISTS = 32  # lists that are tried, from the end of a text

# sentences that say how to answer; a question ends with a question mark and is never one of them
_VERB = r"(?i:answer|respond|reply|select|choose|pick|output|provide|give|return|write)"
_POLITE = r"(?:(?i:please|only|directly|simply|just)\s+){0,3}"
_SENTENCE_START = re.compile(
    rf"(?:^|(?<=[.!:)。！：]\s)|(?<=[.!:。！：)])|(?<=\s)(?=[A-Z]))\s*(?P<start>{_POLITE}{_VERB}\b)"
)
_HOW = re.compile(
    r"\b(?:letters?|options?|choices?|single word|one word|short phrase|word or phrase|directly|multiple-choice)\b",
    re.IGNORECASE,
)
_ANSWER_IS = re.compile(r"(?:(?<=[\s.?!)])|^)(?i:(?:the\s+)?(?:best|correct|final)?\s?answer(?:\s+is)?\s?:)$")
_ASK_IN_CHINESE = re.compile(r"请[^请]{0,200}(?:选项|字母|答案|回答|作答)[^请]{0,100}$")
_WINDOW = 800  # characters; no instruction is longer
_KEPT_LABEL = re.compile(r"(?:hint|context|note|caption|background|ocr|提示|注)\s*[:：]", re.IGNORECASE)
_INSTRUCTS = re.compile(rf"{_POLITE}(?:{_VERB}|(?i:think|reason|explain|let's|your|the answer|do not|don't))\b")


def strip_instructions(text: str) -> str:
    """`text` without the instructions at its end ("Answer with the option's letter ...", "The best answer is:")."""
    text = text.strip()
    end = len(text)
    while start := _instruction(text, end):
        end = start
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]


def split_question(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, choices without letters) of a benchmark's prompt; no choices where none are listed for certain.

    Choices are lettered from A without a gap, at least two: lines that begin with `(A)`, `A.`, `A)` or `A:`; else a
    list within a line, behind "Options:" or right behind the question mark in any of these forms, elsewhere as
    `(A) ... (B) ...`. What stands behind the last choice in a line or a sentence of its own is an instruction and is
    left out, unless it asks or tells something ("Hint: ..."): then it ends the question.
    """
    stripped = strip_instructions(text)
    for chains, inline in (
        (_chains(list(_AT_LINE_START.finditer(stripped))), False),
        (_behind_header(stripped), True),
        (_behind_question(stripped), True),
        (_chains(list(_IN_PARENTHESES.finditer(stripped))), True),
    ):
        for chain in chains:
            found = _read(stripped, chain, inline=inline)
            if found is not None:
                return found
    return stripped, ()


def without_letters(choices: Iterable[str | int | float]) -> tuple[str, ...]:
    """Choices without the letters that a benchmark writes before them: `(A) red`, `B. blue` -> `red`, `blue`.

    Letters are taken off only if every choice has its own, in order from A, with a separator and a text behind it:
    `A.M.` and `P.M.` stay.
    """
    texts = tuple(str(choice).strip() for choice in choices)
    if not 2 <= len(texts) <= 26:
        return texts
    found = [_LETTERED.fullmatch(text) for text in texts]
    letters = "".join(_letter(match) for match in found if match is not None)
    expected = "".join(map(choice_letter, range(len(texts))))
    if letters not in (expected, expected.lower()):
        return texts
    return tuple(match["text"].strip() for match in found if match is not None)


def _instruction(text: str, end: int) -> int:
    """Where the instruction that ends at `end` starts; 0 without one, or where it is the whole text."""
    start = max(0, end - _WINDOW)
    start = 1 + max(start - 1, *(text.rfind(mark, start, end) for mark in "?？\n"))
    tail = text[start:end]
    if found := _ANSWER_IS.search(tail):
        return start + found.start()
    if tail.endswith((".", ":", "。", "：")):
        for found in reversed(list(_SENTENCE_START.finditer(tail))):
            if _HOW.search(tail, found.end()):
                return start + found.start("start")
    found = _ASK_IN_CHINESE.search(tail)
    return start + found.start() if found else 0


def _chains(marks: Sequence[re.Match[str]]) -> Iterator[list[re.Match[str]]]:
    """Markers A, B, C, ... in a row, the one that begins last first; each as long as it gets."""
    following: list[int | None] = [None] * len(marks)
    nearest: dict[str, int] = {}
    starts = []
    for index in range(len(marks) - 1, -1, -1):
        letter = _letter(marks[index])
        following[index] = nearest.get(chr(ord(letter) + 1))
        nearest[letter] = index
        if letter in "Aa" and following[index] is not None:
            starts.append(index)
    for start in starts[:_MOST_LISTS]:
        chain: list[re.Match[str]] = []
        at: int | None = start
        while at is not None and len(chain) < 26:
            chain.append(marks[at])
            at = following[at]
        yield chain


def _behind_header(text: str) -> Iterator[list[re.Match[str]]]:
    """Lists in one line behind a header with a colon: `Options: A: red, B: green`."""
    for header in reversed(list(_BEHIND_HEADER.finditer(text))[-_MOST_LISTS:]):
        yield from _from_first(text, header.end(), _IN_LIST)


def _behind_question(text: str) -> Iterator[list[re.Match[str]]]:
    """Lists in one line right behind a question mark: `Which colour? A. red B. green`."""
    for mark in reversed(list(_BEHIND_QUESTION.finditer(text))[-_MOST_LISTS:]):
        if _letter(mark) in "Aa":
            for chain in _from_first(text, mark.end(), _IN_LIST):
                names = (_AND.search(text[a.end() : b.start()].rstrip()) for a, b in pairwise(chain))
                if not any(names):  # "A. Smith or B. Jones" are names
                    yield chain


def _from_first(text: str, place: int, marks: re.Pattern[str]) -> Iterator[list[re.Match[str]]]:
    """The list whose first marker begins at `place` or just behind it, its letters all written as the first."""
    found: list[re.Match[str]] = []
    for mark in marks.finditer(text, max(place, 0)):
        alike = not found or _style(mark) == _style(found[0])
        if alike and _letter(mark).upper() == choice_letter(len(found)):
            found.append(mark)
        if not found or len(found) == 26:
            break
    if len(found) > 1:
        yield found


def _letter(mark: re.Match[str]) -> str:
    groups = mark.groupdict()
    return next(letter for name in ("inner", "bare", "dashed") if (letter := groups.get(name)))


def _style(mark: re.Match[str]) -> tuple[str | None, bool]:
    groups = mark.groupdict()
    return groups.get("closing") or groups.get("mark"), _letter(mark).isupper()


def _read(text: str, chain: Sequence[re.Match[str]], *, inline: bool) -> tuple[str, tuple[str, ...]] | None:
    """(question, choices) of a list; None where it cannot be one."""
    ends = [mark.start() for mark in chain[1:]] + [len(text)]
    texts = [text[mark.end() : end].strip() for mark, end in zip(chain, ends, strict=True)]
    question = text[: chain[0].start()].strip()
    question = question[:-_WINDOW] + _HEADER.sub("", question[-_WINDOW:]).rstrip()
    *others, last = texts
    last, rest = _without_sentences(last, others) if inline else _without_lines(last, others)
    if inline:
        *others, last = _without_commas([*others, last])
        if question.endswith("(") and last.endswith(")"):
            question, last = question[:-1].rstrip(), last[:-1].rstrip()
        if last.endswith(("?", "？")) and not all(other.endswith(("?", "？")) for other in others):
            return None  # the question goes on behind letters that it mentions
    if _AT_LINE_START.match(rest) or not all((*others, last)):
        return None
    if "?" in rest or "？" in rest or (_KEPT_LABEL.match(rest) and not _HOW.search(rest)):
        question = f"{question} {rest}".strip()
    return (question, (*others, last)) if question else None


def _without_lines(last: str, others: Sequence[str]) -> tuple[str, str]:
    """(the last choice, what follows it) of a list in lines."""
    if any("\n" in other for other in others):
        head, _, rest = last.partition("\n\n")
        return (last, "") if any("\n\n" in other for other in others) else (head.strip(), rest.strip())
    lines = last.split("\n")
    for index, line in enumerate(lines[1:], start=1):
        word = line.strip()
        wrapped = bool(word) and (line[0].isspace() or word[0].islower())
        if not wrapped or _INSTRUCTS.match(word):
            return "\n".join(lines[:index]).strip(), "\n".join(lines[index:]).strip()
    return last, ""


def _without_sentences(last: str, others: Sequence[str]) -> tuple[str, str]:
    """(the last choice, what follows it) of a list within a line: further lines, and sentences as no other has."""
    last, _, rest = last.partition("\n") if not any("\n" in other for other in others) else (last, "", "")
    if any(map(_sentence_end, others)):
        return last.strip(), rest.strip()
    end = _sentence_end(last)
    return (last[:end].strip(), f"{last[end:]}\n{rest}".strip()) if end else (last.strip(), rest.strip())


def _sentence_end(text: str) -> int:
    """Where the first sentence of several ends; 0 if there is only one."""
    for found in _BREAK.finditer(text):
        word = text[max(0, found.start() - 12) : found.start()].rpartition(" ")[2].lstrip("(\"'")
        if word.lower() not in _ABBREVIATIONS and not (len(word) == 1 and "A" <= word <= "Z"):
            return found.end()
    return 0


def _without_commas(texts: Sequence[str]) -> list[str]:
    """The texts without the commas between them, the "or" before the last, and the full stop behind it."""
    *others, last = texts
    others[-1] = _AND.sub("", others[-1]).rstrip() or others[-1]
    for mark in (",", ";", "，", "；", "、", "|", "/"):
        if all(other.endswith(mark) for other in others[: max(1, len(others) - 1)]):
            others = [other.removesuffix(mark).rstrip() for other in others]
            last = last.removesuffix(mark).rstrip()
    if not any(other.endswith((".", "。")) for other in others):
        last = last.removesuffix(".").removesuffix("。").rstrip()
    return [*others, last]
