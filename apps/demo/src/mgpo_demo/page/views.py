"""The parts of the page as HTML, made by the macros of `templates/views.html.j2`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from mgpo_core import Box
from mgpo_core.boxes.parse import rejection_words
from mgpo_core.episodes.trajectory import Trajectory, Turn
from mgpo_core.images.encode import data_uri
from mgpo_core.render.card import response_view
from mgpo_core.render.environment import template
from mgpo_core.render.tokens import token_view
from mgpo_core.samples.grading import choice_letter, resolve_choice
from mgpo_core.templates.base import message_images
from mgpo_demo.session.steps import Step

__all__ = [
    "answer",
    "cards_frame",
    "crop",
    "explanation",
    "history",
    "note",
    "numbers",
    "others",
    "problems",
    "proportions",
    "said",
    "single_turn",
    "size",
    "took",
    "waiting",
]  # fmt: skip

View = dict[str, Any]

_CROP_SIDE = 640
_BY = {"model": "the model", "person": "you", "closer": "the model, closer"}
_TITLES = {"model": "After looking closer", "person": "From your box", "closer": "After looking closer inside"}
_SINGLE_TURN = "From a single turn, without a crop"
_MOST_PROBLEMS = 20


def _html(macro: str, *values: Any) -> str:
    return str(getattr(template("mgpo_demo/views.html.j2").module, macro)(*values)).strip()


def size(pixels: Sequence[float]) -> str:
    """Width and height in pixels, with thousands set apart."""
    return f"{round(pixels[0]):,}×{round(pixels[1]):,}"


def took(seconds: float) -> str:
    """Seconds as a person reads them."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def numbers(box: Box) -> str:
    """A box in whole numbers, `x1, y1, x2, y2`."""
    return ", ".join(f"{value:.0f}" for value in box.as_tuple())


def note(text: str, kind: str = "") -> str:
    """A sentence for the visitor; kind is "bad", "soft", "busy" while a run goes on, or empty."""
    return _html("note", text, kind) if text else ""


def problems(texts: Sequence[str]) -> str:
    """The first of the problems of a run, as a list."""
    return _html("problems", texts[:_MOST_PROBLEMS], len(texts) - _MOST_PROBLEMS) if texts else ""


def proportions(pixels: tuple[int, int]) -> str:
    """Tells the style sheet and the script the width and the height of the image."""
    return _html("proportions", *pixels)


def said(number: int, text: str, turn: Turn | None, by: str = "Model") -> str:
    """A response, as far as it is; `turn` once it is over."""
    return _html("said", response_view(number, text, turn, by), turn is None) if text or turn is not None else ""


def crop(trajectory: Trajectory) -> str:
    """What came back after the first turn: the crop beside the same place as first seen, or the original again."""
    view = _crop_view(trajectory)
    return "" if view is None else _html("crop", view)


def _crop_view(trajectory: Trajectory) -> View | None:
    turn = trajectory.turns[0]
    shown = message_images(trajectory.messages)
    if len(shown) < 2 or turn.shown_size is None:
        return None
    if turn.box_original is None:
        reason = rejection_words(turn.rejection or "no box")
        return {"refusal": f"No crop ({reason}): the model was shown the whole image again."}
    box, seen, real = turn.box_original, trajectory.input_sizes[0], trajectory.original_sizes[0]
    first = box.scaled(seen[0] / real[0], seen[1] / real[1])
    before = shown[0].crop((int(first.x1), int(first.y1), max(1, round(first.x2)), max(1, round(first.y2))))
    larger = turn.shown_size[0] / max(1.0, first.width)
    words = f"{size(before.size)} pixels of the {size(seen)} that the model saw"
    cut = f"seen at {size(turn.shown_size)}, really {size((box.width, box.height))} of {size(real)}"
    figures = [
        _figure(before, "As first seen", words, "first"),
        _figure(shown[-1], f"Cut from the original, {larger:.1f}× larger", cut, "slide"),
    ]
    return {"refusal": None, "figures": figures}


