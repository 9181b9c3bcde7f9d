"""Steps of looking at one image: the model's own, with a person's box, and closer within a box; undone in order."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from mgpo_core import Box, Episode, Sample
from mgpo_core.boxes.parse import Rejection, rejection_words
from mgpo_core.boxes.regions import View
from mgpo_core.episodes.trajectory import Trajectory, Turn
from mgpo_core.templates.single_image import SingleTurn, TwoTurn
from mgpo_demo.session.image import DemoImage
from mgpo_demo.session.limits import DemoError
from mgpo_demo.session.model import DemoModel

__all__ = ["Question", "Step", "answer_from_box", "closer_look", "first_look", "whole"]

_REFUSALS = {
    Rejection.TOO_SMALL: "it is too small: make each side longer than {side} pixels of this image",
    Rejection.TOO_ELONGATED: "it is too long for its width: make it squarer",
    Rejection.OUTSIDE: "it reaches out of the image: move it inside",
    Rejection.REVERSED: "its corners are in the wrong order",
}


@dataclass(frozen=True)
class Question:
    """What is asked about an image; `answer` is the true one where it is known (examples)."""

    text: str
    choices: tuple[str, ...] = ()
    answer: str | None = None
    boxes: tuple[Box, ...] = ()
    "True boxes in pixels of the original, where they are known."

    def sample(self, path: Path, name: str) -> Sample:
        """The sample over the file at `path`, without true boxes (they are of the whole image)."""
        return Sample.of(self.text, path, choices=self.choices, answer=self.answer, id=name)


@dataclass(frozen=True)
class Step:
    """One step: who chose the box, on which part of the image, and what came of it."""

    by: str
    """"model", "person" (turn 2 from a person's box) or "closer" (the model again, inside a box)."""
    trajectory: Trajectory
    area: Box | None = None
    "The part of the original, in whole pixels, that was the model's image; None for all of it."
    single_turn: Trajectory | None = None
    "The same question in a single turn, without a crop."
    others: tuple[tuple[str, Trajectory], ...] = ()
    """(name, trajectory) of compared models: ("NAME", ...) and ("NAME, single turn", ...)."""
    confidence: dict[str, float] | None = None
    "Probability of each choice's letter."

    @property
    def box(self) -> Box | None:
        """Where it looked, in pixels of the whole original."""
        return whole(self.trajectory.box_original, self.area)

    @property
    def trajectories(self) -> list[tuple[str, Trajectory]]:
        """(name, trajectory) of all that was run, the step itself first."""
        single_turn = [("single turn", self.single_turn)] if self.single_turn is not None else []
        return [(_NAMES[self.by], self.trajectory), *single_turn, *self.others]


_NAMES = {"model": "the model's look", "person": "your box", "closer": "a closer look"}


def whole(box: Box | None, area: Box | None) -> Box | None:
    """A box of a part as one of the whole image."""
    if box is None or area is None:
        return box
    return Box(box.x1 + area.x1, box.y1 + area.y1, box.x2 + area.x1, box.y2 + area.y1)


def first_look(model: DemoModel, image: DemoImage, question: Question) -> dict[str, Episode]:
    """The model's look, and beside it ("single_turn") the same question in a single turn on the same image."""
    sample = question.sample(image.path, image.name)
    if question.boxes:
        sample = replace(sample, boxes=question.boxes)
    return {"look": model.episode(sample, TwoTurn()), "single_turn": model.episode(sample, SingleTurn())}


def answer_from_box(model: DemoModel, image: DemoImage, question: Question, box: Box) -> Episode:
    """An episode whose first turn a person took: the box (pixels of the original) in the model's own numbers.

    The box is rounded to these numbers, so it snaps to the grid of what the model sees. Raises DemoError for a box that
    the rules refuse.
    """
    episode = model.episode(question.sample(image.path, image.name), TwoTurn())
    _ = episode.messages  # opens the image
    episode.observe(box_text(box, episode.view))
    turn: Turn = episode.trajectory.turns[0]
    if turn.rejection is not None:
        raise DemoError(f"the model would not be given this box: {_why(turn.rejection, model, episode)}")
    return episode


def closer_look(model: DemoModel, image: DemoImage, question: Question, box: Box, folder: Path) -> tuple[Episode, Box]:
    """(episode, part): the model's look with the box's part of the original as its image, kept in `folder`.

    Raises DemoError for a part that is too small to look into.
    """
    x1, y1, x2, y2 = (float(int(value + 0.5)) for value in box.clipped(*image.size).as_tuple())
    area = Box(x1, y1, x2, y2)
    if min(area.width, area.height) < model.budget.factor:
        raise DemoError(
            f"there is nothing to look closer at: the box is {area.width:g}×{area.height:g} pixels of the original, "
            f"and the model's image is made of squares of {model.budget.factor}; make it larger"
        )
    part = image.part(area, folder)
    return model.episode(question.sample(part, f"{image.name}, part"), TwoTurn()), area


def box_text(box: Box, view: View) -> str:
    """A first turn that gives this box (pixels of the original), as the model would write it."""
    entry = json.dumps({"bbox_2d": view.numbers(box), "label": "key image area"})
    return f"```json\n[\n    {entry}\n]\n```"


def _why(rejection: str, model: DemoModel, episode: Episode) -> str:
    [shown], [real] = episode.trajectory.input_sizes, episode.trajectory.original_sizes
    side = round(model.settings.crop_min_side * max(real[0] / shown[0], real[1] / shown[1]))
    return _REFUSALS.get(Rejection(rejection), rejection_words(rejection)).format(side=side)
