"""Boxes that models write outside JSON, and the reasoning in which no box counts.

Everything here is linear in the length of the text and never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mgpo_core.box_layouts import Corners, corners

__all__ = ["REASONING_TAG", "MarkedBoxes", "bare_pair", "marked_boxes", "without_latex", "without_reasoning"]

REASONING_TAG = r"<(/?)(?:think|thinking|thought|reasoning|analysis)>"
"""What opens a reasoning, and with a slash in its group, what closes it."""

_TAG = re.compile(REASONING_TAG)
_NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})"
_NUMBERS = re.compile(_NUMBER, re.ASCII)
_MARKED = re.compile(
    r"<\|?(?:box_start|begin_of_box|box|bbox|det)\|?>(?P<body>[\s\d.,;()\[\]+-]{1,1000})"
    r"(?:<\|?/?(?:box_end|end_of_box|box|bbox|det)\|?>)?",
    re.ASCII,
)
_POINT = rf"\(\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+\)"
_PAIR = re.compile(rf"{_POINT}\s*+,?\s*+{_POINT}", re.ASCII)
_LATEX_GROUP = re.compile(r"(?:\\[A-Za-z]++|\})\s*+\{")


@dataclass(frozen=True, slots=True)
class MarkedBoxes:
    """The boxes between box tokens at `text[start:end]`, none where these hold no fours of numbers."""

    boxes: tuple[Corners, ...]
    start: int
    end: int


def without_reasoning(text: str) -> str:
    """`text` with every reasoning block blanked out, one that is not closed to the end; of the same length.

    A closing tag without an opening one, as where the prompt holds the opening one, ends a block that began the text.
    """
    if "<" not in text:
        return text
    parts: list[str] = []
    done, start = 0, None
    for index, tag in enumerate(_TAG.finditer(text)):
        if not tag[1]:
            start = tag.start() if start is None else start
            continue
        if start is None and index == 0:
            start = 0
        if start is not None:
            parts += [text[done:start], "\0" * (tag.end() - start)]
            done, start = tag.end(), None
    if start is not None:
        parts += [text[done:start], "\0" * (len(text) - start)]
        done = len(text)
    return "".join([*parts, text[done:]]) if parts else text


def marked_boxes(text: str) -> list[MarkedBoxes]:
    """Boxes between box tokens, in order: `<|box_start|>(10,20),(110,120)<|box_end|>`, `<box>[[...]]</box>`."""
    found = []
    for mark in _MARKED.finditer(text):
        numbers = _NUMBERS.findall(mark["body"])
        if numbers:
            fours = [corners(numbers[at : at + 4]) for at in range(0, len(numbers), 4)]
            whole = len(numbers) % 4 == 0
            found.append(
                MarkedBoxes(tuple(four for four in fours if whole and four is not None), mark.start(), mark.end())
            )
    return found


def bare_pair(text: str) -> MarkedBoxes | None:
    """The first box written as two points, `(10,20),(110,120)`: what is left where a server drops box tokens."""
    pair = _PAIR.search(text)
    four = corners(_NUMBERS.findall(pair.group())) if pair else None
    return MarkedBoxes((four,), pair.start(), pair.end()) if pair and four else None


def without_latex(text: str) -> str:
    r"""`text` with the openings of LaTeX groups (`\boxed{`) blanked out: they are no JSON; of the same length."""
    return _LATEX_GROUP.sub(lambda found: " " * len(found.group()), text)
