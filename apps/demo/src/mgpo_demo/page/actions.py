"""What the buttons do: a visitor in, updates of the page out. No Gradio here; `page.py` puts them into components."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mgpo_core import Box, Episode, Sample
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import ImageError, MGPOError, Stopped
from mgpo_demo.page import views
from mgpo_demo.session.image import DemoImage, keep_image, keep_upload
from mgpo_demo.session.limits import DemoError, Limits
from mgpo_demo.session.model import DemoModel
from mgpo_demo.session.saved import open_saved
from mgpo_demo.session.steps import Question, Step, answer_from_box, closer_look, first_look, whole
from mgpo_demo.session.stream import Progress, stream
from mgpo_demo.session.visitors import Visitor

__all__ = ["Actions", "PageUpdate", "error_html", "user_message"]

_LOG = logging.getLogger(__name__)

PageUpdate = dict[str, Any]
"""Name of a part of the page -> what it shows now; parts that are not named stay as they are."""

_RUN_PARTS = ("turn1", "crop", "turn2", "answer", "single_turn", "others", "history", "explain")
_BUSY = views.note("Looking …", "busy")


@dataclass
class Actions:
    """The demo's functions for one visitor at a time, over the models that it was started with."""

    models: Callable[[], Sequence[DemoModel]]
    "Waits for the models to be loaded; the first is the one that looks, others are compared."
    limits: Limits
    examples: Sequence[Sample] = ()

    @property
    def model(self) -> DemoModel:
        """The model that looks."""
        return self.models()[0]

    def choose_example(self, visitor: Visitor, index: int) -> PageUpdate:
        """Show an example with its question."""
        sample = self.examples[index]
        example = Question(sample.question, tuple(sample.choices), sample.answer, tuple(sample.boxes))
        visitor.show(partial(keep_image, sample.images[0], f"example {index + 1}"), example)
        asked = {"question": sample.question, "choices": "\n".join(sample.choices)}
        return self._fresh(visitor) | asked | {"status": views.note("Press Run, and watch where the model looks.")}

    def upload(self, visitor: Visitor, file: Path, name: str) -> PageUpdate:
        """Show an uploaded image.

        The upload itself goes with Gradio's cache: another visitor may have sent the same file, which is kept once.
        """
        try:
            visitor.show(lambda folder: keep_upload(file, name, folder, self.limits))
        except ImageError as error:
            raise DemoError(_for_visitors(error, file, self.limits)) from error
        return self._fresh(visitor) | {"status": views.note("Ask something about it, then press Run.")}

    def open(self, visitor: Visitor, file: Path) -> PageUpdate:
        """Open steps that were saved."""
        open_saved(file, visitor, self.limits)
        assert visitor.question is not None
        asked = {"question": visitor.question.text, "choices": "\n".join(visitor.question.choices)}
        return self._fresh(visitor) | asked | self._parts(visitor) | {"status": views.note("Opened.")}

    def check(self, visitor: Visitor, question: str, choices: str) -> Question:
        """What is to be asked; DemoError where something is missing or too long."""
        if visitor.image is None:
            raise DemoError("there is no image yet: choose an example, or drop one of your own")
        return visitor.asked(*self.limits.asked(question, choices))

    def run(self, visitor: Visitor, question: Question) -> Iterator[PageUpdate]:
        """The model's own two turns, and beside them its single-turn answer; then the other models'."""
        image, stop = visitor.image, visitor.stop
        assert image is not None
        visitor.question, visitor.steps = question, []
        yield self._fresh(visitor) | {"status": _BUSY, "answer": views.waiting("model")}
        episodes = first_look(self.model, image, question)
        changes = _Changes()
        for progress in stream(self.model, episodes, stop):
            yield changes(self._progress(visitor, progress, episodes["look"], None))
        step = self._finished("model", episodes["look"], None)
        step = replace(step, single_turn=episodes["single_turn"].trajectory)
        for model in self.models()[1:]:
            yield {
                "status": views.note(f"Now {model.name} …", "busy"),
                "answer": views.answer(step.trajectory, step.by),
            }
            compared = first_look(model, image, question)
            for _ in stream(model, compared, stop):
                pass
            named = {model.name: "look", f"{model.name}, single turn": "single_turn"}
            step = replace(
                step, others=step.others + tuple((name, compared[key].trajectory) for name, key in named.items())
            )
            yield {"others": views.others(step.others)}
        visitor.add(step, stop)
        yield self._parts(visitor) | {"status": views.note(_verdict(step))}

    def from_box(self, visitor: Visitor, question: Question, box: Box) -> Iterator[PageUpdate]:
        """Turn 2 again, with a person's box (pixels of the original)."""
        visitor.check_room()
        assert visitor.image is not None
        episode = answer_from_box(self.model, visitor.image, question, box)
        yield from self._one_step(visitor, question, "person", episode, None)

    def closer(self, visitor: Visitor, question: Question, box: Box) -> Iterator[PageUpdate]:
        """The model's look at a part of the image alone."""
        visitor.check_room()
        assert visitor.image is not None
        episode, area = closer_look(self.model, visitor.image, question, box, visitor.folder)
        yield from self._one_step(visitor, question, "closer", episode, area)

    def _one_step(
        self, visitor: Visitor, question: Question, by: str, episode: Episode, area: Box | None
    ) -> Iterator[PageUpdate]:
        stop = visitor.stop
        if question != visitor.question:
            visitor.question, visitor.steps = question, []
        yield dict.fromkeys(("turn1", "crop", "turn2"), "") | {"status": _BUSY, "answer": views.waiting(by)}
        changes = _Changes()
        for progress in stream(self.model, {"look": episode}, stop):
            yield changes(self._progress(visitor, progress, episode, area))
        step = self._finished(by, episode, area)
        visitor.add(step, stop)
        yield self._parts(visitor) | {"status": views.note(_verdict(step))}

    def broken_off(self, visitor: Visitor, image: DemoImage | None, error: Exception) -> PageUpdate:
        """What the page shows after a run on `image` that failed or was stopped: the step before, if there is one."""
        if visitor.image is not image:
            return self._fresh(visitor)
        if visitor.steps:
            return self._parts(visitor) | {"status": error_html(error)}
        return {"answer": "", "single_turn": "", "status": error_html(error)}

    def undo(self, visitor: Visitor) -> PageUpdate:
        """Go back to the step before."""
        visitor.undo()
        return self._parts(visitor) | {"status": views.note("Back to the step before.")}

    def drawn(self, visitor: Visitor, box: Box, numbers: str) -> PageUpdate:
        """The numbers of a box that was drawn with the mouse; those at hand stay if they are the same on the copy."""
        image = visitor.image
        assert image is not None
        typed = _box(numbers)
        if typed is not None and image.to_shown(typed) == image.to_shown(box):
            return {}
        return {"numbers": views.numbers(box)}

    def draw(self, visitor: Visitor, numbers: str) -> PageUpdate:
        """Draw the box that was typed, `x1, y1, x2, y2` in pixels of the original."""
        if visitor.image is None:
            raise DemoError("there is no image yet: choose an example, or drop one of your own")
        typed = _box(numbers)
        if typed is None:
            raise DemoError("give four numbers, x1, y1, x2, y2, in pixels of the original")
        box = visitor.image.to_original(visitor.image.to_shown(typed))
        return self._image(visitor, box, "your box") | {"status": views.note(f"Drawn: [{views.numbers(box)}].")}

    def _finished(self, by: str, episode: Episode, area: Box | None) -> Step:
        trajectory = episode.trajectory
        return Step(by, trajectory, area, confidence=self.model.confidence(trajectory))

    def _progress(self, visitor: Visitor, progress: Progress, episode: Episode, area: Box | None) -> PageUpdate:
        """What the page shows while an episode runs."""
        trajectory = episode.trajectory
        update = self._talk(trajectory, progress, area is None and "single_turn" not in progress.episodes)
        if trajectory.turns:
            update |= self._image(visitor, whole(trajectory.box_original, area), _label(area))
            update["crop"] = views.crop(trajectory)
        if "single_turn" in progress.episodes:
            single_turn = progress.episodes["single_turn"]
            done = single_turn.trajectory if single_turn.done else None
            update["single_turn"] = views.single_turn(progress.saying("single_turn", 0), done)
        return update

    def _talk(self, trajectory: Trajectory, progress: Progress, person: bool) -> PageUpdate:
        turns = trajectory.turns
        first = views.said(1, progress.saying("look", 0), turns[0] if turns else None, "You" if person else "Model")
        second = views.said(2, progress.saying("look", 1), turns[1] if len(turns) > 1 else None)
        return {"turn1": first, "turn2": second if turns else ""}

    def _image(self, visitor: Visitor, box: Box | None = None, label: str = "") -> PageUpdate:
        """The image with the box, a caption of its sizes, and the box in numbers."""
        image = visitor.image
        if image is None:
            return {}
        width, height = self.model.budget.smart_resize(*image.size)
        ratio = max(image.size) / max(width, height)
        caption = f"{image.name}: seen at {max(width, height):,} px, really {max(image.size):,} px"
        caption += f" ({ratio:.1f}× as wide and as high)." if ratio > 1.05 else "."
        shown = None if box is None else image.to_shown(box)
        return {
            "image": (image.shown, shown, label),
            "caption": views.proportions(image.size) + views.note(caption, "soft"),
            "numbers": "" if box is None else views.numbers(box),
        }

    def _fresh(self, visitor: Visitor) -> PageUpdate:
        """The image alone, nothing looked at yet."""
        return dict.fromkeys(_RUN_PARTS, "") | self._image(visitor)

    def _parts(self, visitor: Visitor) -> PageUpdate:
        """The whole page for the latest step."""
        step = visitor.step
        if step is None:
            return {}
        trajectory, turns = step.trajectory, step.trajectory.turns
        first = visitor.steps[0]
        return self._image(visitor, step.box, _label(step.area)) | {
            "turn1": views.said(1, turns[0].text, turns[0], "You" if step.by == "person" else "Model"),
            "crop": views.crop(trajectory),
            "turn2": views.said(2, turns[1].text, turns[1]) if len(turns) > 1 else "",
            "answer": views.answer(trajectory, step.by),
            "single_turn": ""
            if first.single_turn is None
            else views.single_turn(first.single_turn.turns[-1].text, first.single_turn),
            "others": views.others(first.others),
            "history": views.history(visitor.steps),
            "explain": views.explanation(step, self.model.budget.factor),
        }


