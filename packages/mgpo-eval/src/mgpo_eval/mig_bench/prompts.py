"""How a record is put to a model: as published, or for a template that numbers the images and asks for JSON.

The published prompt (Migician, arXiv 2501.05767) is the images in order, the question, and a request for its notation
of boxes in thousandths, which the models it was made for were trained on. For any other template the boxes inside
questions (838 of the 4,295 have one) are marked, so that they are written in the numbers that the model speaks.
"""

from __future__ import annotations

import re

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import REGION
from mgpo_eval.mig_bench.mentions import find_mentions
from mgpo_eval.mig_bench.records import Record

__all__ = ["mark_boxes", "published_prompt"]

_ASK = "Format: <|box_start|>(x1,y1),(x2,y2)<|box_end|>. Answer with the box alone."
_NUMBER = r"\s*(\d{1,4}(?:\.\d{1,6})?)\s*"
_EMBEDDED = re.compile(
    rf"(?:<\|box_start\|>\s*)?(?:\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)"
    rf"|\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\])(?:\s*<\|box_end\|>)?"
)


def published_prompt(record: Record) -> str:
    """The text to put behind the record's images: its question, and the request for a format where it has one."""
    question = record.question.strip()
    return f"{question} {_ASK}" if record.need_format else question


def mark_boxes(record: Record) -> tuple[str, tuple[Box, ...]]:
    """The question with `<region>` for each box in it, and these boxes, in 0-1 of the images they lie on.

    A box lies on the image named last before it, unless that is the target, which is what is sought; else on the first.
    What looks like a box but is not within 0-1000 stands as it is.
    """
    question = record.question.strip()
    boxes: list[Box] = []

    def marked(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = (float(number) / 1000 for number in match.groups() if number is not None)
        if max(x1, y1, x2, y2) > 1:
            return match.group()
        image = _referred_image(record, question, match.start())
        boxes.append(Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), image))
        return REGION

    return _EMBEDDED.sub(marked, question), tuple(boxes)


def _referred_image(record: Record, question: str, place: int) -> int:
    """The image (0-based) that a box at `place` of the question lies on."""
    before = [mention.image for mention in find_mentions(question) if mention.start < place]
    named = before[-1] if before else 0
    return named if 0 <= named < len(record.images) and named != record.target else 0
