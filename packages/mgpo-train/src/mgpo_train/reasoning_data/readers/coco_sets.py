"""Questions over several images that boxes and categories alone can answer."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mgpo_core.boxes.parse import Box, Size
from mgpo_core.errors import SampleError
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet, Relation

__all__ = ["TASKS", "CocoImage", "pose_sets"]

_TRIES = 20
"""Draws of other images for one object before giving up on it."""


@dataclass
class CocoImage:
    """An image, its boxes by label, and the labels whose number in it is uncertain."""

    path: str
    size: Size
    boxes: dict[str, list[Box]] = field(default_factory=lambda: defaultdict(list))
    doubtful: set[str] = field(default_factory=set)

    @property
    def labels(self) -> set[str]:
        """Every label that may be in it."""
        return self.doubtful | set(self.boxes)

    @property
    def certain(self) -> dict[str, list[Box]]:
        """The boxes of the labels whose number is certain."""
        return {label: boxes for label, boxes in self.boxes.items() if label not in self.doubtful}


def pose_sets(
    images: Sequence[CocoImage], *, n: int | None, seed: int, set_images: int, tasks: str | None
) -> list[AnnotatedSet]:
    """At most `n` sets of `set_images` images, the tasks in turn; no object is asked for twice by a task.

    Deterministic. Raises SampleError for an unknown task or an impossible number of images.
    """
    if set_images < 2 or (images and set_images > len(images)):
        raise SampleError(f"set_images={set_images}: give a whole number from 2 to {len(images)}, the images there are")
    names = [name.strip() for name in tasks.split(",")] if tasks else list(TASKS)
    for name in names:
        if name not in TASKS:
            raise SampleError(f"tasks: {name!r}: {nearest(name, TASKS)}")
    streams = {name: _Poser(images, name, seed, set_images).sets() for name in names}
    sets: list[AnnotatedSet] = []
    while streams and (n is None or len(sets) < n):
        for name in list(streams):
            one = next(streams[name], None)
            if one is None:
                del streams[name]
            elif n is None or len(sets) < n:
                sets.append(one)
    return sets


class _Poser:
    """Draws the sets of one task."""

    def __init__(self, images: Sequence[CocoImage], task: str, seed: int, set_images: int) -> None:
        self.images, self.task, self.count = images, task, set_images
        self.seed, self.rng = seed, random.Random(f"{seed}:{task}:{set_images}")
        self.holding: dict[str, list[int]] = defaultdict(list)
        """The images that hold a label for certain."""
        for place, image in enumerate(images):
            for label in image.certain:
                self.holding[label].append(place)

    def sets(self) -> Iterator[AnnotatedSet]:
        """Every set that can be posed, an object at a time in a random order."""
        asked = [
            (place, label)
            for place, image in enumerate(self.images)
            for label, boxes in image.certain.items()
            if len(boxes) == 1
        ]
        self.rng.shuffle(asked)
        made = 0
        for place, label in asked:
            others = TASKS[self.task](self, place, label)
            if others is not None:
                yield self._set(f"coco-{self.task}-{self.seed}-{made}", place, others, label)
                made += 1

    def without(self, place: int, label: str) -> list[int] | None:
        """Other images that do not hold a label."""
        for _ in range(_TRIES):
            others = self._draw(range(len(self.images)))
            if others and place not in others and all(label not in self.images[i].labels for i in others):
                return others
        # too few of them to be met by chance
        return self._draw([i for i in range(len(self.images)) if i != place and label not in self.images[i].labels])

    def sharing(self, place: int, label: str) -> list[int] | None:
        """Other images that hold a label, and with it nothing else that all of them hold."""
        free = [i for i in self.holding[label] if i != place]
        for _ in range(_TRIES):
            others = self._draw(free)
            if others is None:
                return None
            if set.intersection(*(self.images[i].labels for i in [place, *others])) == {label}:
                return others
        return None

    def _draw(self, free: Sequence[int]) -> list[int] | None:
        return self.rng.sample(free, self.count - 1) if len(free) >= self.count - 1 else None

    def _set(self, id: str, place: int, others: list[int], label: str) -> AnnotatedSet:
        order = list(others)
        order.insert(self.rng.randrange(self.count), place)
        chosen = [self.images[i] for i in order]
        objects = [
            AnnotatedObject(name, replace(box, image=i))
            for i, image in enumerate(chosen)
            for name, boxes in image.certain.items()
            for box in boxes
        ]
        first = {item.box.image: j for j, item in reversed([*enumerate(objects)]) if item.label == label}
        target = order.index(place)
        common = self.task == "common_object"
        question = f"Which object is in every image? Find it in image {target + 1}." if common else f"Find the {label}."
        members = tuple(first[i] for i in range(self.count)) if common else ()
        return AnnotatedSet(
            id=id,
            question=question,
            images=tuple(image.path for image in chosen),
            objects=tuple(objects),
            target=first[target],
            relations=(Relation("common", tuple(range(self.count)), members),) if common else (),
            task=self.task,
            sizes=tuple(image.size for image in chosen),
        )


TASKS: dict[str, Callable[[_Poser, int, str], list[int] | None]] = {
    "group_grounding": _Poser.without,
    "common_object": _Poser.sharing,
}
"""The tasks, with what the other images of a set have to be like."""
