"""Templates: what is said to the model before each of its turns, as plain chat messages with images in place.

A template holds no state and sees no tensor. `TwoTurn` is the paper's protocol to the byte (arXiv 2507.05920; the
strings are listed in the project's reference facts) for up to five choices, the paper's case; with more choices the
request for the answer names their letters, and without any it names none. `SingleTurn` is the baseline that looks once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from mgpo_core.images.crop import CropOutcome
from mgpo_core.samples.sample import Sample
from mgpo_core.templates.base import PLAIN_SYSTEM, Message, _choices, answer_request, chat_message, sentence

_TWO_TURN_SYSTEM = (
    "You are a helpful assistant. Given an image and one question. First, identify the coordinates of the key image "
    "area relevant to solving the problem. Append the coordinates in JSON format at the end of your response and stop. "
    "This will trigger cropping of the corresponding area in the original image and enlarge it for improved clarity. "
    "Once the enlarged image is available, "
)
_ASK_BOX = " Out the coordinates of the key image area relevant to the problem in JSON format."
_CROP_INTRO = "Based on the provided coordinates, return the sub-image:\n"
_REFUSAL_INTRO = "Not providing correct coordinates or invalid coordinate values, return the original image:\n"
_ANSWER_FROM_CROP = (
    "Carefully analyze both the original image and the enlarged sub-image to solve the question step by step. If the "
    "sub-image does not provide sufficient information, refer to the original image to find the solution. Present "
    "your reasoning clearly, and "
)
_ANSWER_FROM_ORIGINAL = (
    "Carefully analyze the original image to solve the question step by step. Present your reasoning clearly, and "
)


@dataclass(frozen=True)
class TwoTurn:
    """The paper's two turns, verbatim: first a box, then, with the crop (or the original again), the answer."""

    name: ClassVar[str] = "two_turn"
    max_turns: ClassVar[int] = 2
    answers_with_box: ClassVar[bool] = False

    def wants_box(self, turn: int) -> bool:
        """Only the first response is read for a box."""
        return turn == 0

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the image (or images) and the question without its choices."""
        text = f"Question: {sentence(sample.question)}{_ASK_BOX}"
        system = _TWO_TURN_SYSTEM + answer_request(sample.choices)
        return [chat_message("system", system), chat_message("user", *images, text)]

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """The crop, or after a refused box the resized original (every one, if several), and the whole question."""
        if turn >= 1:
            return None
        if outcome.image is not None:
            return chat_message("user", _CROP_INTRO, outcome.image, f"\n{_request(sample, _ANSWER_FROM_CROP)}")
        return chat_message("user", _REFUSAL_INTRO, *images, f"\n{_request(sample, _ANSWER_FROM_ORIGINAL)}")


@dataclass(frozen=True)
class SingleTurn:
    """A single turn, the answer to the resized original: the baseline of single-turn GRPO and SFT."""

    name: ClassVar[str] = "single_turn"
    max_turns: ClassVar[int] = 1
    answers_with_box: ClassVar[bool] = False

    def wants_box(self, turn: int) -> bool:
        """Never: a box in the response is plain text."""
        return False

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the image (or images) and the whole question."""
        text = _request(sample, _ANSWER_FROM_ORIGINAL)
        return [chat_message("system", PLAIN_SYSTEM), chat_message("user", *images, text)]

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """Nothing: the first response is the last."""
        return None


@dataclass(frozen=True)
class PlainTurn:
    """The question as it stands, behind its images: for questions that say themselves how to answer (MIG-Bench)."""

    name: ClassVar[str] = "plain"
    max_turns: ClassVar[int] = 1
    answers_with_box: ClassVar[bool] = False

    def wants_box(self, turn: int) -> bool:
        """Never: a box in the response is its answer, not a wish to look."""
        return False

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the images in order and the question, untouched; choices are not listed."""
        return [chat_message("system", PLAIN_SYSTEM), chat_message("user", *images, sample.question)]

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """Nothing: the first response is the last."""
        return None


def _request(sample: Sample, how: str) -> str:
    """The question, its choices, and how to come to the answer."""
    question = f"Question: {sentence(sample.question)} {_choices(sample.choices)}"
    return f"{question}{how}{answer_request(sample.choices)}"
