"""How a record is put to a model: in thousandths, as published, or in pixels of what the model is shown.

The published prompt (Migician, arXiv 2501.05767) is the images in order, the question, and a request for its notation
of boxes, which the models it was made for were trained on. Models that speak absolute pixels (Qwen2.5-VL) need the
boxes inside questions rewritten (838 of the 4,295 have one), and are asked for the JSON that they know.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mgpo_core.boxes import Box, CoordinateSpace, Size
from mgpo_core.errors import SampleError
from mgpo_eval.mig_bench.mentions import find_mentions
from mgpo_eval.mig_bench.records import Record

__all__ = ["Format", "Prompt", "check_sizes", "prompt"]

_ASK_RELATIVE = "Format: <|box_start|>(x1,y1),(x2,y2)<|box_end|>. Answer with the box alone."
_ASK_ABSOLUTE = 'Answer in JSON: [{"bbox_2d": [x1, y1, x2, y2]}], in pixels of the image.'
_ASK_ABSOLUTE_AND_IMAGE = (
    'Answer in JSON: [{"bbox_2d": [x1, y1, x2, y2], "image": N}], in pixels of the image that it lies on, where N is '
    "the number of that image, counted from 1."
)
_NUMBER = r"\s*(\d{1,4}(?:\.\d{1,6})?)\s*"
_EMBEDDED = re.compile(
    rf"(?:<\|box_start\|>\s*)?(?:\({_NUMBER},{_NUMBER}\)\s*,\s*\({_NUMBER},{_NUMBER}\)"
    rf"|\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\])(?:\s*<\|box_end\|>)?"
)


class Format(enum.StrEnum):
    """How a record is asked and its answer read."""

    RELATIVE = "relative"
    "As published: thousandths of the image's sides, in box tokens."
    ABSOLUTE = "absolute"
    "Pixels of the resized image, in JSON, with the image's number."

    @property
    def space(self) -> CoordinateSpace:
        """What the numbers of this format mean."""
        return CoordinateSpace.ABSOLUTE if self is Format.ABSOLUTE else CoordinateSpace.RELATIVE_1000

    @classmethod
    def parse(cls, name: str) -> Format:
        """The format called `name`; SampleError with the names there are."""
        if name not in tuple(cls):
            raise SampleError(f"MIG-Bench: unknown format {name!r}; use one of {', '.join(cls)}")
        return cls(name)

    def asks_for_image(self, record: Record) -> bool:
        """Whether the prompt asks which image it is, so that leaving it out is a mistake."""
        return self is Format.ABSOLUTE and len(record.images) > 1


@dataclass(frozen=True)
class Prompt:
    """The text that follows the record's images; how many boxes in it were rewritten, and how many were not."""

    text: str
    rewritten: int = 0
    left: int = 0
    "What looks like a box but is not within 0-1000: it stands as it was."


def prompt(record: Record, format: Format | str, sizes: Sequence[Size] = ()) -> Prompt:
    """The text to put behind the record's images.

    `sizes` are (width, height) of the images as the model is shown them, in order; needed for "absolute". There, a box
    inside the question becomes `[x1, y1, x2, y2]` in whole pixels of the image it refers to: the one named last before
    it, unless that is the target, which is what is sought; else the first. SampleError for sizes that do not fit.
    """
    format = Format.parse(format)
    question = record.question.strip()
    if format is Format.RELATIVE:
        return Prompt(f"{question} {_ASK_RELATIVE}" if record.need_format else question)
    check_sizes(record, sizes)
    counts = {"rewritten": 0, "left": 0}

    def in_pixels(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = (float(number) for number in match.groups() if number is not None)
        if max(x1, y1, x2, y2) > 1000:
            counts["left"] += 1
            return match.group()
        counts["rewritten"] += 1
        size = sizes[_referred_image(record, question, match.start())]
        box = CoordinateSpace.RELATIVE_1000.to_input(Box(x1, y1, x2, y2), size)
        return str([round(value) for value in box.as_tuple()])

    asked = _EMBEDDED.sub(in_pixels, question)
    request = _ASK_ABSOLUTE_AND_IMAGE if format.asks_for_image(record) else _ASK_ABSOLUTE
    return Prompt(f"{asked} {request}", **counts)


def check_sizes(record: Record, sizes: Sequence[Size]) -> None:
    """Raise SampleError unless there is one (width, height) of at least a pixel for each image of the record."""
    if len(sizes) != len(record.images) or any(min(size) < 1 for size in sizes):
        raise SampleError(
            f"MIG-Bench: record {record.index}: absolute boxes need the (width, height) at which the model is shown "
            f"each of its {len(record.images)} images; got {list(sizes)!r:.120}"
        )


def _referred_image(record: Record, question: str, place: int) -> int:
    """The image (0-based) that a box at `place` of the question lies on."""
    before = [mention.image for mention in find_mentions(question) if mention.start < place]
    named = before[-1] if before else 0
    return named if 0 <= named < len(record.images) and named != record.target else 0