class _Changes:
    """Leaves out what the page shows already: an image that is sent again with every token is heavy."""

    def __init__(self) -> None:
        self._sent: PageUpdate = {}

    def __call__(self, update: PageUpdate) -> PageUpdate:
        changed = {name: value for name, value in update.items() if self._sent.get(name, self) != value}
        self._sent |= changed
        return changed


def error_html(error: Exception) -> str:
    """An error as a sentence for the page."""
    message = user_message(error)
    return views.note(
        f"{message[:1].upper()}{message[1:].rstrip('.')}.", "soft" if isinstance(error, Stopped) else "bad"
    )


def user_message(error: Exception) -> str:
    """An error in words for a visitor; one that nobody foresaw goes to the log, and its kind to the visitor."""
    if isinstance(error, MGPOError):
        return str(error)
    _LOG.exception("a visitor's request failed", exc_info=error)
    return f"something went wrong ({type(error).__name__}); the server's log says more; try again, or another image"


def _verdict(step: Step) -> str:
    took = views.took(sum(turn.seconds for turn in step.trajectory.turns))
    return f"Done in {took}. Move the box and answer from it, or look closer inside it."


def _for_visitors(error: ImageError, file: Path, limits: Limits) -> str:
    """Core's sentence without the server's path and the advice for data sets; advice for a file instead."""
    what = str(error).replace(f" ({str(file)!r})", "").rpartition(";")[0]
    what = re.sub(r" \(\w+: .*\)$", "", what, flags=re.DOTALL)  # what Pillow said
    return f"{what}; save it again as PNG or JPEG, of at most {limits.megapixels:,} megapixels, and drop that"


def _box(numbers: str | None) -> Box | None:
    found = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", numbers or "")]
    return Box(found[0], found[1], found[2], found[3]) if len(found) == 4 else None


def _label(area: Box | None) -> str:
    return "the model looks here" if area is None else "the model looks closer here"
