r"""Your own template: three turns, of which the first two look.

    mgpo-train haystack-mgpo --template examples/my_templates.py:ThreeTurn
    mgpo-eval --model mgpo --tasks haystack \
        --model_args pretrained=outputs/haystack-mgpo/model,template=examples/my_templates.py:ThreeTurn

A template is any class with these members (`mgpo_core.templates.base.Template`); it says what the prompt is, and
when its response is read for a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from mgpo_core import Sample
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.base import PLAIN_SYSTEM, Message, answer_request, chat_message, sentence

BOX = 'Give the region to enlarge as JSON: [{"bbox_2d": [x1, y1, x2, y2]}]'


@dataclass(frozen=True)
class ThreeTurn:
    """A box, a second box after the crop of the first, then the answer."""

    name: ClassVar[str] = "three_turn"
    max_turns: ClassVar[int] = 3
    answers_with_box: ClassVar[bool] = False

    def wants_box(self, turn: int) -> bool:
        """The first two responses are read for a box."""
        return turn < 2

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """System message, then the image and the question."""
        question = f"Question: {sentence(sample.question)} {BOX}"
        return [chat_message("system", PLAIN_SYSTEM), chat_message("user", *images, question)]

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """The crop, or a note that the box was invalid; then what to do next."""
        if turn == 2:
            return None
        crop = [] if outcome.image is None else [outcome.image]
        note = "This is the region, enlarged. " if crop else "The box was invalid. "
        choices = "".join(f"({'ABCDEFGHIJ'[i]}) {choice} " for i, choice in enumerate(sample.choices[:10]))
        request = f"Look again. {BOX}" if turn == 0 else f"{choices}Now {answer_request(sample.choices)}"
        return chat_message("user", *crop, note + request)
