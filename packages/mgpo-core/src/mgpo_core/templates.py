"""Templates: what is said to the model before each of its turns, as plain chat messages with images in place.

A template holds no state and sees no tensor. `TwoTurn` is the paper's protocol to the byte (arXiv 2507.05920; the
strings are listed in the project's reference facts) for up to five choices, the paper's case; with more choices the
request for the answer names their letters, and without any it names none. `SingleTurn` is the baseline that looks once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from PIL import Image

from mgpo_core.answers import choice_letter
from mgpo_core.cropping import CropOutcome
from mgpo_core.sample import Sample
from mgpo_core.suggest import nearest

Message = dict[str, Any]
"""One chat message in Hugging Face's format: a role and a list of parts, each a text or a PIL image."""

_PAPERS_CHOICES = 5  # the paper's prompts name A to E, however many choices there are

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
    """One look at the resized original, then the answer: the baseline of single-turn GRPO and SFT."""

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


def load_template(name: str) -> Template:
    """The template of that name; ValueError with the nearest right name when there is none."""
    from mgpo_core.multi_image import MultiImage, MultiImageTwoTurn  # which stand on this module

    templates = (TwoTurn, SingleTurn, PlainTurn, MultiImage, MultiImageTwoTurn)
    known: dict[str, type[Template]] = {template.name: template for template in templates}
    if name in known:
        return known[name]()
    raise ValueError(f"unknown template {name!r}: {nearest(name, known)}")


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


def _request(sample: Sample, how: str) -> str:
    """The question, its choices, and how to come to the answer."""
    question = f"Question: {sentence(sample.question)} {_choices(sample.choices)}"
    return f"{question}{how}{answer_request(sample.choices)}"


def _choices(choices: Sequence[str]) -> str:
    if not choices:
        return ""
    lines = "".join(f"({choice_letter(index)}) {choice}\n" for index, choice in enumerate(choices))
    return f"The choices are listed below:\n{lines}"
