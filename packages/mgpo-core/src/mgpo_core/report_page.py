"""The report that a researcher opens after a run: one HTML file with everything in it, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mgpo_core.boxes import rejection_words
from mgpo_core.output_folder import OutputFolderError
from mgpo_core.report_card import (
    DISPLAY_SIDE,
    Card,
    card_flags,
    card_html,
    fact_html,
    flags_html,
    question_html,
    verdict_html,
)
from mgpo_core.token_view import escape
from mgpo_core.trajectory import METRICS, Trajectory, aggregate
from mgpo_core.whole_file import whole_file

FILTERS = {
    "all": "All",
    "wrong": "Wrong",
    "right": "Right",
    "refused": "Invalid box",
    "missed": "Box missed",
    "changed": "Changed",
}
"""What cards and rows are filtered by, with the words for it."""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_GENERATOR = '<meta name="generator" content="mgpo">'
"""By which a page of ours is known again; those of the version before it by the class of their body."""

_HEAD = 200_000
_OURS = (_GENERATOR.encode(), b'<body class="mgpo')
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
    facts: tuple[tuple[str, str, str], ...] = ()
    """Further (name, value, kind) of the sample; kind is "good", "bad" or empty."""

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
    style = _data("report.css")
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
    the trajectories: trusted HTML, its images as data URIs, no scripts. Pictures get smaller when there are many
    trajectories, so that the page stays light; true sizes are stated with each. The page forbids itself every network
    access and every script but its own. OutputFolderError for a path where there is anything but an earlier page.
    """
    summary = _summary(aggregate(trajectories)) if tiles else ""
    cards = [Card.of(trajectory) for trajectory in trajectories]
    return _write_page(Path(path), cards, title, f"{summary}\n{header_html}")


def write_gallery(
    path: str | os.PathLike[str],
    items: Sequence[Card | Row],
    title: str,
    header_html: str = "",
    *,
    runs: Mapping[str, str] | None = None,
) -> Path:
    """Write what others scored as one self-contained page, as `write_report` does; gives its path.

    An item is a card (one run) or a row (one sample as several runs played it); `runs` names them, short name ->
    words, and lets filters look at one of them alone. `header_html` is trusted HTML, without scripts. Without items the
    page is its header.
    """
    return _write_page(Path(path), items, title, header_html, runs or {})


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


def _write_page(
    path: Path, items: Sequence[Card | Row], title: str, header_html: str, runs: Mapping[str, str] | None = None
) -> Path:
    script = _data("report.js") if items else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"{_POLICY}; script-src 'sha256-{digest}'"
    wide = any(isinstance(item, Row) for item in items)
    side = _picture_side(sum(len(item.cards) if isinstance(item, Row) else 1 for item in items))
    refuse_other_page(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, encoding="utf-8", errors="replace", newline="\n") as page:
        page.write(
            f'{_head(title, policy)}<body class="mgpo{" wide" if wide else ""}">\n<header class="page">'
            f"<h1>{escape(title)}</h1>\n{header_html}</header>\n{_bar(items, runs or {}) if items else ''}\n<main>\n"
        )
        for item in items:
            page.write(_row_html(item, side) if isinstance(item, Row) else card_html(item, max_side=side))
        nothing = '<p class="nothing" id="nothing" hidden>Nothing fits.</p>' if items else ""
        page.write(f"</main>\n{nothing}\n<script>{script}</script>\n</body>\n</html>\n")
    return path


def cards_page(bodies: Sequence[str]) -> str:
    """Cards (of `card_html`) as a whole page to be put into an `<iframe>`: nothing around them, and no script.

    The frame keeps the style sheet in and that of the page around it out, and may be as high as its content. The page
    is dark when its root has the class "dark", which the page around gives it: a frame does not know what that is. It
    forbids itself every network access and every script.
    """
    main = "\n".join(bodies) or '<p class="nothing">Nothing fits.</p>'
    head = _head("Trajectories", _POLICY, dark_class="dark")
    return f'{head}<body class="mgpo framed">\n<main>\n{main}</main>\n</body>\n</html>\n'


def _head(title: str, policy: str, dark_class: str = "") -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{_GENERATOR}\n'
        f"<title>{escape(title)}</title>\n<style>\n{report_style(dark_class=dark_class)}</style>\n</head>\n"
    )


