"""The terse writer: one line per image, then one that says where the object is."""

from __future__ import annotations

from collections.abc import Sequence

from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_train.reasoning_data.trace import ObjectClaim, Trace

__all__ = ["found_sentence", "image_sentence", "write_terse"]


def write_terse(annotated: AnnotatedSet) -> Trace:
    """A trace that lists all that an image holds where the question compares images, else only what is asked for."""
    asked = annotated.answer
    compared = annotated.relation("common", "differs") is not None
    lines, claims = [], []
    for image in range(len(annotated.images)):
        labels = annotated.labels(image)
        if not compared:
            labels = [asked.label] if asked.label in labels else []
        lines.append(image_sentence(image, labels, asked.label))
        claims += [ObjectClaim(image, label) for label in labels] or [ObjectClaim(image, asked.label, present=False)]
    lines.append(found_sentence(asked.label, asked.box.image))
    claims.append(ObjectClaim(asked.box.image, asked.label, box=asked.box))
    return Trace(WorkedSolution("\n".join(lines), asked.box, asked.label), tuple(claims))


def image_sentence(image: int, labels: Sequence[str], asked: str) -> str:
    """What an image (from 0) holds of these labels, or that the one asked for is not in it."""
    return f"Image {image + 1}: {', '.join(labels) if labels else f'no {asked}'}."


def found_sentence(label: str, image: int) -> str:
    """Where the object is; images count from 0."""
    return f"The {label} is in image {image + 1}."
