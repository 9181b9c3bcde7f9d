"""A sample: a question, on one or more images as a rule, with what is known about its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import WorkedSolution, check_regions
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.images.load import ImageSource, load_image
from mgpo_core.messages.shown import show
from mgpo_core.samples.grading import choice_letter, resolve_choice


@dataclass(frozen=True)
class Sample:
    """One question with its images (none for a question in text alone); SampleError when its parts contradict.

    `choices` are texts without letters, and then `answer` is a letter "A".."Z" (a choice's text is turned into its
    letter). `boxes` are true boxes in pixels of the original images: they serve metrics, and rewards only where the
    answer itself is a box. `answer` None: unknown. `regions` are the boxes that the question speaks of, one for each
    `<region>` in it, in pixels of the originals. `solution`: what supervised training teaches, where it is more than
    the answer.
    """

    question: str
    images: tuple[ImageSource, ...]
    answer: str | None = None
    choices: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[Box, ...] = ()
    solution: WorkedSolution | None = None

    def __post_init__(self) -> None:
        for name in ("images", "choices", "boxes", "regions"):
            value = getattr(self, name)
            if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Sequence):
                raise SampleError(f"{self._who}: {name} must be a tuple, not {show(value)}; or build it by Sample.of")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.question, str) or not self.question.strip():
            raise SampleError(f"{self._who}: the question is {show(self.question)}; give a text that is not empty")
        self._check_answer()
        check_regions(f"{self._who}: the question", self.question, self.regions)
        taught = () if self.solution is None else (self.solution.box, *self.solution.regions)
        for box in (*self.boxes, *self.regions, *taught):
            if not 0 <= box.image < len(self.images) or not all(map(math.isfinite, box.as_tuple())):
                raise SampleError(
                    f"{self._who}: {box} lies on none of its {len(self.images)} images (Box.image counts from 0)"
                )

    def _check_answer(self) -> None:
        if any(not isinstance(choice, str) for choice in self.choices) or len(self.choices) > 26:
            raise SampleError(f"{self._who}: choices must be at most 26 texts, not {show(self.choices, 200)}")
        if self.answer is None:
            return
        if not isinstance(self.answer, str) or not self.answer.strip():
            raise SampleError(f"{self._who}: the answer is {show(self.answer)}; give a text, or None if it is unknown")
        if self.choices:
            index = resolve_choice(self.answer, self.choices)
            if index is None:
                last = choice_letter(len(self.choices) - 1)
                raise SampleError(
                    f"{self._who}: the answer {show(self.answer)} is none of the choices "
                    f"{show(list(self.choices), 200)}; give a letter from A to {last}"
                )
            object.__setattr__(self, "answer", choice_letter(index))

    @property
    def _who(self) -> str:
        return f"sample {show(self.id)}" if self.id else f"the sample with the question {show(self.question, 60)}"

    @classmethod
    def of(cls, question: str, images: ImageSource | Sequence[ImageSource], **rest: Any) -> Sample:
        """A sample from one image source or several; `rest` are the other fields."""
        several = isinstance(images, Sequence) and not isinstance(images, (str, bytes))
        return cls(question, tuple(images) if several else (images,), **rest)  # type: ignore[arg-type]

    def load(self, index: int = 0) -> Image.Image:
        """The `index`-th image, RGB, upright; raises ImageError as load_image does, or when there is no such image."""
        if not -len(self.images) <= index < len(self.images):
            raise ImageError(f"{self._who} has {len(self.images)} images: there is no image {index} (counted from 0)")
        name = f"image {index} of sample {show(self.id)}" if self.id else None
        return load_image(self.images[index], name=name)

    @property
    def image(self) -> Image.Image:
        """The first image, loaded."""
        return self.load(0)
