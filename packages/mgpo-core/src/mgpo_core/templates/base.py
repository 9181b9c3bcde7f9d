"""What a template is, and the chat messages that templates are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image

from mgpo_core.images.crop import CropOutcome
from mgpo_core.samples.grading import choice_letter
from mgpo_core.samples.sample import Sample

_PAPERS_CHOICES = 5  # the paper's prompts name A to E, however many choices there are
Message = dict[str, Any]
"""One chat message in Hugging Face's format: a role and a list of parts, each a text or a PIL image."""


PLAIN_SYSTEM = "You are a helpful assistant."


@runtime_checkable
class Template(Protocol):
    """The words of a protocol; an `Episode` asks it for every message that is not the model's."""

    @property
    def name(self) -> str:
        """The name under which recipes and trajectories know it."""

    @property
    def max_turns(self) -> int:
        """The most responses an episode may have."""

    @property
    def answers_with_box(self) -> bool:
        """Whether the last response answers with a box (in one of the images), not with words in a box."""

    def wants_box(self, turn: int) -> bool:
        """Whether the response of this turn (0-based) may end with a box that is to be cropped."""

    def opening(self, sample: Sample, images: Sequence[Image.Image]) -> list[Message]:
        """The messages before the first response; `images` are the resized originals, in order."""

    def follow_up(
        self, sample: Sample, images: Sequence[Image.Image], outcome: CropOutcome, turn: int
    ) -> Message | None:
        """The message after the response of `turn` (0-based), whose box came to `outcome`; None ends the episode."""


def message_images(messages: Sequence[Message]) -> list[Image.Image]:
    """The images of these messages in the order in which the model meets them."""
    return [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]


def message_text(message: Message) -> str:
    """The texts of one message joined, images left out."""
    return "".join(part["text"] for part in message["content"] if part["type"] == "text")


def assistant_message(text: str) -> Message:
    """What the model said, as a message."""
    return chat_message("assistant", text)


def chat_message(role: str, *parts: str | Image.Image) -> Message:
    """A chat message of texts and images in this order."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return {"role": role, "content": content}


def sentence(question: str) -> str:
    """The question with a full stop, if it ends in no mark."""
    question = question.strip()
    return question if question.endswith((".", "?", "!", "。", "？", "！")) else question + "."


def answer_request(choices: Sequence[str]) -> str:
    """How the answer is asked for: the paper's words for up to five choices, the letters of more, none of none."""
    letters = [choice_letter(index) for index in range(max(len(choices), _PAPERS_CHOICES))] if choices else []
    named = f" ({', '.join(letters[:-1])}, or {letters[-1]})" if letters else ""
    return f"provide the final answer{named} enclosed within \\boxed{{}}."


def _choices(choices: Sequence[str]) -> str:
    if not choices:
        return ""
    lines = "".join(f"({choice_letter(index)}) {choice}\n" for index, choice in enumerate(choices))
    return f"The choices are listed below:\n{lines}"
