"""Reading an answer to a MIG-Bench question asked as published: its first box, and the image that it names, if any.

What does not parse has no box and the reason for it (a `Rejection` value); nothing here raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from mgpo_core.boxes.parse import Box, ParseResult, Rejection, parse_boxes
from mgpo_core.boxes.plain_text import REASONING_TAG, THINK
from mgpo_eval.mig_bench.mentions import find_mentions

__all__ = ["Answer", "read_answer"]

_NUMBER = r"\s*(-?\d{1,7}(?:\.\d{0,20})?)\s*"
_PAIRS = re.compile(rf"\({_NUMBER},{_NUMBER}\)\s*(?:,\s*)?\({_NUMBER},{_NUMBER}\)")
_PAIR = re.compile(rf"<\|box_start\|>|\({_NUMBER},{_NUMBER}\)")
_ENTRY = re.compile(r"\{[^{}]*+\}")
_IMAGE_KEY = re.compile(r"""["']?\bimage["']?\s*:\s*["']?(\d{1,3})\b["']?""", re.IGNORECASE)
_TAGS = re.compile(REASONING_TAG)


@dataclass(frozen=True)
class Answer:
    """What a model answered: `box` in thousandths, whatever image it is on."""

    box: Box | None = None
    named: int | None = None
    "The image that it named, counted from 0; may be one that there is not."
    rejection: str | None = None
    "Why there is no box, or why the one there is cannot overlap with anything."


def read_answer(text: str) -> Answer:
    """Read a whole response; what comes before a `</think>` is not the answer.

    The box is `(x1,y1),(x2,y2)`, with or without box tokens, else JSON; numbers that are all at most 1 are taken for
    fractions, as the published evaluation does. The image is that of the JSON entry; else the last one named before the
    box ("It is in the third image."), else the first named after it.
    """
    answer = text.rpartition(THINK[1])[2]
    answer = answer if answer.strip() else _TAGS.sub(" ", text)  # all of it is reasoning: better that than nothing
    pairs = _PAIRS.search(answer)
    box: Box | None = None
    rejection: str | None = None
    if pairs is not None:
        x1, y1, x2, y2 = map(float, pairs.groups())
        box, place = Box(x1, y1, x2, y2), pairs.start()
    else:
        parsed = _parse(answer)
        box, rejection = (parsed.boxes[0], None) if parsed.boxes else (None, parsed.error)
        place = len(answer) if parsed.end is None else parsed.end
        if rejection == Rejection.NO_JSON and _PAIR.search(answer):
            rejection = Rejection.NOT_FOUR_NUMBERS.value
    if box is not None and not box.area > 0:
        rejection = Rejection.REVERSED.value
    return Answer(_scaled(box), _named(answer, box, place), rejection)


def _parse(answer: str) -> ParseResult:
    """parse_boxes, which refuses a box on image 0: here the box counts, and the image is wrong."""
    parsed = parse_boxes(answer)
    if parsed.error == Rejection.OUTSIDE:
        blank = _IMAGE_KEY.sub(lambda match: '"_": 1'.ljust(len(match.group())), answer)
        return parse_boxes(blank)
    return parsed


def _scaled(box: Box | None) -> Box | None:
    """The box on no image in particular, in thousandths."""
    if box is None:
        return None
    box = replace(box, image=0)
    return box.scaled(1000, 1000) if max(map(abs, box.as_tuple())) <= 1 else box


def _named(answer: str, box: Box | None, place: int) -> int | None:
    """The image (0-based) that the answer names for its box, which ends before or begins at `place`."""
    if box is not None and box.image > 0:
        return box.image
    entries = (match.group() for match in _ENTRY.finditer(answer))
    key = _IMAGE_KEY.search(next((entry for entry in entries if "bbox" in entry.lower()), answer))
    if key is not None:
        return int(key.group(1)) - 1
    mentions = find_mentions(answer)
    before = [mention for mention in mentions if mention.start < place]
    chosen = before[-1] if before else mentions[0] if mentions else None
    return None if chosen is None else chosen.image
