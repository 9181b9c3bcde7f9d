"""One trajectory as a card: where the model looked, what it was shown, what it said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mgpo_core.boxes.parse import Box, rejection_words
from mgpo_core.episodes.trajectory import Trajectory, Turn
from mgpo_core.errors import ImageError
from mgpo_core.images.encode import DISPLAY_SIDE, data_uri
from mgpo_core.render.environment import template
from mgpo_core.render.tokens import token_view
from mgpo_core.samples.grading import choice_letter
from mgpo_core.templates.base import Message

__all__ = ["Card", "Fact", "View", "card_flags", "card_view", "question_view", "response_view", "trajectory_html"]

Fact = tuple[str, str, str]
"""Name, value and kind, which is "good", "bad" or empty."""

View = dict[str, Any]
"What a template gets: texts, numbers and lists of such, nothing escaped yet."

_ENDS = {"length": ("ran out of length", "bad"), "cut": ("cut after the box", ""), "stop": ("", "")}
_LEGEND = {"model": "the model's box", "refused": "refused box", "true": "true box (the model never sees it)"}


@dataclass(frozen=True)
class Card:
    """A trajectory as a page shows it, with what whoever scored it found."""

    trajectory: Trajectory
    correct: bool | None = None
    "The scorer's verdict; None when there is none (the trajectory's own is not asked)."
    hit: bool | None = None
    "Whether the box contains the centre of a true one; None when that is not known."
    run: str = ""
    "Short name of the run it is from, on a page that shows several."
    facts: tuple[Fact, ...] = ()
    "Further facts beside the verdict."

    @classmethod
    def of(cls, trajectory: Trajectory) -> Card:
        """The card of a trajectory that judges itself, by the ground truth and the true boxes that it carries."""
        return cls(trajectory, trajectory.correct, trajectory.hit)


def trajectory_html(trajectory: Trajectory, *, max_side: int = DISPLAY_SIDE) -> str:
    """The trajectory as one `<article>`, images included, at most `max_side` pixels a side; needs `report_style`."""
    macros: Any = template("mgpo_core.render/card.html.j2").module
    return str(macros.card(card_view(Card.of(trajectory), max_side=max_side)))


def card_view(card: Card, *, max_side: int = DISPLAY_SIDE, question: bool = True) -> View:
    """What the macro `card` shows; `question` says whether question and choices are on it, or already above it."""
    trajectory = card.trajectory
    return {
        "run": card.run,
        "flags": card_flags(card),
        "correct": card.correct,
        "facts": list(_facts(card)),
        "question": question_view(trajectory) if question else None,
        "images": list(_originals(trajectory, max_side)),
        "talk": list(_talk(trajectory, max_side)),
        "tokens": None if trajectory.tokens is None else token_view(trajectory.tokens),
    }


def card_flags(card: Card) -> dict[str, bool]:
    """What the filters of a report go by; a sample that nobody judged is neither right nor wrong."""
    turn = card.trajectory.judged_turn
    refused = turn is not None and turn.rejection is not None
    return {
        "right": card.correct is True,
        "wrong": card.correct is False,
        "refused": refused,
        "missed": card.hit is False and not refused,
    }


def question_view(trajectory: Trajectory, *, given: bool = True) -> View:
    """The question and its choices (letter, text, kind): the true one marked and, where `given`, the model's."""
    answer = (trajectory.answer or "").strip() if given else ""
    choices = []
    for index, choice in enumerate(trajectory.choices):
        letter = choice_letter(index)
        kinds = ["true"] * (trajectory.ground_truth == letter) + ["given"] * (answer == letter)
        choices.append((letter, choice, " ".join(kinds)))
    return {"text": trajectory.question, "choices": choices}


def response_view(number: int, text: str, turn: Turn | None, by: str = "Model") -> View:
    """What the macro `said` shows of a response, the `number`-th from 1; `turn` is None while it is under way."""
    facts: list[Fact] = []
    if turn is not None:
        word, kind = _ENDS.get(turn.finish_reason, (turn.finish_reason, ""))
        facts += [("", word, kind)] if word else []
        facts += [("refused", rejection_words(turn.rejection), "bad")] if turn.rejection else []
        facts += [("tokens", str(turn.tokens), "")] if turn.tokens else []
        facts += [("seconds", f"{turn.seconds:.2g}", "")] if turn.seconds else []
    return {"kind": "response", "number": number, "text": text, "by": by, "facts": facts}


def _facts(card: Card) -> Iterator[Fact]:
    trajectory = card.trajectory
    yield "answer", "none" if trajectory.answer is None else trajectory.answer, ""
    if trajectory.ground_truth is not None:
        yield "ground truth", trajectory.ground_truth, ""
    if trajectory.reward is not None:
        yield "reward", f"{trajectory.reward:.3g}", ""
    turn, metrics = trajectory.judged_turn, trajectory.metrics()
    if turn is not None and turn.rejection is not None:
        yield "box refused", rejection_words(turn.rejection), "bad"
    elif card.hit is not None:
        yield "box", "hit" if card.hit else "missed", "good" if card.hit else "bad"
    if "image_accuracy" in metrics:
        right = bool(metrics["image_accuracy"])
        yield "image", "right" if right else "wrong", "good" if right else "bad"
    if "mean_iou" in metrics:
        yield "IoU", f"{metrics['mean_iou']:.2f}", ""
    if "crop_area_fraction" in metrics:
        yield "crop", f"{100 * metrics['crop_area_fraction']:.2g}% of the image", ""
    if trajectory.sample_id:
        yield "sample", trajectory.sample_id, ""
    yield from card.facts


