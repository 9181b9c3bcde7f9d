"""The report that a researcher opens after a run: one HTML file with everything in it, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mgpo_core.boxes.parse import rejection_words
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.files.output_folder import OutputFolderError
from mgpo_core.files.whole_file import whole_file
from mgpo_core.images.encode import DISPLAY_SIDE
from mgpo_core.render.card import Card, Fact, View, card_flags, card_view, question_view
from mgpo_core.render.environment import read_asset, template

__all__ = ["FILTERS", "Row", "frame_html", "refuse_other_page", "report_style", "write_gallery", "write_report"]

FILTERS = {
    "all": "All",
    "wrong": "Wrong",
    "right": "Right",
    "refused": "Invalid box",
    "missed": "Box missed",
    "changed": "Changed",
}
"""What cards and rows are filtered by, with the words for it."""

_HEAD = 200_000
_OURS = (b'<meta name="generator" content="mgpo">', b'<body class="mgpo')
"""What identifies a page of ours (the version before: its body's class), within the first `_HEAD` bytes."""

_SYSTEM_DARK = "@media (prefers-color-scheme: dark) {\n  .mgpo {"
_METRIC_WORDS = {
    "accuracy": "Accuracy",
    "image_accuracy": "Right image",
    "valid_box_rate": "Valid boxes",
    "hit_rate": "Box hits",
    "mean_iou": "Mean IoU",
    "crop_area_fraction": "Crop area",
    "answered_rate": "Answered",
}


@dataclass(frozen=True)
class Row:
    """One sample on a page of several runs: the cards that it got, next to each other."""

    cards: tuple[Card, ...]
    title: str
    verdicts: tuple[tuple[str, bool | None], ...] = ()
    "(run, right or wrong), of the runs without a card too."
    facts: tuple[Fact, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether some run was right here and some other wrong."""
        return len({correct for _, correct in self.verdicts if correct is not None}) > 1


def row_flags(row: Row) -> dict[str, bool]:
    """What the filters go by: what any of the row's cards has, and whether the verdicts differ."""
    flags = [card_flags(card) for card in row.cards]
    return {name: any(of_card[name] for of_card in flags) for name in flags[0]} | {"changed": row.changed}


def report_style(*, dark_class: str = "") -> str:
    """The style sheet (CSS text) that `trajectory_html` and `write_report` go with.

    It is dark where the reader's system is or, given `dark_class`, below an element of that class.
    """
    style = read_asset("mgpo_core.render/report.css")
    return style.replace(_SYSTEM_DARK, f"@media all {{\n  .{dark_class} .mgpo {{") if dark_class else style


def write_report(
    path: str | os.PathLike[str],
    trajectories: Sequence[Trajectory],
    title: str,
    header_html: str = "",
    *,
    tiles: bool = True,
) -> Path:
    """Write the trajectories as one self-contained page; gives its path.

    `tiles` shows the metrics averaged over all of them (not for a mix of runs). `header_html` goes in as it is, above
    the trajectories: trusted HTML, its images as data URIs, no scripts. Images get smaller when there are many
    trajectories, so that the page stays light; true sizes are stated with each. The page forbids itself every network
    access and every script but its own. OutputFolderError for a path where there is anything but an earlier page.
    """
    cards = [Card.of(trajectory) for trajectory in trajectories]
    return _write_page(Path(path), cards, title, header_html, summary=_summary(trajectories) if tiles else None)


def write_gallery(
    path: str | os.PathLike[str],
    items: Sequence[Card | Row],
    title: str,
    header_html: str = "",
    *,
    runs: Mapping[str, str] | None = None,
) -> Path:
    """Write what others scored as one self-contained page, as `write_report` does; gives its path.

    An item is a card (one run) or a row (one sample in several runs); `runs` names them, short name ->
    words, and lets filters look at one of them alone. `header_html` is trusted HTML, without scripts. Without items the
    page is its header.
    """
    return _write_page(Path(path), items, title, header_html, runs=runs)


def refuse_other_page(path: Path) -> None:
    """Raise OutputFolderError when there is something at the path that is not a page written here, or a folder."""
    if not os.path.lexists(path):
        return
    ours = False
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            head = file.read(_HEAD)
        ours = any(mark in head for mark in _OURS)
    if not ours:
        raise OutputFolderError(f"{path} is there already and is not a report of this program: name another file")


def frame_html(items: Sequence[View | str]) -> str:
    """Cards (of `card_view`) as a whole page to be put into an `<iframe>`, warnings (texts) among them.

    The frame keeps the style sheet in and that of the page around it out, and may be as high as its content. The page
    is dark when its root has the class "dark", which the page around gives it: a frame does not know what that is. It
    forbids itself every network access and every script.
    """
    style = Markup(report_style(dark_class="dark"))
    return template("mgpo_core.render/frame.html.j2").render(items=items, style=style)


def _write_page(
    path: Path,
    items: Sequence[Card | Row],
    title: str,
    header_html: str,
    *,
    summary: View | None = None,
    runs: Mapping[str, str] | None = None,
) -> Path:
    """Write the page; one item at a time is in memory as HTML."""
    script = read_asset("mgpo_core.render/report.js") if items else ""
    context = {
        "title": title,
        "style": Markup(report_style()),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "header": Markup(header_html),  # trusted, as the callers' docstrings say
        "summary": summary,
        "bar": _bar(items, runs or {}) if items else None,
        "wide": any(isinstance(item, Row) for item in items),
        "items": _views(items),
    }
    refuse_other_page(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, encoding="utf-8", errors="replace", newline="\n") as page:
        page.writelines(template("mgpo_core.render/page.html.j2").generate(context))
    return path


def _views(items: Sequence[Card | Row]) -> Iterator[View]:
    """What the page shows of each item, made when its turn comes: its images are in it."""
    n = sum(len(item.cards) if isinstance(item, Row) else 1 for item in items)
    side = DISPLAY_SIDE if n <= 16 else 640 if n <= 64 else 420 if n <= 512 else 320
    for item in items:
        yield _row_view(item, side) if isinstance(item, Row) else card_view(item, max_side=side)


def _row_view(row: Row, side: int) -> View:
    """A sample with the cards of its runs, its question above them where all were asked the same."""
    first, *others = [question_view(card.trajectory, given=False) for card in row.cards]
    same = all(other == first for other in others)
    return {
        "title": row.title,
        "flags": row_flags(row),
        "verdicts": row.verdicts,
        "facts": row.facts,
        "question": first if same else None,
        "cards": [card_view(card, max_side=side, question=not same) for card in row.cards],
    }


def _summary(trajectories: Sequence[Trajectory]) -> View:
    """The metrics with their intervals as tiles, and the reasons for invalid boxes."""
    found = aggregate(trajectories)
    tiles = [
        {"words": words, "value": found[name], "interval": found["intervals"][name], "n": found["counts"][name]}
        for name, words in _METRIC_WORDS.items()
        if name in found
    ]
    reasons = ", ".join(f"{rejection_words(reason)} {count}" for reason, count in found["rejections"].items())
    return {"n": found["n"], "tiles": tiles, "refused": reasons}


def _bar(items: Sequence[Card | Row], runs: Mapping[str, str]) -> View:
    """Filters and switches; they work with a keyboard, and without a script every trajectory is simply shown."""
    flags = [{"all": True} | (row_flags(item) if isinstance(item, Row) else card_flags(item)) for item in items]
    filters = [
        (name, words, sum(of_item.get(name, False) for of_item in flags))
        for name, words in FILTERS.items()
        if any(name in of_item for of_item in flags)
    ]
    cards = [card for item in items for card in (item.cards if isinstance(item, Row) else (item,))]
    return {"filters": filters, "runs": runs, "tokens": any(card.trajectory.tokens is not None for card in cards)}
