"""Trajectories that go wrong at the end, as a careless teacher's do where nobody verifies them.

The images are weighed right; then the conclusion names another image and boxes something in it, or the box lies beside
the object. The verifier rejects both. They are for studying what reinforcement learning repairs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mgpo_core.annotations import AnnotatedSet
from mgpo_core.boxes import Box, iou
from mgpo_core.regions import Solution
from mgpo_train.trajectories.rule_writer import found_sentence

__all__ = ["with_slip"]

_STEPS = 3
"""A box beside the object is off by so many thirds of its sides at most."""
_NEAR = 0.5
"""Overlap with the object under which a box counts as beside it."""


def with_slip(annotated: AnnotatedSet, solution: Solution, rng: np.random.Generator) -> Solution:
    """The terse solution of the set with a slip: as often a wrong image as a wrong box (always a box in a set that has
    nothing in its other images)."""
    elsewhere = [item.box for item in annotated.objects if item.box.image != solution.box.image]
    if elsewhere and rng.random() < 0.5:
        box = elsewhere[int(rng.integers(len(elsewhere)))]
        reasoning = solution.reasoning.replace(
            found_sentence(solution.label, solution.box.image), found_sentence(solution.label, box.image)
        )
        return replace(solution, reasoning=reasoning, box=box)
    return replace(solution, box=_beside(solution.box, annotated.sizes[solution.box.image], rng))


def _beside(box: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    """A box of the same size near `box`, inside an image of `size`, that does not hold what `box` holds."""
    while True:
        across, down = (int(step) for step in rng.integers(-_STEPS, _STEPS + 1, size=2))
        dx, dy = across * box.width / _STEPS, down * box.height / _STEPS
        moved = replace(box, x1=box.x1 + dx, y1=box.y1 + dy, x2=box.x2 + dx, y2=box.y2 + dy)
        if moved.clipped(*size) == moved and iou(moved, box) < _NEAR:
            return moved
