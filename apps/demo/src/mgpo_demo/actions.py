"""What the buttons do: a visitor in, news for the page out. No Gradio here; `page.py` puts the news into components."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mgpo_core import Box, Episode, Sample
from mgpo_core.errors import ImageError, MGPOError, Stopped
from mgpo_core.trajectory import Trajectory
from mgpo_demo import views
from mgpo_demo.limits import DemoError, Limits
from mgpo_demo.looks import Ask, Look, answer_from_box, closer_look, first_look, whole
from mgpo_demo.model import DemoModel
from mgpo_demo.picture import Picture, keep_image, keep_upload
from mgpo_demo.saved import open_saved
from mgpo_demo.stream import Progress, stream
from mgpo_demo.visitors import Visitor

__all__ = ["Actions", "News", "plainly", "told"]

_LOG = logging.getLogger(__name__)

News = dict[str, Any]
"""Name of a part of the page -> what it shows now; parts that are not named stay as they are."""

_RUN_PARTS = ("turn1", "crop", "turn2", "answer", "direct", "others", "history", "explain")
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

    def choose_example(self, visitor: Visitor, index: int) -> News:
        """Show an example with its question."""
        sample = self.examples[index]
        example = Ask(sample.question, tuple(sample.choices), sample.answer, tuple(sample.boxes))
        visitor.show(partial(keep_image, sample.images[0], f"example {index + 1}"), example)
        asked = {"question": sample.question, "choices": "\n".join(sample.choices)}
        return self._fresh(visitor) | asked | {"status": views.note("Press Run, and watch where the model looks.")}

    def upload(self, visitor: Visitor, file: Path, name: str) -> News:
        """Show an uploaded picture.

        The upload itself goes with Gradio's cache: another visitor may have sent the same file, which is kept once.
        """
        try:
            visitor.show(lambda folder: keep_upload(file, name, folder, self.limits))
        except ImageError as error:
            raise DemoError(_for_visitors(error, file, self.limits)) from error
        return self._fresh(visitor) | {"status": views.note("Ask something about it, then press Run.")}

    def open(self, visitor: Visitor, file: Path) -> News:
        """Open looks that were saved."""
        open_saved(file, visitor, self.limits)
        assert visitor.ask is not None
        asked = {"question": visitor.ask.question, "choices": "\n".join(visitor.ask.choices)}
        return self._fresh(visitor) | asked | self._look(visitor) | {"status": views.note("Opened.")}

    def check(self, visitor: Visitor, question: str, choices: str) -> Ask:
        """What is to be asked; DemoError where something is missing or too long."""
        if visitor.picture is None:
            raise DemoError("There is no picture yet: choose an example, or drop one of your own.")
        return visitor.asked(*self.limits.asked(question, choices))

    def run(self, visitor: Visitor, ask: Ask) -> Iterator[News]:
        """The model's own look, and beside it its answer after one look; then the other models'."""
        picture, stop = visitor.picture, visitor.stop
        assert picture is not None
        visitor.ask, visitor.looks = ask, []
        yield self._fresh(visitor) | {"status": _BUSY, "answer": views.waiting("model")}
        episodes = first_look(self.model, picture, ask)
        news = _Changes()
        for progress in stream(self.model, episodes, stop):
            yield news(self._progress(visitor, progress, episodes["look"], None))
        look = self._finished("model", episodes["look"], None)
        look = replace(look, direct=episodes["direct"].trajectory)
        for model in self.models()[1:]:
            yield {
                "status": views.note(f"Now {model.name} …", "busy"),
                "answer": views.answer(look.trajectory, look.by),
            }
            compared = first_look(model, picture, ask)
            for _ in stream(model, compared, stop):
                pass
            named = {model.name: "look", f"{model.name}, one look": "direct"}
            look = replace(
                look, others=look.others + tuple((name, compared[key].trajectory) for name, key in named.items())
            )
            yield {"others": views.others(look.others)}
        visitor.add(look, stop)
        yield self._look(visitor) | {"status": views.note(_verdict(look))}

    def from_box(self, visitor: Visitor, ask: Ask, box: Box) -> Iterator[News]:
        """Turn 2 again, with a person's box (pixels of the original)."""
        visitor.check_room()
        assert visitor.picture is not None
        episode = answer_from_box(self.model, visitor.picture, ask, box)
        yield from self._step(visitor, ask, "person", episode, None)

    def closer(self, visitor: Visitor, ask: Ask, box: Box) -> Iterator[News]:
        """The model's look at a part of the picture alone."""
        visitor.check_room()
        assert visitor.picture is not None
        episode, area = closer_look(self.model, visitor.picture, ask, box, visitor.folder)
        yield from self._step(visitor, ask, "closer", episode, area)

    def _step(self, visitor: Visitor, ask: Ask, by: str, episode: Episode, area: Box | None) -> Iterator[News]:
        stop = visitor.stop
        if ask != visitor.ask:
            visitor.ask, visitor.looks = ask, []
        yield dict.fromkeys(("turn1", "crop", "turn2"), "") | {"status": _BUSY, "answer": views.waiting(by)}
        news = _Changes()
        for progress in stream(self.model, {"look": episode}, stop):
            yield news(self._progress(visitor, progress, episode, area))
        look = self._finished(by, episode, area)
        visitor.add(look, stop)
        yield self._look(visitor) | {"status": views.note(_verdict(look))}

    def broken_off(self, visitor: Visitor, picture: Picture | None, error: Exception) -> News:
        """What the page shows after a run on `picture` that failed or was stopped: the step before, if there is one."""
        if visitor.picture is not picture:
            return self._fresh(visitor)
        if visitor.looks:
            return self._look(visitor) | {"status": told(error)}
        return {"answer": "", "direct": "", "status": told(error)}

    def undo(self, visitor: Visitor) -> News:
        """Go back to the look before."""
        visitor.undo()
        return self._look(visitor) | {"status": views.note("Back to the step before.")}

    def drawn(self, visitor: Visitor, box: Box, numbers: str) -> News:
        """The numbers of a box that was drawn with the mouse; those at hand stay if they are the same on the copy."""
        picture = visitor.picture
        assert picture is not None
        typed = _box(numbers)
        if typed is not None and picture.to_shown(typed) == picture.to_shown(box):
            return {}
        return {"numbers": views.numbers(box)}

    def draw(self, visitor: Visitor, numbers: str) -> News:
        """Draw the box that was typed, `x1, y1, x2, y2` in pixels of the original."""
        if visitor.picture is None:
            raise DemoError("There is no picture yet: choose an example, or drop one of your own.")
        typed = _box(numbers)
        if typed is None:
            raise DemoError("Give four numbers, x1, y1, x2, y2, in pixels of the original.")
        box = visitor.picture.to_original(visitor.picture.to_shown(typed))
        return self._picture(visitor, box, "your box") | {"status": views.note(f"Drawn: [{views.numbers(box)}].")}

    def _finished(self, by: str, episode: Episode, area: Box | None) -> Look:
        trajectory = episode.trajectory
        return Look(by, trajectory, area, confidence=self.model.confidence(trajectory))

    def _progress(self, visitor: Visitor, progress: Progress, episode: Episode, area: Box | None) -> News:
        """What the page shows while an episode plays."""
        trajectory = episode.trajectory
        news = self._talk(trajectory, progress, area is None and "direct" not in progress.episodes)
        if trajectory.turns:
            news |= self._picture(visitor, whole(trajectory.box_original, area), _label(area))
            news["crop"] = views.crop(trajectory)
        if "direct" in progress.episodes:
            direct = progress.episodes["direct"]
            done = direct.trajectory if direct.done else None
            news["direct"] = views.one_look(progress.saying("direct", 0), done)
        return news

    def _talk(self, trajectory: Trajectory, progress: Progress, person: bool) -> News:
        turns = trajectory.turns
        first = views.said(1, progress.saying("look", 0), turns[0] if turns else None, "You" if person else "Model")
        second = views.said(2, progress.saying("look", 1), turns[1] if len(turns) > 1 else None)
        return {"turn1": first, "turn2": second if turns else ""}

    def _picture(self, visitor: Visitor, box: Box | None = None, label: str = "") -> News:
        """The picture with the box, a caption of its sizes, and the box in numbers."""
        picture = visitor.picture
        if picture is None:
            return {}
        width, height = self.model.budget.smart_resize(*picture.size)
        ratio = max(picture.size) / max(width, height)
        caption = f"{picture.name}: seen at {max(width, height):,} px, really {max(picture.size):,} px"
        caption += f" ({ratio:.1f}× as wide and as high)." if ratio > 1.05 else "."
        shown = None if box is None else picture.to_shown(box)
        return {
            "picture": (picture.shown, shown, label),
            "caption": views.proportions(picture.size) + views.note(caption, "soft"),
            "numbers": "" if box is None else views.numbers(box),
        }

    def _fresh(self, visitor: Visitor) -> News:
        """The picture alone, nothing looked at yet."""
        return dict.fromkeys(_RUN_PARTS, "") | self._picture(visitor)

    def _look(self, visitor: Visitor) -> News:
        """The whole page for the latest look."""
        look = visitor.look
        if look is None:
            return {}
        trajectory, turns = look.trajectory, look.trajectory.turns
        first = visitor.looks[0]
        return self._picture(visitor, look.box, _label(look.area)) | {
            "turn1": views.said(1, turns[0].text, turns[0], "You" if look.by == "person" else "Model"),
            "crop": views.crop(trajectory),
            "turn2": views.said(2, turns[1].text, turns[1]) if len(turns) > 1 else "",
            "answer": views.answer(trajectory, look.by),
            "direct": "" if first.direct is None else views.one_look(first.direct.turns[-1].text, first.direct),
            "others": views.others(first.others),
            "history": views.history(visitor.looks),
            "explain": views.explanation(look, self.model.budget.factor),
        }


