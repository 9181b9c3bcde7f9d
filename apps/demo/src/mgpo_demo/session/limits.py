"""What one visitor may ask of the server, each limit with the sentence that the page shows beyond it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mgpo_core.errors import MGPOError
from mgpo_core.samples.questions import split_question, without_letters

__all__ = ["DemoError", "Limits"]


class DemoError(MGPOError, ValueError):
    """Something that a visitor asked for and cannot have; the message is shown in the page."""


@dataclass(frozen=True)
class Limits:
    """Bounds on uploads, questions, waiting and running; `mgpo-demo --help` tells what each is for."""

    upload_mb: int = 50
    megapixels: int = 120
    question: int = 2000
    "Characters."
    queue: int = 32
    "Visitors that may wait."
    seconds: float = 120.0
    "Of one run, waiting not counted."
    looks: int = 20
    "Steps that a visitor's history may hold."
    visitors: int = 200
    "Visitors whose images are kept; the one who has been idle longest gives way."

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise DemoError(f"{name}={value}: give a number above 0")

    @property
    def pixels(self) -> int:
        """Most pixels of an image."""
        return self.megapixels * 1_000_000

    @property
    def upload_bytes(self) -> int:
        """Most bytes of an uploaded file."""
        return self.upload_mb * 1_000_000

    @property
    def saved_bytes(self) -> int:
        """Most bytes of saved looks: the largest image in base64, and what was shown."""
        return 3 * self.upload_bytes

    def check_upload(self, size: int, what: str) -> None:
        """Raise DemoError for a file of more bytes than may be uploaded."""
        if size > self.upload_bytes:
            raise DemoError(
                f"{what} has {size / 1e6:.1f} MB; at most {self.upload_mb} MB can be uploaded; save it with a stronger "
                "compression, or scale it down"
            )

    def check_pixels(self, size: tuple[int, int], what: str) -> None:
        """Raise DemoError for an image of more pixels (width, height) than may be decoded."""
        if size[0] * size[1] > self.pixels:
            raise DemoError(
                f"{what} has {size[0]:,}×{size[1]:,} = {size[0] * size[1] / 1e6:,.0f} million pixels; at most "
                f"{self.megapixels:,} million are taken; scale it down, or cut out the part you mean"
            )

    def question_of(self, text: str | None) -> str:
        """The question without spaces around it; DemoError for none and for one that is too long."""
        question = (text or "").strip()
        if not question:
            raise DemoError("ask something first: the question is empty")
        if len(question) > self.question:
            raise DemoError(
                f"the question has {len(question):,} characters; at most {self.question:,} are taken; shorten it"
            )
        return question

    def asked(self, question: str | None, choices: str | None) -> tuple[str, tuple[str, ...]]:
        """(question, choices without letters), as training and evaluation read them.

        Without choices of their own, those that the question lists. DemoError for what `question_of` and `choices_of`
        refuse.
        """
        asked, lines = self.question_of(question), self.choices_of(choices)
        if lines:
            return asked, without_letters(lines)
        alone, listed = split_question(asked)
        return (alone, listed) if listed else (asked, ())

    def choices_of(self, text: str | None) -> tuple[str, ...]:
        """The choices, one a line, blank lines left out; DemoError for one alone, too many or too long."""
        choices = tuple(line.strip() for line in (text or "").splitlines() if line.strip())
        if len(choices) == 1:
            raise DemoError("one choice is no choice: give two or more, one a line, or none for a free answer")
        if len(choices) > 26:
            raise DemoError(f"there are {len(choices)} choices; at most 26 can be lettered A to Z")
        if sum(map(len, choices)) > self.question:
            raise DemoError(f"the choices have more than {self.question:,} characters together; shorten them")
        return choices
