"""Verifies traces as the model that will be trained sees and writes them.

The solution is run through an `Episode`, so that what training reads is what is verified. The paper (arXiv
2509.21788) does not say how its trajectories were checked: the checks are this project's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mgpo_core.boxes.parse import CoordinateSpace
from mgpo_core.boxes.regions import View
from mgpo_core.episodes.trajectory import Turn
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_core.templates.multi_image import MultiImage, solution_text
from mgpo_train.reasoning_data.trace import Trace
from mgpo_train.reasoning_data.verifier.claims import claim_problems
from mgpo_train.reasoning_data.verifier.facts import Facts
from mgpo_train.reasoning_data.verifier.problems import Problem, Reason
from mgpo_train.reasoning_data.verifier.prose import prose_problems
from mgpo_train.reasoning_data.verifier.replay import replay

__all__ = ["Verifier"]


@dataclass(frozen=True)
class Verifier:
    """How the images are shown, which numbers boxes are written in, and the IoU from which a box is correct."""

    budget: PixelBudget
    space: CoordinateSpace
    min_iou: float = 0.9

    def view(self, annotated: AnnotatedSet) -> View:
        """How the images of a set are seen."""
        return replay(annotated, budget=self.budget, space=self.space, template=MultiImage()).view

    def text(self, annotated: AnnotatedSet, trace: Trace) -> str:
        """The response that is taught."""
        return solution_text(trace.solution, self.view(annotated))

    def problems(self, annotated: AnnotatedSet, trace: Trace) -> list[Problem]:
        """Everything that is wrong with a trace; empty: keep it."""
        for box in (trace.solution.box, *trace.solution.regions):
            if not 0 <= box.image < len(annotated.images):
                return [Problem(Reason.NO_SUCH_IMAGE, f"{box} is on none of the {len(annotated.images)} images")]
        episode = replay(annotated, budget=self.budget, space=self.space, template=MultiImage())
        facts = Facts(annotated, episode.view, self.min_iou)
        episode.observe(solution_text(trace.solution, episode.view))
        problems = [*_answer_problems(episode.trajectory.answer_turn, facts)]
        for claim in trace.claims:
            problems += claim_problems(claim, facts)
        return [*problems, *prose_problems(trace, facts)]


def _answer_problems(turn: Turn | None, facts: Facts) -> Iterator[Problem]:
    """What is wrong with the answer as the episode read it."""
    if turn is None or turn.box is None or turn.rejection is not None:
        yield Problem(Reason.NO_ANSWER, f"no answer is read from {turn and turn.text!r:.120}")
        return
    answer, box = facts.answer, turn.box
    if turn.label != answer.label:
        yield Problem(Reason.WRONG_LABEL, f"the answer is labelled {turn.label!r}, not {answer.label!r}")
    if box.image != answer.box.image:
        yield Problem(Reason.WRONG_IMAGE, f"the answer is in image {box.image + 1}, not {answer.box.image + 1}")
    elif not facts.is_box(box.as_tuple(), answer.box):
        numbers = facts.view.numbers(answer.box)
        yield Problem(Reason.WRONG_BOX, f"the answer is {list(box.as_tuple())}, the object is at {numbers}")
