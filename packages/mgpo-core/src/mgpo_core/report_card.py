"""One trajectory as an HTML fragment: where the model looked, what it was shown, what it said."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mgpo_core.answers import choice_letter
from mgpo_core.boxes import Box, rejection_words
from mgpo_core.errors import ImageError
from mgpo_core.templates import Message
from mgpo_core.token_view import escape, tokens_html
from mgpo_core.trajectory import Trajectory, Turn

DISPLAY_SIDE = 900
"The longer side, in pixels, of the largest picture that goes into a page."

_SHARP_AREA = 320 * 320
"Pictures up to this area in pixels (what small models see) are looked at enlarged, so they are kept sharp."


@dataclass(frozen=True)
class Card:
    """A trajectory as a page shows it, with what whoever scored it found."""

    trajectory: Trajectory
    correct: bool | None = None
    "The scorer's verdict; None when there is none (the trajectory's own is not asked)."
    hit: bool | None = None
    "Whether the box contains the centre of a true one; None when that is not known."
    run: str = ""
    "Short name of the run that played it, on a page that shows several."
    facts: tuple[tuple[str, str, str], ...] = ()
    """Further (name, value, kind) beside the verdict; kind is "good", "bad" or empty."""

    @classmethod
    def of(cls, trajectory: Trajectory) -> Card:
        """The card of a trajectory that judges itself, by the truth and the true boxes that it carries."""
        return cls(trajectory, trajectory.correct, trajectory.hit)


def trajectory_html(trajectory: Trajectory, *, max_side: int = DISPLAY_SIDE) -> str:
    """The trajectory as one `<article>`, pictures included, at most `max_side` pixels a side; wants `report_style`."""
    return card_html(Card.of(trajectory), max_side=max_side)


def card_html(card: Card, *, max_side: int = DISPLAY_SIDE, question: bool = True) -> str:
    """The card as one `<article>`; `question` says whether question and choices are on it, or already above it."""
    trajectory = card.trajectory
    flags = flags_html(card_flags(card)) + (f' data-run="{escape(card.run)}"' if card.run else "")
    return (
        f'<article class="card" tabindex="-1"{flags}>\n{_heading(card, question)}\n<div class="columns">\n'
        f'<div class="pictures">{"".join(_pictures(trajectory, max_side))}</div>\n'
        f'<div class="talk">{"".join(_talk(trajectory, max_side))}{_tokens(trajectory)}</div>\n</div>\n</article>\n'
    )


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


def flags_html(flags: dict[str, bool]) -> str:
    """Flags as attributes, `data-NAME="0"` or `"1"`, for the page's script."""
    return "".join(f' data-{name}="{int(value)}"' for name, value in flags.items())


def data_uri(image: Image.Image, max_side: int = DISPLAY_SIDE) -> str:
    """The image as a data URI, no side longer than `max_side` pixels."""
    kind, data = small_picture(image, max_side)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def small_picture(image: Image.Image, max_side: int = DISPLAY_SIDE) -> tuple[str, bytes]:
    """("jpeg" or, where that costs little, "png", the file) of an image, no side longer than `max_side` pixels."""
    small = image.convert("RGB") if image.mode != "RGB" else image.copy()
    small.thumbnail((max_side, max_side), Image.Resampling.HAMMING, reducing_gap=2.0)
    if small.size != image.size or small.width * small.height > _SHARP_AREA:
        return "jpeg", _encoded(small, "JPEG", quality=80, optimize=True)
    data = _encoded(small, "JPEG", quality=92, subsampling=0)
    lossless = _encoded(small, "PNG")
    # drawings; photographs take more
    return ("png", lossless) if len(lossless) <= 3 * len(data) else ("jpeg", data)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _size(size: tuple[int, int]) -> str:
    return escape(f"{size[0]}×{size[1]}")  # numbers, unless the trajectory's file was edited


def _heading(card: Card, question: bool) -> str:
    run = f'<span class="run">{escape(card.run)}</span>' if card.run else ""
    facts = "".join(_facts(card))
    asked = question_html(card.trajectory) if question else ""
    return f'<header><div class="facts">{run}{verdict_html(card.correct)}{facts}</div>{asked}</header>'


def verdict_html(correct: bool | None) -> str:
    """Right, wrong or not graded, as a badge."""
    words = {True: ("right", "✓ right"), False: ("wrong", "✗ wrong"), None: ("unknown", "not graded")}
    kind, word = words[correct]
    return f'<span class="verdict {kind}">{word}</span>'


