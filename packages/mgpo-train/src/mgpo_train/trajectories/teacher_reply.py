"""A teacher's reply as a solution: boxes in its reasoning become markers, and their numbers pixels of the originals."""

from __future__ import annotations

from collections.abc import Sequence

from mgpo_core.annotations import AnnotatedSet
from mgpo_core.boxes import Box, parse_boxes
from mgpo_core.multi_image import after_reasoning
from mgpo_core.regions import REGION, Solution, View
from mgpo_train.trajectories.checks.details import detail_images
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.checks.form import reasoning_of
from mgpo_train.trajectories.language.lexicon import lexicon_of
from mgpo_train.trajectories.language.sentences import read_sentences

__all__ = ["read_solution"]


def read_solution(annotated: AnnotatedSet, text: str, view: View, min_iou: float) -> Solution:
    """The solution that a verified reply stands for, in pixels of the originals; `view` is what its numbers mean."""
    facts, reasoning = Facts(annotated, view, min_iou), reasoning_of(text)
    regions: list[Box] = []
    parts, end = [], 0
    for sentence in read_sentences(reasoning, lexicon_of(annotated), facts.count):
        for index in sentence.of_kind("box"):
            token = sentence.tokens[index]
            image = _image_of(token.value, detail_images(sentence, index, facts.count), facts)
            regions.append(_original(token.value, image, view))
            parts += [reasoning[end : token.start], REGION]
            end = token.end
    answer = parse_boxes(after_reasoning(text)).boxes[0]
    box = _original(answer.as_tuple(), answer.image, view)
    return Solution("".join(parts) + reasoning[end:], box, annotated.answer.label, tuple(regions))


def _image_of(numbers: Sequence[float], images: Sequence[int], facts: Facts) -> int:
    """Of the images that a box may be in, the first with such a box."""
    return next(
        (image for image in images if any(facts.is_box(numbers, box) for box in facts.boxes((), [image]))), images[0]
    )


def _original(numbers: Sequence[float], image: int, view: View) -> Box:
    x1, y1, x2, y2 = numbers
    return view.space.to_original(Box(x1, y1, x2, y2, image), view.input_sizes[image], view.original_sizes[image])
