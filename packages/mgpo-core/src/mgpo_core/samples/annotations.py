"""Annotated sets of images: what is where in each, and how the images relate. What trajectories are built from.

Object-level annotation is a label with its box and attributes; image-level annotation is a relation between images.
Both are what MIRG-RL (arXiv 2509.21788) constructs its reasoning trajectories from; the schema is this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import check_regions
from mgpo_core.errors import SampleError
from mgpo_core.images.load import ImageSource
from mgpo_core.samples.sample import Sample

__all__ = ["RELATIONS", "AnnotatedObject", "AnnotatedSet", "Relation"]

RELATIONS = {
    "differs": "the objects are in the last of the images and not in the others",
    "common": "the objects, one in each of the images, are of the same kind, and no other kind is in all of them",
    "same": "the objects, one in each of the images, are one and the same thing",
    "order": "the images follow each other in time, in this order",
    "view": "the images show the same scene from different sides",
}
"""Kinds of relations between images, with what each one says. Which image holds an object follows from its box."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object: what it is called, its box in pixels of the original (`Box.image` counts from 0), and more."""

    label: str
    box: Box
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Relation:
    """An image-level annotation; `images` and `objects` are places in the set's own lists (from 0)."""

    kind: str
    images: tuple[int, ...]
    objects: tuple[int, ...] = ()


@dataclass(frozen=True)
class AnnotatedSet:
    """A question over several images, the object that answers it, and what is known about the images.

    `target` is the place in `objects` of the answer. `regions` are the boxes that the question speaks of, one for each
    `<region>` in it. All boxes are pixels of the originals. Raises SampleError, naming the set, for what contradicts
    itself.
    """

    id: str
    question: str
    images: tuple[ImageSource, ...]
    objects: tuple[AnnotatedObject, ...]
    target: int
    relations: tuple[Relation, ...] = ()
    task: str = ""
    regions: tuple[Box, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    """(width, height) of each image, where they are known: then boxes must lie inside."""

    def __post_init__(self) -> None:
        who = f"annotated set {self.id!r}"
        if not self.question.strip():
            raise SampleError(f"{who}: the question is empty")
        if len(self.images) < 2:
            raise SampleError(f"{who}: {len(self.images)} images: a set has at least two")
        if not 0 <= self.target < len(self.objects):
            raise SampleError(f"{who}: target {self.target} is none of its {len(self.objects)} objects (from 0)")
        check_regions(f"{who}: the question", self.question, self.regions)
        for number, item in enumerate(self.objects):
            if not item.label.strip():
                raise SampleError(f"{who}: object {number} has no label")
            self._check_box(item.box, f"{who}: object {number} ({item.label!r})")
        for box in self.regions:
            self._check_box(box, f"{who}: region")
        for relation in self.relations:
            self._check_relation(relation, who)

    def _check_box(self, box: Box, who: str) -> None:
        if not 0 <= box.image < len(self.images):
            raise SampleError(f"{who} is on image {box.image} of {len(self.images)} (from 0)")
        if not all(map(math.isfinite, box.as_tuple())) or not box.area > 0:
            raise SampleError(f"{who}: the box {list(box.as_tuple())} has no area")
        if self.sizes and box.clipped(*self.sizes[box.image]) != box:
            width, height = self.sizes[box.image]
            raise SampleError(f"{who}: the box {list(box.as_tuple())} reaches out of the {width}x{height} image")

    def _check_relation(self, relation: Relation, who: str) -> None:
        if relation.kind not in RELATIONS:
            raise SampleError(f"{who}: unknown relation {relation.kind!r}; known: {', '.join(RELATIONS)}")
        images, objects = relation.images, relation.objects
        if len(set(images)) < 2 or not all(0 <= image < len(self.images) for image in images):
            raise SampleError(f"{who}: relation {relation.kind!r} of images {list(images)}: name two or more of them")
        if not all(0 <= place < len(self.objects) for place in objects):
            raise SampleError(f"{who}: relation {relation.kind!r} of objects {list(objects)}, which are not all there")
        where = [self.objects[place].box.image for place in objects]
        if relation.kind in ("same", "common") and sorted(where) != sorted(images):
            raise SampleError(f"{who}: relation {relation.kind!r}: give one object in each of its images")
        if relation.kind == "differs" and (not where or set(where) != {images[-1]}):
            raise SampleError(f"{who}: relation 'differs': its objects must be in the last of its images")

    @property
    def answer(self) -> AnnotatedObject:
        """The object that is asked for."""
        return self.objects[self.target]

    def labels(self, image: int) -> list[str]:
        """What an image holds: each label once, in the order of annotation."""
        return list(dict.fromkeys(item.label for item in self.objects if item.box.image == image))

    def relation(self, *kinds: str) -> Relation | None:
        """The first relation of one of these kinds."""
        return next((relation for relation in self.relations if relation.kind in kinds), None)

    def sample(self, **rest: Any) -> Sample:
        """The question as a sample whose true box is the answer's; `rest` are further fields of `Sample`."""
        return Sample(
            question=self.question,
            images=self.images,
            boxes=(self.answer.box,),
            id=self.id,
            metadata={"task": self.task, "target_image": self.answer.box.image, "label": self.answer.label},
            regions=self.regions,
            **rest,
        )