def question_html(trajectory: Trajectory, *, given: bool = True) -> str:
    """The question as a heading, its choices below: the true one marked and, where `given`, the model's."""
    choices = "".join(
        f'<li class="{_choice_kind(trajectory, index, given)}"><b>{choice_letter(index)}</b> {escape(choice)}</li>'
        for index, choice in enumerate(trajectory.choices)
    )
    return f"<h2>{escape(trajectory.question)}</h2>{f'<ul class=choices>{choices}</ul>' if choices else ''}"


def _choice_kind(trajectory: Trajectory, index: int, given: bool) -> str:
    letter = choice_letter(index)
    kinds = ["true"] if trajectory.truth == letter else []
    if given and (trajectory.answer or "").strip() == letter:
        kinds.append("given")
    return " ".join(kinds)


def _facts(card: Card) -> Iterator[str]:
    trajectory = card.trajectory
    answer = "none" if trajectory.answer is None else trajectory.answer
    yield fact_html("answer", answer)
    if trajectory.truth is not None:
        yield fact_html("truth", trajectory.truth)
    if trajectory.reward is not None:
        yield fact_html("reward", f"{trajectory.reward:.3g}")
    turn, metrics = trajectory.judged_turn, trajectory.metrics()
    if turn is not None and turn.rejection is not None:
        yield fact_html("box refused", rejection_words(turn.rejection), "bad")
    elif card.hit is not None:
        yield fact_html("box", "hit" if card.hit else "missed", "good" if card.hit else "bad")
    if "image_accuracy" in metrics:
        right = bool(metrics["image_accuracy"])
        yield fact_html("image", "right" if right else "wrong", "good" if right else "bad")
    if "mean_iou" in metrics:
        yield fact_html("IoU", f"{metrics['mean_iou']:.2f}")
    if "crop_area_fraction" in metrics:
        yield fact_html("crop", f"{100 * metrics['crop_area_fraction']:.2g}% of the image")
    if trajectory.sample_id:
        yield fact_html("sample", trajectory.sample_id)
    for name, value, kind in card.facts:
        yield fact_html(name, value, kind)


def fact_html(name: str, value: str, kind: str = "") -> str:
    """A named value as a badge; kind is "good", "bad" or empty."""
    return f'<span class="fact {kind}"><small>{escape(name)}</small> {escape(value)}</span>'


def _pictures(trajectory: Trajectory, max_side: int) -> Iterator[str]:
    """Every original with its boxes, over which the picture as the model saw it can be laid."""
    boxes = list(_boxes(trajectory))
    seen = [part["image"] for part in _image_parts(trajectory.messages)]
    for index in range(len(trajectory.sources)):
        try:
            original = trajectory.original(index)
        except ImageError as error:  # a file that was moved since must not cost the run its report
            yield f'<p class="refusal">{escape(error)}</p>'
            continue
        here = [(box, kind, title) for box, kind, title in boxes if box.image == index]
        # the source may be a small copy of the original, which the boxes are not in pixels of
        sizes = trajectory.original_sizes
        size = sizes[index] if index < len(sizes) else original.size
        overlay, note, toggle = "", f"really {_size(size)}", ""
        if index < len(trajectory.input_sizes):
            note = f"seen at {_size(trajectory.input_sizes[index])}, {note}"
        if index < len(seen) and index < len(trajectory.input_sizes) and seen[index].size != size:
            overlay = f'<img class="seen" src="{data_uri(seen[index], max_side)}" alt="">'
            toggle = '<label class="toggle"><input type="checkbox" class="as-seen"> as the model saw it</label>'
        name = "Image" if len(trajectory.sources) == 1 else f"Image {index + 1}"
        yield (
            f'<figure class="picture"><div class="frame" style="--ratio:{size[0] / size[1]:.5g}">'
            f'<img src="{data_uri(original, max_side)}" alt="{name}, {note}">{overlay}{_svg(size, here)}</div>'
            f"<figcaption>{name}, {note} {toggle}{_legend(here)}</figcaption></figure>"
        )


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


def _svg(size: tuple[int, int], boxes: list[tuple[Box, str, str]]) -> str:
    """The boxes as an overlay in the original's coordinates; a ring around those too small to be seen."""
    ring = max(size) / 40
    shapes = []
    for box, kind, title in boxes:
        left, right = sorted((box.x1, box.x2))
        top, bottom = sorted((box.y1, box.y2))
        rect = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        tiny = max(right - left, bottom - top) < ring
        circle = f'cx="{(left + right) / 2:.1f}" cy="{(top + bottom) / 2:.1f}" r="{ring:.1f}"'
        shapes.append(
            f'<g class="{kind}"><title>{escape(title)}</title><rect class="halo" {rect}/><rect {rect}/>'
            f"{f'<circle {circle}/>' if tiny else ''}</g>"
        )
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" preserveAspectRatio="none" role="img">{"".join(shapes)}</svg>'


