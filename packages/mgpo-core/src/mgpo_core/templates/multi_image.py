"""Templates for questions over several images whose answer is a box in one of them (MIRG-RL, arXiv 2509.21788).

The paper's own prompts are not published: the words are a reconstruction. Images are numbered from 1, the reasoning
is in a block of its own, and the answer is JSON that names image and box; coordinates are those of the image named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.plain_text import THINK
from mgpo_core.boxes.regions import View, WorkedSolution
from mgpo_core.images.crop import CropOutcome
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import PLAIN_SYSTEM, Message, chat_message, sentence

__all__ = [
    "THINK",
    "MultiImage",
    "MultiImageTwoTurn",
    "after_reasoning",
    "answer_text",
    "has_reasoning",
    "reasoning_block",
    "solution_text",
]

_JSON = '[{"image": N, "bbox_2d": [x1, y1, x2, y2], "label": "..."}]'
_ANSWER = f"Reason within {''.join(THINK)}: first weigh the images, then find the object. Then answer in JSON: {_JSON}"
_LOOK = f"First say in JSON which part of which image to look at more closely, and stop: {_JSON}"
_ENLARGED = "This part of image {number}, enlarged:\n"
_REFUSED = "There is no such part to enlarge.\n"
_WHOLE = " (N and the box are those of the whole image.)"


@dataclass(frozen=True)
class MultiImage:
    """A single turn over all images, numbered: the reasoning and the answer: image and box."""

    name: ClassVar[str] = "multi_image"
    max_turns: ClassVar[int] = 1
    answers_with_box: ClassVar[bool] = True

    def wants_box(self, turn: int) -> bool:
        """Never: the box of the response is its answer, not a wish to look."""
        return False

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the numbered images, the question, and how to answer."""
        return _opening(sample, images, _ANSWER)

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """Nothing: the first response is the last."""
        return None


@dataclass(frozen=True)
class MultiImageTwoTurn:
    """MGPO over several images: first a part of one of them, which comes back enlarged; then reasoning and answer."""

    name: ClassVar[str] = "multi_image_two_turn"
    max_turns: ClassVar[int] = 2
    answers_with_box: ClassVar[bool] = True

    def wants_box(self, turn: int) -> bool:
        """Only the first response is read for a part to look at."""
        return turn == 0

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the numbered images, the question, and what to say first."""
        return _opening(sample, images, _LOOK)

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """The crop, named by its image, or that there is none; then how to answer. The images are not shown again."""
        if turn >= 1:
            return None
        request = f"\nQuestion: {sentence(sample.question)} {_ANSWER}{_WHOLE}"
        if outcome.image is None or outcome.box_original is None:
            return chat_message("user", _REFUSED + request.lstrip("\n"))
        intro = _ENLARGED.format(number=outcome.box_original.image + 1)
        return chat_message("user", intro, outcome.image, request)


def _opening(sample: Sample, images: Sequence[Image.Image], request: str) -> list[Message]:
    parts: list[str | Image.Image] = []
    for number, image in enumerate(images, start=1):
        parts += [f"Image {number}: ", image, "\n"]
    question = f"Question: {sentence(sample.question)} {request}"
    return [chat_message("system", PLAIN_SYSTEM), chat_message("user", *parts, question)]


def has_reasoning(text: str) -> bool:
    """Whether a response begins with a reasoning block that is closed, with something in it."""
    opening, closing = THINK
    text = text.lstrip()
    return (
        text.startswith(opening) and bool(text.partition(closing)[0].removeprefix(opening).strip()) and closing in text
    )


def after_reasoning(text: str) -> str:
    """What follows the reasoning block: all of `text` without one, nothing while one is not closed."""
    opening, closing = THINK
    _, closed, answer = text.rpartition(closing)
    if closed:
        return answer
    return "" if opening in text else text


def answer_text(box: Box, label: str, view: View) -> str:
    """A box of original pixels as the answer that is taught: image, box and label in fenced JSON."""
    entry = {"image": box.image + 1, "bbox_2d": view.numbers(box), "label": label}
    return f"```json\n{json.dumps([entry], ensure_ascii=False)}\n```"


def reasoning_block(reasoning: str) -> str:
    """A reasoning in its block, as it is taught."""
    return f"{THINK[0]}{reasoning}{THINK[1]}"


def solution_text(solution: WorkedSolution, view: View) -> str:
    """A solution as the response that is taught: the reasoning in its block, then the answer."""
    reasoning = view.write_out(solution.reasoning, solution.regions).strip()
    return f"{reasoning_block(reasoning)}\n{answer_text(solution.box, solution.label, view)}"
