"""Benchmark prompts taken apart: the question, its choices, and the instruction how to answer.

Benchmarks write all three into one text, each in its own way; a template wants them apart, for the paper shows the
choices in the second turn only and asks for the answer in its own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from mgpo_core.answers import choice_letter

__all__ = ["split_question", "strip_instructions", "without_letters"]

_AT_LINE_START = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])(?=\s)[ \t]*", re.MULTILINE)
_INLINE = re.compile(r"(?:(?<=\s)|^)\(([A-Z])\)(?:\s+|$)")
_HEADER = re.compile(
    r"\s*(?:the\s+)?(?:choices|options)(?:\s+(?:are\s+)?(?:listed\s+)?(?:below|as follows))?\s*:?\s*$", re.IGNORECASE
)
# sentences that say how to answer; a question ends with a question mark and is never one of them
_INSTRUCTION = re.compile(
    r"(?:^|(?<=[\s.?!)]))(?:"
    r"(?:please\s+)?(?:directly\s+)?(?:answer|respond|reply|select|choose|pick|output|provide|give)\b[^?\n]*?"
    r"\b(?:letters?|options?|choices?|single word|one word|short phrase|word or phrase|directly|multiple-choice)\b"
    r"[^?\n]*?(?:\([^()\n]*\)[^?\n]*?)?[.:]"
    r"|(?:the\s+)?(?:best|correct|final)?\s*answer(?:\s+is)?\s*:"
    r")\s*$",
    re.IGNORECASE,
)


def strip_instructions(text: str) -> str:
    """`text` without the instructions at its end ("Answer with the option's letter ...", "The best answer is:")."""
    text = text.strip()
    while (found := _INSTRUCTION.search(text)) and found.start() > 0:
        text = text[: found.start()].rstrip()
    return text


def split_question(text: str) -> tuple[str, tuple[str, ...]]:
    """(question, choices without letters) of a benchmark's prompt; no choices where none are listed.

    Choices are lines that begin with `(A)`, `A.`, `A)` or `A:`, else `(A) ... (B) ...` within a line; lettered from A
    without a gap, at least two. Parentheses and letters inside a question or a choice are left alone.
    """
    stripped = strip_instructions(text)
    for marker in (_AT_LINE_START, _INLINE):
        for chain in _chains(stripped, marker):
            choices = _texts(stripped, chain)
            question = _HEADER.sub("", stripped[: chain[0].start()]).strip()
            if all(choices) and question:
                return question, choices
    return stripped, ()


def without_letters(choices: Iterable[str | int | float]) -> tuple[str, ...]:
    """Choices without the letters that a benchmark writes before them: `(A) red`, `B. blue` -> `red`, `blue`."""
    return tuple(
        re.sub(rf"^\s*\(?{choice_letter(index)}[).:]\s*", "", str(choice)).strip()
        for index, choice in enumerate(choices)
    )


def _chains(text: str, marker: re.Pattern[str]) -> Iterator[list[re.Match[str]]]:
    """Markers A, B, C, ... in a row, the one that begins last first; each as long as it gets."""
    marks = list(marker.finditer(text))
    for start in reversed([index for index, mark in enumerate(marks) if _letter(mark) == "A"]):
        chain = [marks[start]]
        for mark in marks[start + 1 :]:
            if len(chain) < 26 and _letter(mark) == choice_letter(len(chain)):
                chain.append(mark)
        if len(chain) > 1:
            yield chain


def _letter(mark: re.Match[str]) -> str:
    return next(group for group in mark.groups() if group)


def _texts(text: str, chain: Sequence[re.Match[str]]) -> tuple[str, ...]:
    ends = [mark.start() for mark in chain[1:]] + [len(text)]
    return tuple(text[mark.end() : end].strip() for mark, end in zip(chain, ends, strict=True))
