"""Trajectories by rule: what the annotations say, as a reasoning that weighs the images, then the object, then answers.

Offline and deterministic: a solution is a function of the annotated set, the wording and the seed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mgpo_core.annotations import AnnotatedSet
from mgpo_core.errors import SampleError
from mgpo_core.regions import Solution
from mgpo_train.options import nearest
from mgpo_train.trajectories.varied_writer import write_varied

__all__ = ["WORDING_STYLES", "found_sentence", "image_sentence", "write_solution"]

WORDING_STYLES = ("terse", "varied")
"""In the fewest words, always the same; or in English sentences drawn from many."""


def write_solution(annotated: AnnotatedSet, *, wording: str = "terse", seed: int = 0) -> Solution:
    """The solution of a set; `seed` matters to the varied wording alone. Raises SampleError for an unknown wording."""
    if wording not in WORDING_STYLES:
        raise SampleError(f"wording={wording!r}: {nearest(wording, WORDING_STYLES)}")
    return write_varied(annotated, seed) if wording == "varied" else _write_terse(annotated)


def _write_terse(annotated: AnnotatedSet) -> Solution:
    """A line for each image, what follows from them, and where the object is.

    Images are described by all that they hold where the question compares them, else by whether they hold the object.
    """
    asked = annotated.answer
    compared = annotated.relation("common", "differs") is not None
    lines = []
    for image in range(len(annotated.images)):
        labels = annotated.labels(image)
        if not compared:
            labels = [asked.label] if asked.label in labels else []
        lines.append(image_sentence(image, labels, asked.label))
    lines.append(found_sentence(asked.label, asked.box.image))
    return Solution("\n".join(lines), asked.box, asked.label)


def image_sentence(image: int, labels: Sequence[str], asked: str) -> str:
    """The terse words for what an image (from 0) holds of what matters, or that what is asked for is not in it."""
    return f"Image {image + 1}: {', '.join(labels) if labels else f'no {asked}'}."


def found_sentence(label: str, image: int) -> str:
    """The terse words for where the object is; images count from 0."""
    return f"The {label} is in image {image + 1}."
