"""An annotated set as a model sees it; images are numbered from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo_core.boxes.parse import Box, iou
from mgpo_core.boxes.regions import View
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet

__all__ = ["Facts", "folded"]


@dataclass(frozen=True)
class Facts:
    """The annotations, how the model sees the images, and the IoU from which a box counts as the annotated one."""

    annotated: AnnotatedSet
    view: View
    min_iou: float

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.annotated.images)

    @property
    def answer(self) -> AnnotatedObject:
        """The object asked for."""
        return self.annotated.answer

    def objects(self, label: str, image: int) -> list[AnnotatedObject]:
        """The objects of a label in an image."""
        return [
            item for item in self.annotated.objects if item.box.image == image and folded(item.label) == folded(label)
        ]

    def is_box(self, numbers: Sequence[float], annotated: Box) -> bool:
        """Whether numbers as the model writes them are an annotated box: enough IoU, or off by no more than rounding.

        The annotated box is rounded as well, so that a box of a few pixels is not rejected for its fractions.
        """
        exact = self.view.numbers(annotated)
        x1, y1, x2, y2 = numbers
        overlap = iou(Box(x1, y1, x2, y2), Box(*exact))
        apart = max(abs(given - true) for given, true in zip(numbers, exact, strict=True))
        return overlap >= self.min_iou or (apart <= 1 and overlap >= 0.5)


def folded(text: str) -> str:
    """A label or an attribute as it is compared: in lower case, with single spaces."""
    return " ".join(text.lower().split())