def _originals(trajectory: Trajectory, max_side: int) -> Iterator[View]:
    """Every original with its boxes and, where it differs, the image as the model saw it."""
    shapes = list(_boxes(trajectory))
    inputs = [part["image"] for part in _image_parts(trajectory.messages)]
    sizes = trajectory.original_sizes
    for index in range(len(trajectory.sources)):
        try:
            original = trajectory.original(index)
        except ImageError as error:  # a file that was moved since must not cost the run its report
            yield {"problem": str(error)}
            continue
        # the source may be a small copy of the original, which the boxes are not in pixels of
        width, height = size = sizes[index] if index < len(sizes) else original.size
        note, seen = f"really {_size(size)}", None
        if index < len(trajectory.input_sizes):
            note = f"seen at {_size(trajectory.input_sizes[index])}, {note}"
            if index < len(inputs) and inputs[index].size != size:
                seen = data_uri(inputs[index], max_side)
        here = [(box, kind, title) for box, kind, title in shapes if box.image == index]
        kinds = {kind for _, kind, _ in here}
        yield {
            "problem": None,
            "name": "Image" if len(trajectory.sources) == 1 else f"Image {index + 1}",
            "note": note,
            "uri": data_uri(original, max_side),
            "seen": seen,
            "width": width,
            "height": height,
            "ratio": f"{width / height:.5g}",
            "shapes": [_shape(box, kind, title, max(size) / 40) for box, kind, title in here],
            "legend": [(kind, words) for kind, words in _LEGEND.items() if kind in kinds],
        }


def _image_parts(messages: list[Message]) -> Iterator[dict[str, Any]]:
    for message in messages:
        yield from (part for part in message["content"] if part["type"] == "image")


def _boxes(trajectory: Trajectory) -> Iterator[tuple[Box, str, str]]:
    """(box in pixels of the original, kind, title) of the true boxes and of every turn's box that can be drawn."""
    for true in trajectory.true_boxes:
        yield true, "true", f"true box {_numbers(true)}"
    for index, turn in enumerate(trajectory.turns):
        box = trajectory.turn_box(turn)
        if box is not None and all(math.isfinite(value) for value in box.as_tuple()):
            kind = "model" if turn.rejection is None else "refused"
            yield box, kind, f"box of turn {index + 1} {_numbers(box)}"


def _numbers(box: Box) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in box.as_tuple()) + "]"


def _shape(box: Box, kind: str, title: str, ring: float) -> View:
    """The box in the original's coordinates, with a ring around one that is too small to be seen."""
    left, right = sorted((box.x1, box.x2))
    top, bottom = sorted((box.y1, box.y2))
    values = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    values |= {"cx": (left + right) / 2, "cy": (top + bottom) / 2}
    tiny = max(values["width"], values["height"]) < ring
    texts = {name: f"{value:.1f}" for name, value in values.items()}
    return {"kind": kind, "title": title, "ring": f"{ring:.1f}" if tiny else None} | texts


def _talk(trajectory: Trajectory, max_side: int) -> Iterator[View]:
    """The conversation: what was said to the model, its responses, and the crops."""
    turns = iter(trajectory.turns)
    responses = 0
    for message in trajectory.messages:
        if message["role"] == "assistant":
            responses += 1
            yield response_view(responses, _text(message), next(turns, None))
        elif responses == 0:
            summary = "System" if message["role"] == "system" else "Question, as put to the model"
            yield _prompt(message, summary, trajectory.input_sizes)
        else:
            yield from _follow_up(trajectory, message, responses, max_side)
    for turn in turns:  # a trajectory whose messages were let go of still says what the model said
        responses += 1
        yield response_view(responses, turn.text, turn)


def _follow_up(trajectory: Trajectory, message: Message, responses: int, max_side: int) -> Iterator[View]:
    """What came back after a response: the crop with its true size, or the original again with the reason."""
    turn = trajectory.turns[responses - 1] if responses <= len(trajectory.turns) else None
    sizes = () if turn is None or turn.shown_size is None else (turn.shown_size,)
    for part in _image_parts([message]):
        width, height = size = sizes[0] if sizes else part["image"].size  # this may be a small copy of what was shown
        if turn is not None and turn.box_original is not None:
            really = _size((round(turn.box_original.width), round(turn.box_original.height)))
            note = f"The crop, seen at {_size(size)}, really {really} of the original"
            uri = data_uri(part["image"], max_side)
            yield {"kind": "crop", "uri": uri, "note": note, "ratio": f"{width / height:.5g}"}
        else:
            reason = rejection_words(turn.rejection) if turn is not None and turn.rejection else "no crop"
            yield {"kind": "refusal", "text": f"{reason.capitalize()}: the image again, at {_size(size)}."}
    yield _prompt(message, "Said to the model", sizes)


def _prompt(message: Message, summary: str, sizes: Sequence[tuple[int, int]]) -> View:
    return {"kind": "prompt", "summary": summary, "text": _text(message, sizes)}


def _text(message: Message, sizes: Sequence[tuple[int, int]] = ()) -> str:
    """The message's words, each image as its size: the given ones in order, then those of the images at hand."""
    known = iter(sizes)
    return "".join(
        part["text"] if part["type"] == "text" else f"[image {_size(next(known, part['image'].size))}]\n"
        for part in message["content"]
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"
