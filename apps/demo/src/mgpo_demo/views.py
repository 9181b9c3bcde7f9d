"""What the page shows, as HTML; every text of a model or a visitor is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from PIL import Image

from mgpo_core import Box
from mgpo_core.answers import choice_letter, resolve_choice
from mgpo_core.boxes import rejection_words
from mgpo_core.report_card import data_uri, fact_html, verdict_html
from mgpo_core.templates import message_images
from mgpo_core.token_view import escape, tokens_html
from mgpo_core.trajectory import Trajectory, Turn
from mgpo_demo.looks import Look

__all__ = [
    "answer", "crop", "explanation", "history", "note", "numbers", "one_look", "others", "proportions", "said", "size",
    "took", "waiting",
]  # fmt: skip

_CROP_SIDE = 640
_BY = {"model": "the model", "person": "you", "closer": "the model, closer"}
_TITLES = {"model": "After looking closer", "person": "From your box", "closer": "After looking closer inside"}
_ONE_LOOK = "From one look, without a crop"
_ENDS = {"length": ("ran out of length", "bad"), "cut": ("box closed", ""), "stop": ("", "")}


def size(pixels: Sequence[float]) -> str:
    """Width and height in pixels, with thousands set apart."""
    return f"{round(pixels[0]):,}×{round(pixels[1]):,}"


def took(seconds: float) -> str:
    """Seconds as a person reads them."""
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def note(text: str, kind: str = "") -> str:
    """A sentence for the visitor: "bad" is read out at once, others when there is time; "busy" while a run goes on."""
    role = "alert" if kind == "bad" else "status"
    return f'<p class="note {kind}" role="{role}">{escape(text)}</p>' if text else ""


def numbers(box: Box) -> str:
    """A box in whole numbers, `x1, y1, x2, y2`."""
    return ", ".join(f"{value:.0f}" for value in box.as_tuple())


def proportions(pixels: tuple[int, int]) -> str:
    """Tells the style sheet and the script the shape of a picture: the annotator would show a tall one in full."""
    return f"<style>:root {{ --picture-ratio: {pixels[0] / pixels[1]:.4f}; --picture-width: {pixels[0]}; }}</style>"


def said(number: int, text: str, turn: Turn | None, by: str = "Model") -> str:
    """A response, as far as it is; `turn` once it is over."""
    if not text and turn is None:
        return ""
    facts, caret = "", '<span class="caret" aria-hidden="true"></span>' if turn is None else ""
    if turn is not None:
        word, kind = _ENDS.get(turn.finish_reason, (turn.finish_reason, ""))
        facts = fact_html("", word, kind) if word else ""
        facts += fact_html("refused", rejection_words(turn.rejection), "bad") if turn.rejection else ""
        facts += fact_html("tokens", str(turn.tokens)) if turn.tokens else ""
        facts += fact_html("", took(turn.seconds)) if turn.seconds else ""
    title = f"{escape(by)}, turn {number}"
    return (
        f'<div class="mgpo"><section class="said turn{(number - 1) % 2}"><h3>{title} {facts}</h3>'
        f'<pre class="text">{escape(text)}{caret}</pre></section></div>'
    )


def crop(trajectory: Trajectory) -> str:
    """What came back after the first turn: the crop beside the same place as first seen, or the original again."""
    turn = trajectory.turns[0]
    shown = message_images(trajectory.messages)
    if len(shown) < 2 or turn.shown_size is None:
        return ""
    if turn.box_original is None:
        reason = rejection_words(turn.rejection or "no box")
        return note(f"No crop ({reason}): the model was shown the whole picture again.", "soft")
    box, seen, real = turn.box_original, trajectory.input_sizes[0], trajectory.original_sizes[0]
    first = box.scaled(seen[0] / real[0], seen[1] / real[1])
    before = shown[0].crop((int(first.x1), int(first.y1), max(1, round(first.x2)), max(1, round(first.y2))))
    larger = turn.shown_size[0] / max(1.0, first.width)
    return (
        '<div class="mgpo pair">'
        + _figure(
            before, "As first seen", f"{size(before.size)} pixels of the {size(seen)} that the model saw", "first"
        )
        + _figure(
            shown[-1],
            f"Cut from the original, {larger:.1f}× larger",
            f"seen at {size(turn.shown_size)}, really {size((box.width, box.height))} of {size(real)}",
            "slide",
        )
        + "</div>"
    )


def _figure(image: Image.Image, title: str, words: str, kind: str) -> str:
    return (
        f'<figure class="{kind}"><img src="{data_uri(image, _CROP_SIDE)}" alt="{escape(title)}: {escape(words)}">'
        f"<figcaption><b>{escape(title)}</b><br>{escape(words)}</figcaption></figure>"
    )


def answer(trajectory: Trajectory, by: str) -> str:
    """The answer in large letters, with the verdict where the truth is known; `by` as in `Look.by`."""
    return _answered(_TITLES[by], trajectory)


def waiting(by: str) -> str:
    """The place of the answer while the model is not there yet."""
    return f'<div class="mgpo answer"><h2>{_TITLES[by]}</h2><strong class="pending">…</strong></div>'


def _answered(title: str, trajectory: Trajectory, below: str = "") -> str:
    given = f"<strong>{escape(_answer(trajectory))}</strong>{_verdict(trajectory)}"
    return f'<div class="mgpo answer"><h2>{escape(title)}</h2>{given}{below}</div>'


def _verdict(trajectory: Trajectory) -> str:
    return "" if trajectory.correct is None else verdict_html(trajectory.correct)


def _answer(trajectory: Trajectory) -> str:
    """The answer with its letter and its choice, as far as there are any."""
    given = trajectory.answer
    if given is None:
        return "no answer"
    index = resolve_choice(given, trajectory.choices) if trajectory.choices else None
    return given if index is None else f"{choice_letter(index)} · {trajectory.choices[index]}"


def one_look(text: str, trajectory: Trajectory | None) -> str:
    """What the same model says without looking closer; `trajectory` once it is over."""
    if not text and trajectory is None:
        return ""
    below = f'<pre class="text">{escape(text)}</pre>'
    if trajectory is not None:
        return _answered(_ONE_LOOK, trajectory, below)
    return f'<div class="mgpo answer"><h2>{_ONE_LOOK}</h2><strong class="pending">…</strong>{below}</div>'


def others(named: Iterable[tuple[str, Trajectory]]) -> str:
    """Compared models: box, crop, answer of each."""
    parts = []
    for name, trajectory in named:
        box = trajectory.box_original
        looked = crop(trajectory) if trajectory.turns and box is not None else ""
        text = trajectory.turns[-1].text if trajectory.turns else ""
        parts.append(
            f'<section class="compared">{_answered(name, trajectory)}{looked}'
            f'<pre class="text">{escape(text)}</pre></section>'
        )
    return f'<div class="mgpo">{"".join(parts)}</div>' if parts else ""


def history(looks: Sequence[Look]) -> str:
    """A row for each step."""
    if not looks:
        return ""
    rows = []
    for step, look in enumerate(looks, start=1):
        box = look.box
        where = "the whole picture" if box is None else f"[{numbers(box)}]"
        share = "" if look.trajectory.crop_area_fraction is None else f"{100 * look.trajectory.crop_area_fraction:.2g}%"
        inside = f"inside [{numbers(look.area)}]" if look.area is not None else ""
        current = ' aria-current="step"' if step == len(looks) else ""
        rows.append(
            f"<tr{current}><td>{step}</td><td>{_BY[look.by]} {inside}</td><td>{where}</td>"
            f'<td class="number">{share}</td>'
            f"<td>{escape(_answer(look.trajectory))} {_verdict(look.trajectory)}</td></tr>"
        )
    heads = ("", "who looked", "box, in pixels of the original", "of its picture", "answer")
    return (
        f'<div class="mgpo"><h2>Steps</h2><div class="scroll">{_table("", heads, "".join(rows), "steps")}</div></div>'
    )


def explanation(look: Look, factor: int) -> str:
    """The conversation with tokens coloured by the training mask, what each picture and turn cost, and confidence."""
    trajectory = look.trajectory
    tokens = (
        '<p class="note soft">A server does not tell the tokens; load the model here to see them.</p>'
        if trajectory.tokens is None
        else tokens_html(trajectory.tokens)
    )
    return (
        '<div class="mgpo explain"><h2>What it took</h2><div class="tables">'
        f"{_pictures(trajectory, factor)}{_turns(look)}{_confidence(look)}</div>"
        f"<h2>The conversation, as the training loss sees it</h2>{tokens}</div>"
    )


def _pictures(trajectory: Trajectory, factor: int) -> str:
    images = message_images(trajectory.messages)
    names = ["picture", *(["crop"] if trajectory.box_original is not None else ["picture again"])]
    rows = "".join(
        f"<tr><td>{name}</td><td>{size(image.size)}</td>"
        f'<td class="number">{image.width * image.height // factor**2}</td></tr>'
        for name, image in zip(names, images, strict=False)
    )
    return _table("Pictures", ("", "pixels shown", "tokens"), rows)


def _turns(look: Look) -> str:
    rows = ""
    for name, trajectory in look.trajectories:
        for number, turn in enumerate(trajectory.turns, start=1):
            speed = f"{turn.tokens / turn.seconds:.0f}" if turn.tokens and turn.seconds else "–"
            said_by = f"{name}, turn {number}" if len(trajectory.turns) > 1 else name
            spent = f"{turn.seconds:.2f}" if turn.seconds else "–"
            read = turn.prompt_tokens or "–"
            rows += (
                f"<tr><td>{escape(said_by)}</td>"
                + "".join(f'<td class="number">{cell}</td>' for cell in (read, turn.tokens or "–", spent, speed))
                + "</tr>"
            )
    return _table("Turns", ("", "tokens read", "tokens said", "seconds", "tokens/s"), rows)


def _confidence(look: Look) -> str:
    if look.confidence is None:
        return ""
    choices = look.trajectory.choices
    rows = "".join(
        f'<tr><td>{letter} · {escape(choice)}</td><td class="bar"><i style="width:{100 * share:.1f}%"></i></td>'
        f'<td class="number">{100 * share:.1f}%</td></tr>'
        for choice, (letter, share) in zip(choices, look.confidence.items(), strict=False)
    )
    return _table("Confidence in each choice", ("", "", ""), rows)


def _table(title: str, heads: Sequence[str], rows: str, kind: str = "") -> str:
    caption = f"<caption>{title}</caption>" if title else ""
    head = "".join(f'<th scope="col">{name}</th>' if name else "<td></td>" for name in heads)
    thead = f"<thead><tr>{head}</tr></thead>" if any(heads) else ""
    return f'<table class="{kind}">{caption}{thead}<tbody>{rows}</tbody></table>'