def _figure(image: Image.Image, title: str, words: str, kind: str) -> View:
    return {"uri": data_uri(image, _CROP_SIDE), "title": title, "words": words, "kind": kind}


def answer(trajectory: Trajectory, by: str) -> str:
    """The answer in large letters, with the verdict where the ground truth is known; `by` as in `Step.by`."""
    return _html("answer", _answer_view(trajectory, _TITLES[by]), None)


def waiting(by: str) -> str:
    """The place of the answer while the model is not there yet."""
    return _html("answer", {"title": _TITLES[by], "text": None}, None)


def single_turn(text: str, trajectory: Trajectory | None) -> str:
    """What the same model says without looking closer; `trajectory` once it is over."""
    if not text and trajectory is None:
        return ""
    view = {"title": _SINGLE_TURN, "text": None} if trajectory is None else _answer_view(trajectory, _SINGLE_TURN)
    return _html("answer", view, text)


def _answer_view(trajectory: Trajectory, title: str = "") -> View:
    """The answer with its letter and its choice, as far as there are any."""
    text = "no answer" if trajectory.answer is None else trajectory.answer
    index = resolve_choice(text, trajectory.choices) if trajectory.answer is not None and trajectory.choices else None
    if index is not None:
        text = f"{choice_letter(index)} · {trajectory.choices[index]}"
    return {"title": title, "text": text, "correct": trajectory.correct}


def others(named: Iterable[tuple[str, Trajectory]]) -> str:
    """Compared models: answer, crop and last response of each."""
    models = [
        {
            "answer": _answer_view(trajectory, name),
            "crop": _crop_view(trajectory) if trajectory.turns and trajectory.box_original is not None else None,
            "text": trajectory.turns[-1].text if trajectory.turns else "",
        }
        for name, trajectory in named
    ]
    return _html("others", models) if models else ""


def history(steps: Sequence[Step]) -> str:
    """A row for each step."""
    return _html("history", [_step_view(step) for step in steps]) if steps else ""


def _step_view(step: Step) -> View:
    box, share = step.box, step.trajectory.crop_area_fraction
    return {
        "by": _BY[step.by],
        "inside": "" if step.area is None else f"inside [{numbers(step.area)}]",
        "where": "the whole image" if box is None else f"[{numbers(box)}]",
        "share": "" if share is None else f"{100 * share:.2g}%",
        "answer": _answer_view(step.trajectory),
    }


def explanation(step: Step, factor: int) -> str:
    """The conversation with tokens coloured by the training mask, what each image and turn cost, and confidence."""
    trajectory, confidence = step.trajectory, None
    if step.confidence is not None:
        shares = zip(trajectory.choices, step.confidence.items(), strict=False)
        confidence = [(letter, choice, f"{100 * share:.1f}") for choice, (letter, share) in shares]
    names = ("image", "image again" if trajectory.box_original is None else "crop")
    images = zip(names, message_images(trajectory.messages), strict=False)
    view = {
        "images": [(name, size(image.size), image.width * image.height // factor**2) for name, image in images],
        "turns": _turn_rows(step),
        "confidence": confidence,
        "tokens": None if trajectory.tokens is None else token_view(trajectory.tokens),
    }
    return _html("explanation", view)


def _turn_rows(step: Step) -> list[tuple[object, ...]]:
    """(name, tokens read, tokens said, seconds, tokens a second) of every turn of the step."""
    rows: list[tuple[object, ...]] = []
    for name, trajectory in step.trajectories:
        for number, turn in enumerate(trajectory.turns, start=1):
            speed = f"{turn.tokens / turn.seconds:.0f}" if turn.tokens and turn.seconds else "–"
            spent = f"{turn.seconds:.2f}" if turn.seconds else "–"
            title = f"{name}, turn {number}" if len(trajectory.turns) > 1 else name
            rows.append((title, turn.prompt_tokens or "–", turn.tokens or "–", spent, speed))
    return rows


def cards_frame(page: str, number: int, pages: int) -> str:
    """A page of cards (`browse.page`) in a frame that keeps its style in."""
    return _html("frame", page, number, pages)