def _row_html(row: Row, side: int) -> str:
    """A sample with the cards of its runs in columns, its question above them where all were asked the same."""
    asked = {question_html(card.trajectory, given=False) for card in row.cards}
    verdicts = "".join(f'<span class="run">{escape(run)}</span>{verdict_html(right)}' for run, right in row.verdicts)
    facts = "".join(fact_html(*fact) for fact in row.facts)
    cards = "".join(card_html(card, max_side=side, question=len(asked) > 1) for card in row.cards)
    return (
        f'<section class="row" tabindex="-1"{flags_html(row_flags(row))}>\n<header><div class="facts">'
        f'<span class="sample">{escape(row.title)}</span>{verdicts}{facts}</div>'
        f'{asked.pop() if len(asked) == 1 else ""}</header>\n<div class="runs">\n{cards}</div>\n</section>\n'
    )


def _data(name: str) -> str:
    return resources.files("mgpo_core").joinpath(name).read_text(encoding="utf-8")


def _picture_side(n: int) -> int:
    """Longer side in pixels of the pictures on a page of n trajectories."""
    return DISPLAY_SIDE if n <= 16 else 640 if n <= 64 else 420 if n <= 512 else 320


def _summary(summary: dict[str, Any]) -> str:
    """The metrics with their intervals as tiles, and the reasons for refused boxes."""
    tiles = "".join(_tile(name, summary) for name in METRICS if name in summary)
    reasons = ", ".join(f"{rejection_words(reason)} {count}" for reason, count in summary["rejections"].items())
    refused = f'<p class="refusals">Boxes refused: {escape(reasons)}.</p>' if reasons else ""
    return f'<dl class="tiles"><div><dt>Trajectories</dt><dd>{summary["n"]}</dd></div>{tiles}</dl>{refused}'


def _tile(name: str, summary: dict[str, Any]) -> str:
    low, high = summary["intervals"][name]
    count = summary["counts"][name]
    of = "" if count == summary["n"] else f", n = {count}"
    return (
        f"<div><dt>{_METRIC_WORDS[name]}</dt><dd>{summary[name]:.3f}</dd>"
        f'<dd class="interval">95%: {low:.3f} to {high:.3f}{of}</dd>'
        f'<dd class="meter" style="--low:{low:.4f};--high:{high:.4f};--value:{summary[name]:.4f}"></dd></div>'
    )


def _bar(items: Sequence[Card | Row], runs: Mapping[str, str]) -> str:
    """Filters and switches; they work with a keyboard, and without a script every trajectory is simply shown."""
    flags = [row_flags(item) if isinstance(item, Row) else card_flags(item) for item in items]
    names = [name for name in FILTERS if name == "all" or any(name in of_item for of_item in flags)]
    counts = {name: sum(name == "all" or of_item.get(name, False) for of_item in flags) for name in names}
    buttons = "".join(
        f'<button type="button" data-filter="{name}" aria-pressed="{"true" if name == "all" else "false"}" '
        f'title="key {key}">{FILTERS[name]} <b>{counts[name]}</b></button>'
        for key, name in enumerate(names, start=1)
    )
    options = "".join(
        f'<option value="{escape(run)}">{escape(f"{run}: {name}")}</option>' for run, name in runs.items()
    )
    which = f'<label>in <select id="run"><option value="">any run</option>{options}</select></label>' if options else ""
    cards = [card for item in items for card in (item.cards if isinstance(item, Row) else (item,))]
    tokens = any(card.trajectory.tokens is not None for card in cards)
    flip = '<button type="button" id="all-tokens" aria-pressed="false" title="key t">Tokens</button>' if tokens else ""
    return (
        f'<nav class="bar" aria-label="Filters"><div class="filters" role="group" aria-label="Show">{buttons}</div>'
        f'{which}<label>Find <input type="search" id="find" placeholder="words, sample, reason"></label>'
        '<button type="button" id="all-seen" aria-pressed="false" title="key s">As the model saw it</button>'
        f'{flip}<output id="count" aria-live="polite"></output>'
        f'<span class="keys"><kbd>1</kbd>–<kbd>{len(names)}</kbd> filter <kbd>j</kbd> <kbd>k</kbd> next, previous '
        f"<kbd>s</kbd> as seen {'<kbd>t</kbd> tokens ' if tokens else ''}<kbd>/</kbd> find</span></nav>"
    )
