"""The report that a researcher opens after a run: one HTML file with everything in it, nothing fetched."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mgpo_core.report_card import DISPLAY_SIDE, card_flags, trajectory_html
from mgpo_core.token_view import escape
from mgpo_core.trajectory import METRICS, Trajectory, aggregate

_FILTERS = {
    "all": "All",
    "wrong": "Wrong",
    "right": "Right",
    "refused": "Invalid box",
    "missed": "Box missed",
}
_METRIC_WORDS = {
    "accuracy": "Accuracy",
    "valid_box_rate": "Valid boxes",
    "hit_rate": "Box hits",
    "mean_iou": "Mean IoU",
    "crop_area_fraction": "Crop area",
    "answered_rate": "Answered",
}


def report_style() -> str:
    """The style sheet (CSS text) that `trajectory_html` and `write_report` go with."""
    return _data("report.css")


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
    access and every script but its own.
    """
    path = Path(path)
    script = _data("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )
    side = _picture_side(len(trajectories))
    summary = _summary(aggregate(trajectories)) if tiles else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", errors="replace", newline="\n") as page:
        page.write(
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(title)}</title>\n<style>\n{report_style()}</style>\n</head>\n"
            f'<body class="mgpo">\n<header class="page"><h1>{escape(title)}</h1>\n'
            f"{summary}\n{header_html}</header>\n{_bar(trajectories)}\n<main>\n"
        )
        for trajectory in trajectories:
            page.write(trajectory_html(trajectory, max_side=side))
        page.write(f"</main>\n<script>{script}</script>\n</body>\n</html>\n")
    return path


def _data(name: str) -> str:
    return resources.files("mgpo_core").joinpath(name).read_text(encoding="utf-8")


def _picture_side(n: int) -> int:
    """Longer side in pixels of the pictures on a page of n trajectories."""
    return DISPLAY_SIDE if n <= 16 else 640 if n <= 64 else 420


def _summary(summary: dict[str, Any]) -> str:
    """The metrics with their intervals as tiles, and the reasons for refused boxes."""
    tiles = "".join(_tile(name, summary) for name in METRICS if name in summary)
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in summary["rejections"].items())
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


def _bar(trajectories: Sequence[Trajectory]) -> str:
    """Filters and switches; they work with a keyboard, and without a script every trajectory is simply shown."""
    flags = [card_flags(trajectory) for trajectory in trajectories]
    counts = {"all": len(flags)} | {name: sum(f[name] for f in flags) for name in _FILTERS if name != "all"}
    buttons = "".join(
        f'<button type="button" data-filter="{name}" aria-pressed="{"true" if name == "all" else "false"}" '
        f'title="key {key}">{word} <b>{counts[name]}</b></button>'
        for key, (name, word) in enumerate(_FILTERS.items(), start=1)
    )
    return (
        f'<nav class="bar" aria-label="Filters"><div class="filters" role="group" aria-label="Show">{buttons}</div>'
        '<label>Find <input type="search" id="find" placeholder="words, sample, reason"></label>'
        '<button type="button" id="all-seen" aria-pressed="false" title="key s">As the model saw it</button>'
        '<button type="button" id="all-tokens" aria-pressed="false" title="key t">Tokens</button>'
        '<output id="count" aria-live="polite"></output>'
        '<span class="keys"><kbd>1</kbd>–<kbd>5</kbd> filter <kbd>j</kbd> <kbd>k</kbd> next, previous '
        "<kbd>s</kbd> as seen <kbd>t</kbd> tokens <kbd>/</kbd> find</span></nav>"
    )
