"""Solutions that go wrong at the end, as those of an unverified teacher do: to study what RL repairs.

The images are weighed correctly; then the conclusion names another image and boxes something in it, or the box lies
beside the object. The verifier rejects both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mgpo_core.boxes.parse import Box, iou
from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_train.reasoning_data.writers.terse import found_sentence

__all__ = ["corrupt_solution"]

_STEPS = 3
"""A box is moved in steps of a third of its sides, by up to this many."""
_NEAR = 0.5
"""IoU with the object below which a box counts as beside it."""


def corrupt_solution(annotated: AnnotatedSet, solution: WorkedSolution, rng: np.random.Generator) -> WorkedSolution:
    """The terse solution of a set with a wrong image or a wrong box, each as often as the other.

    It is always the box where the other images hold nothing.
    """
    elsewhere = [item.box for item in annotated.objects if item.box.image != solution.box.image]
    if elsewhere and rng.random() < 0.5:
        box = elsewhere[int(rng.integers(len(elsewhere)))]
        reasoning = solution.reasoning.replace(
            found_sentence(solution.label, solution.box.image), found_sentence(solution.label, box.image)
        )
        return replace(solution, reasoning=reasoning, box=box)
    return replace(solution, box=_beside(solution.box, annotated.sizes[solution.box.image], rng))


def _beside(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box as large as `box` and near it, inside an image of `size`."""
    while True:
        across, down = (int(step) for step in rng.integers(-_STEPS, _STEPS + 1, size=2))
        dx, dy = across * box.width / _STEPS, down * box.height / _STEPS
        moved = replace(box, x1=box.x1 + dx, y1=box.y1 + dy, x2=box.x2 + dx, y2=box.y2 + dy)
        if moved.clipped(*size) == moved and iou(moved, box) < _NEAR:
            return moved
