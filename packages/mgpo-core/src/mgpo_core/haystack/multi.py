"""haystack_multi: sets of haystack canvases with questions whose answer is a box in one of them.

Five tasks mirror MIG-Bench's kinds. An object is known by colour and shape; where several images are given, the object
that is asked for is in exactly one of those that may be answered. The canvases are half as wide as in the world of one
image, and objects stand on a grid of 8 pixels of the image that is shown; nothing here depends on the marks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mgpo_core.errors import SampleError
from mgpo_core.haystack.world import COLOURS, SPLITS, Difficulty, Scene, Shape, place_shapes
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.annotations import AnnotatedObject, AnnotatedSet, Relation

__all__ = ["DIFFICULTY", "IMAGES", "TASKS", "annotated_object", "by_colour", "make_sets"]

_LEVEL = Difficulty(
    canvas=672, objects=(2, 3), size=(96, 96), mark=56, twins=0.0, grid=32, shapes=("square", "diamond", "cross")
)
DIFFICULTY: dict[str, Difficulty] = {
    "train": _LEVEL,
    "val": _LEVEL,
    "ood": replace(_LEVEL, canvas=840, objects=(3, 4), size=(100, 100), mark=60, grid=20),
}
"""No circles: the vision tower of the tiny checkpoints hardly tells them from crosses in the small image."""

IMAGES = (2, 6)
"""Fewest and most images of a set."""

Name = tuple[str, str]
"""Colour and shape."""


def make_sets(
    split: str = "val",
    n: int = 500,
    seed: int = 0,
    images: int = 3,
    tasks: Sequence[str] | str | None = None,
    difficulty: Difficulty | None = None,
) -> list[AnnotatedSet]:
    """Make `n` annotated sets of `images` canvases, task after task in turn: a pure function of the arguments.

    `diff` is always between two images. `tasks` names those that are wanted (a text with commas will do). Raises
    SampleError for an unknown split or task, and a number of images that cannot be.
    """
    if split not in SPLITS:
        raise SampleError(f"haystack_multi has no split {split!r}: {nearest(split, SPLITS)}")
    if type(images) is not int or not IMAGES[0] <= images <= IMAGES[1]:
        raise SampleError(f"haystack_multi: images={images!r}: give a whole number from {IMAGES[0]} to {IMAGES[1]}")
    wanted = _tasks(tasks)
    level = DIFFICULTY[split] if difficulty is None else difficulty
    return [_make(split, seed, index, images, wanted[index % len(wanted)], level) for index in range(n)]


def _tasks(tasks: Sequence[str] | str | None) -> list[str]:
    names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks or TASKS)
    for name in names:
        if name not in TASKS:
            raise SampleError(f"haystack_multi has no task {name!r}: {nearest(str(name), TASKS)}")
    return names


def _make(split: str, seed: int, index: int, images: int, task: str, level: Difficulty) -> AnnotatedSet:
    key = (len(TASKS), list(TASKS).index(task), images)  # apart from the streams of one image and of several
    rng = np.random.default_rng(np.random.SeedSequence((SPLITS.index(split), seed, index), spawn_key=key))
    return TASKS[task](_Maker(rng, level, f"haystack_multi-{split}-{seed}-{index}", task, images))


class _Maker:
    """Draws the scenes of one set and puts it together."""

    def __init__(self, rng: np.random.Generator, level: Difficulty, id: str, task: str, images: int) -> None:
        self.rng, self.level, self.id, self.task, self.images = rng, level, id, task, images

    def count(self) -> int:
        """How many objects the next scene has."""
        return int(self.rng.integers(self.level.objects[0], self.level.objects[1] + 1))

    def names(self, count: int, *, without: Sequence[Name] = ()) -> list[Name]:
        """`count` names of distinct colours; neither the names nor their colours are in `without`."""
        free = [colour for colour in COLOURS if colour not in {colour for colour, _ in without}]
        colours = [str(colour) for colour in self.rng.permutation(free)[:count]]
        return [(colour, str(self.rng.choice(self.level.shapes))) for colour in colours]

    def others(self, asked: Name) -> list[Name]:
        """The names of a scene without the asked one; its colour or its shape may be there, in another object."""
        while True:
            names = self.names(self.count())
            if asked not in names:
                return names

    def scene(self, names: Sequence[Name], *, beside: Sequence[Shape] = ()) -> Scene:
        """A scene of these names; `beside` shapes that are there already, where they are."""
        while True:
            shapes = place_shapes(self.rng, names, self.level, placed=beside)
            if shapes is not None:
                return Scene(tuple(shapes), self.level, grain=int(self.rng.integers(2**31)))

    def spread(self, asked: Name, images: int) -> tuple[list[Scene], int]:
        """Scenes of which exactly one, whose place is returned, holds the asked object, as its first shape."""
        place = int(self.rng.integers(images))
        scenes = [
            self.scene([asked, *self.names(self.count() - 1, without=[asked])] if i == place else self.others(asked))
            for i in range(images)
        ]
        return scenes, place

    def set(
        self,
        question: str,
        scenes: Sequence[Scene],
        target: tuple[int, int],
        relations: Sequence[tuple[str, Sequence[tuple[int, int]]]] = (),
        region: tuple[int, int] | None = None,
    ) -> AnnotatedSet:
        """The annotated set; objects are named by (image, place in its scene), relations by kind and objects.

        Of a relation of kind "differs" all images are meant, and the object is in the last.
        """
        places = [(i, j) for i, scene in enumerate(scenes) for j in by_colour(scene.shapes)]
        order = {key: number for number, key in enumerate(places)}
        objects = tuple(annotated_object(scenes[i].shapes[j], i) for i, j in places)
        return AnnotatedSet(
            id=self.id,
            question=question,
            images=tuple(partial(Scene.render, scene) for scene in scenes),
            objects=objects,
            target=order[target],
            relations=tuple(
                Relation(
                    kind,
                    tuple(range(len(scenes))) if kind == "differs" else tuple(i for i, _ in members),
                    tuple(order[member] for member in members),
                )
                for kind, members in relations
            ),
            task=self.task,
            regions=() if region is None else (objects[order[region]].box,),
            sizes=((self.level.canvas, self.level.canvas),) * len(scenes),
        )


def by_colour(shapes: Sequence[Shape]) -> list[int]:
    """Places of the shapes in the order in which a scene is described: that of `COLOURS`."""
    return sorted(range(len(shapes)), key=lambda place: list(COLOURS).index(shapes[place].colour))


def annotated_object(shape: Shape, image: int) -> AnnotatedObject:
    """A shape as the annotation of the image (from 0) that it is in."""
    return AnnotatedObject(shape.name, replace(shape.box, image=image), {"colour": shape.colour, "shape": shape.shape})


def _group_grounding(maker: _Maker) -> AnnotatedSet:
    """An object by its name, in one of the images."""
    [asked] = maker.names(1)
    scenes, place = maker.spread(asked, maker.images)
    return maker.set(f"Find the {' '.join(asked)}.", scenes, (place, 0))


def _object_tracking(maker: _Maker) -> AnnotatedSet:
    """The one object of the first image, in the others."""
    [asked] = maker.names(1)
    scenes, place = maker.spread(asked, maker.images - 1)
    first = maker.scene([asked])
    pair = [(0, 0), (place + 1, 0)]
    return maker.set("Find the object of image 1 in the others.", [first, *scenes], pair[1], [("same", pair)])


def _region(maker: _Maker) -> AnnotatedSet:
    """An object that is pointed at in the first image, in the others."""
    [asked] = maker.names(1)
    scenes, place = maker.spread(asked, maker.images - 1)
    first = maker.scene([asked, *maker.names(maker.count() - 1, without=[asked])])
    pair = [(0, 0), (place + 1, 0)]
    question = "Find the object at <region> of image 1 in the others."
    return maker.set(question, [first, *scenes], pair[1], [("same", pair)], region=(0, 0))


def _common_object(maker: _Maker) -> AnnotatedSet:
    """The object that is in every image, in one of them."""
    [asked] = maker.names(1)
    while True:
        others = [maker.names(maker.count() - 1, without=[asked]) for _ in range(maker.images)]
        if not set.intersection(*map(set, others)):
            break
    scenes = [maker.scene([asked, *names]) for names in others]
    place = int(maker.rng.integers(maker.images))
    question = f"Which object is in every image? Find it in image {place + 1}."
    return maker.set(question, scenes, (place, 0), [("common", [(i, 0) for i in range(maker.images)])])


def _diff(maker: _Maker) -> AnnotatedSet:
    """What the second image shows and the first does not; all else is the same and where it was."""
    added, *names = maker.names(maker.count() + 1)
    first = maker.scene(names[: maker.level.objects[1]])
    second = maker.scene([added], beside=first.shapes)
    place = len(second.shapes) - 1
    question = "What is in image 2 that is not in image 1?"
    return maker.set(question, [first, second], (1, place), [("differs", [(1, place)])])


TASKS: dict[str, Callable[[_Maker], AnnotatedSet]] = {
    "group_grounding": _group_grounding,
    "object_tracking": _object_tracking,
    "region": _region,
    "common_object": _common_object,
    "diff": _diff,
}
"""The tasks by the names of MIG-Bench's kinds."""
