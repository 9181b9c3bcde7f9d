"""What the annotations of a set say, as the checks ask for it; images are places from 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from mgpo_core.annotations import AnnotatedObject, AnnotatedSet, Relation
from mgpo_core.boxes import Box, CoordinateSpace, Size, iou
from mgpo_core.regions import View
from mgpo_train.trajectories.language.lexicon import folded

__all__ = ["Facts"]


@dataclass(frozen=True)
class Facts:
    """An annotated set as the model sees it, and from which overlap on a box counts as the true one."""

    annotated: AnnotatedSet
    view: View
    min_iou: float

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.annotated.images)

    @cached_property
    def asked(self) -> str:
        """The label of the object that is asked for."""
        return folded(self.annotated.answer.label)

    @property
    def target(self) -> int:
        """The image that holds the object that is asked for."""
        return self.annotated.answer.box.image

    @cached_property
    def counts(self) -> list[Counter[str]]:
        """For each image, how many objects of each label it holds."""
        found: list[Counter[str]] = [Counter() for _ in range(self.count)]
        for item in self.annotated.objects:
            found[item.box.image][folded(item.label)] += 1
        return found

    def holds(self, label: str, image: int) -> bool:
        """Whether an image holds an object of a label."""
        return self.counts[image][label] > 0

    def everywhere(self, label: str, images: Sequence[int]) -> bool:
        """Whether each of the images holds an object of a label."""
        return all(self.holds(label, image) for image in images)

    def objects(self, labels: Collection[str], images: Collection[int]) -> list[AnnotatedObject]:
        """The objects of these labels (of any, when none is given) in these images."""
        return [
            item
            for item in self.annotated.objects
            if item.box.image in images and (not labels or folded(item.label) in labels)
        ]

    def boxes(self, labels: Collection[str], images: Collection[int]) -> list[Box]:
        """The boxes of such objects, and those in these images that the question points at."""
        pointed_at = [region for region in self.annotated.regions if region.image in images]
        return [item.box for item in self.objects(labels, images)] + pointed_at

    def relations(self, *kinds: str) -> list[Relation]:
        """The relations of these kinds."""
        return [relation for relation in self.annotated.relations if relation.kind in kinds]

    def extent(self, image: int) -> Size:
        """Up to which numbers, across and down, boxes on an image go."""
        return self.view.input_sizes[image] if self.view.space is CoordinateSpace.ABSOLUTE else (1000, 1000)

    def is_box(self, numbers: Sequence[float], true: Box) -> bool:
        """Whether numbers stand for a true box: they overlap it enough, or are off by no more than rounding.

        Compared are the whole numbers that a model writes: a box of a few pixels is not refused for its fractions.
        """
        exact = self.view.numbers(true)
        x1, y1, x2, y2 = numbers
        overlap = iou(Box(x1, y1, x2, y2), Box(*exact))
        apart = max(abs(ours - theirs) for ours, theirs in zip(numbers, exact, strict=True))
        return overlap >= self.min_iou or (apart <= 1 and overlap >= 0.5)
