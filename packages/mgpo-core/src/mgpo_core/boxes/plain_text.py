"""Boxes that models write outside JSON, and the reasoning in which no box counts.

Everything here is linear in the length of the text and never raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mgpo_core.boxes.layouts import Corners, corners, is_no_box

__all__ = ["REASONING_TAG", "THINK", "MarkedBoxes", "bare_box", "marked_boxes", "without_latex", "without_reasoning"]

THINK = "<think>", "</think>"
"""What this project writes around a reasoning."""

REASONING_TAG = (
    r"(?:<\|?|◁|\[(?=/?THINK\]))[ \t\r\n]*+(?i:begin_of_|start_)?(/|(?i:end_of_|end_))?[ \t\r\n]*+"
    r"(?i:(?:re[-_]?)?think(?:ing)?|thoughts?|reasoning|analysis|reflection|scratchpad|(?:chain_of_|chain-of-)thought|cot)"
    r"[ \t\r\n]*+(?:\|?>|▷|\])"
)
"""What opens a reasoning, in any case, and with something in its group, what closes it. Also compiled as bytes."""

_TAG = re.compile(REASONING_TAG)
_NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})"
_NUMBERS = re.compile(_NUMBER, re.ASCII)
_MARKED = re.compile(
    r"<\|?(?:box_start|begin_of_box|box|bbox|det|(?P<answer>answer))\|?>(?P<body>[\s\d.,;()\[\]+-]{1,1000})"
    r"(?:<\|?/?(?:box_end|end_of_box|box|bbox|det|answer)\|?>)?",
    re.ASCII | re.IGNORECASE,
)
_POINT = rf"\(\s*+{_NUMBER}\s*+,\s*+{_NUMBER}\s*+\)"
_BARE = re.compile(rf"{_POINT}\s*+,?\s*+{_POINT}|\(\s*+{_NUMBER}(?:\s*+,\s*+{_NUMBER}){{3}}\s*+\)", re.ASCII)
_ASSIGNED = re.compile(
    rf"(?<![\w\"'])([A-Za-z][A-Za-z_]{{0,11}}\d?)\s*+[=:]\s*+({_NUMBER})(?:\s?px\b)?(?!\w)", re.ASCII
)
_BETWEEN = re.compile(r"[\s,;]{0,9}(?:and\s{1,9})?", re.ASCII)
_CLOSING = re.compile(r"\s{0,9}[\])}]", re.ASCII)
_OPEN = re.compile(r"[\[({]\s{0,9}\Z", re.ASCII)
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
    """Boxes between box tokens, in order: `<|box_start|>(10,20),(110,120)<|box_end|>`, `<box>[[...]]</box>`.

    Four numbers between answer tags are one too; fewer are an answer.
    """
    found = []
    for mark in _MARKED.finditer(text):
        numbers = _NUMBERS.findall(mark["body"])
        if numbers and not (mark["answer"] and len(numbers) % 4):
            fours = [corners(numbers[at : at + 4]) for at in range(0, len(numbers), 4)]
            whole = len(numbers) % 4 == 0
            found.append(
                MarkedBoxes(tuple(four for four in fours if whole and four is not None), mark.start(), mark.end())
            )
    return found


_KEY = re.compile(r"([\w-]{1,40})[\"'`]?\s{0,3}[:=]\s{0,3}\Z")
"""What a number or a tuple belongs to: `point_2d: `."""


def bare_box(text: str) -> MarkedBoxes | None:
    """The first box written without any JSON.

    Two points (`(10,20),(110,120)`: what is left where a server drops box tokens), a tuple of four, four named numbers
    (`x1=10, y1=20, x2=110, y2=120`), or a text that is nothing but four numbers.
    """
    bare = _BARE.search(text)
    key = _KEY.search(text, max(0, bare.start() - 50), bare.start()) if bare else None
    bare = None if key is not None and is_no_box(key[1]) else bare
    four = corners(_NUMBERS.findall(bare.group())) if bare else None
    found = [MarkedBoxes((four,), bare.start(), bare.end())] if bare and four else []
    named = _named_numbers(text)
    whole = text.strip("\0 \t\r\n.")
    if len(whole) < 200 and (four := corners(whole)) is not None:
        start = text.index(whole)
        found.append(MarkedBoxes((four,), start, start + len(whole)))
    return min([*found, *([named] if named else [])], key=lambda box: box.start, default=None)


def _named_numbers(text: str) -> MarkedBoxes | None:
    """The first four numbers in a row that name themselves; in brackets only where these close."""
    row: list[re.Match[str]] = []
    for one in _ASSIGNED.finditer(text):
        joined = bool(row) and one.start() - row[-1].end() < 20
        row = [*row[-3:], one] if joined and _BETWEEN.fullmatch(text, row[-1].end(), one.start()) else [one]
        four = corners({part[1]: part[2] for part in row}) if len(row) == 4 else None
        if four is None:
            continue
        start, end = row[0].start(), one.end()
        closing = _CLOSING.match(text, end)
        if closing or not _OPEN.search(text[max(0, start - 20) : start]):
            return MarkedBoxes((four,), start, closing.end() if closing else end)
    return None


def without_latex(text: str) -> str:
    r"""`text` with the openings of LaTeX groups (`\boxed{`) blanked out: they are no JSON; of the same length."""
    return _LATEX_GROUP.sub(lambda found: " " * len(found.group()), text)