def _legend(boxes: list[tuple[Box, str, str]]) -> str:
    words = {"model": "the model's box", "refused": "refused box", "true": "true box (the model never sees it)"}
    kinds = [kind for kind in words if any(kind == other for _, other, _ in boxes)]
    return "".join(f'<span class="key {kind}">{words[kind]}</span>' for kind in kinds)


def _talk(trajectory: Trajectory, max_side: int) -> Iterator[str]:
    """The conversation: what was said to the model folded away, its responses and the crops open."""
    turns = iter(trajectory.turns)
    responses = 0
    for message in trajectory.messages:
        if message["role"] == "assistant":
            responses += 1
            yield _response(next(turns, None), _text(message), responses)
        elif responses == 0:
            summary = "System" if message["role"] == "system" else "Question, as put to the model"
            yield _folded(message, summary, trajectory.input_sizes)
        else:
            yield _follow_up(trajectory, message, responses, max_side)
    for turn in turns:  # a trajectory whose messages were let go of still says what the model said
        responses += 1
        yield _response(turn, turn.text, responses)


def _response(turn: Turn | None, text: str, number: int) -> str:
    facts = ""
    if turn is not None:
        ends = {"length": ("ran out of length", "bad"), "cut": ("cut after the box", ""), "stop": ("", "")}
        word, kind = ends.get(turn.finish_reason, (turn.finish_reason, ""))
        facts += fact_html("", word, kind) if word else ""
        facts += fact_html("refused", rejection_words(turn.rejection), "bad") if turn.rejection else ""
        facts += fact_html("tokens", str(turn.tokens)) if turn.tokens else ""
        facts += fact_html("seconds", f"{turn.seconds:.2g}") if turn.seconds else ""
    return (
        f'<section class="said turn{(number - 1) % 2}"><h3>Model, turn {number} {facts}</h3>'
        f'<pre class="text">{escape(text)}</pre></section>'
    )


def _follow_up(trajectory: Trajectory, message: Message, responses: int, max_side: int) -> str:
    """What came back after a response: the crop with its true size, or the original again with the reason."""
    turn = trajectory.turns[responses - 1] if responses <= len(trajectory.turns) else None
    crop_of = turn.box_original if turn is not None else None
    sizes = (turn.shown_size,) if turn is not None and turn.shown_size is not None else ()
    figures = ""
    for part in _image_parts([message]):
        size = sizes[0] if sizes else part["image"].size  # of the image that was shown: this may be a small copy
        shown = _size(size)
        if crop_of is not None:
            really = _size((round(crop_of.width), round(crop_of.height)))
            note = f"The crop, seen at {shown}, really {really} of the original"
            figures += (
                f'<figure class="crop"><div class="frame" style="--ratio:{size[0] / size[1]:.5g}">'
                f'<img src="{data_uri(part["image"], max_side)}" alt="{note}"></div>'
                f"<figcaption>{note}</figcaption></figure>"
            )
        else:
            reason = rejection_words(turn.rejection) if turn is not None and turn.rejection else "no crop"
            figures += f'<p class="refusal">{escape(reason.capitalize())}: the image again, at {shown}.</p>'
    return figures + _folded(message, "Said to the model", sizes)


def _folded(message: Message, summary: str, sizes: Sequence[tuple[int, int]]) -> str:
    text = f'<pre class="text">{escape(_text(message, sizes))}</pre>'
    return f'<details class="prompt"><summary>{summary}</summary>{text}</details>'


def _text(message: Message, sizes: Sequence[tuple[int, int]] = ()) -> str:
    """The message's words, each image as its size: the given ones in order, then those of the pictures at hand."""
    known = iter(sizes)
    return "".join(
        part["text"] if part["type"] == "text" else f"[image {_size(next(known, part['image'].size))}]\n"
        for part in message["content"]
    )


def _tokens(trajectory: Trajectory) -> str:
    tokens = trajectory.tokens
    if tokens is None:
        return ""
    summary = f"Tokens <small>{sum(tokens.mask)} sampled of {len(tokens)}</small>"
    return f'<details class="token-view"><summary>{summary}</summary>{tokens_html(tokens)}</details>'