class _Changes:
    """Leaves out what the page shows already: a picture that is sent again with every token is heavy."""

    def __init__(self) -> None:
        self._sent: News = {}

    def __call__(self, news: News) -> News:
        changed = {name: value for name, value in news.items() if self._sent.get(name, self) != value}
        self._sent |= changed
        return changed


def told(error: Exception) -> str:
    """An error as a sentence for the page."""
    return views.note(plainly(error), "soft" if isinstance(error, Stopped) else "bad")


def plainly(error: Exception) -> str:
    """An error as a sentence for a visitor; one that nobody foresaw goes to the log, and its kind to the visitor."""
    if isinstance(error, MGPOError):
        return str(error)
    _LOG.exception("a visitor's request failed", exc_info=error)
    return f"Something went wrong ({type(error).__name__}); the server's log says more. Try again, or another picture."


def _verdict(look: Look) -> str:
    took = views.took(sum(turn.seconds for turn in look.trajectory.turns))
    return f"Done in {took}. Move the box and answer from it, or look closer inside it."


def _for_visitors(error: ImageError, file: Path, limits: Limits) -> str:
    """Core's sentence without the server's path and the advice for data sets; advice for a file instead."""
    what = str(error).replace(f" ({str(file)!r})", "").rpartition(";")[0]
    what = re.sub(r" \(\w+: .*\)$", "", what, flags=re.DOTALL)  # what Pillow said
    return f"{what}. Save it again as PNG or JPEG, of at most {limits.megapixels:,} megapixels, and drop that."


def _box(numbers: str | None) -> Box | None:
    found = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", numbers or "")]
    return Box(found[0], found[1], found[2], found[3]) if len(found) == 4 else None


def _label(area: Box | None) -> str:
    return "the model looks here" if area is None else "the model looks closer here"
