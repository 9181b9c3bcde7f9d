"""The tokens of a trajectory as HTML, coloured by mask: what was trained and what was only shown."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from mgpo_core.trajectory import Tokens

_SHORTEST_RUN = 4
"Equal neighbours from this many on are written once with their number (image tokens, degenerate loops)."

_INVISIBLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), *range(127, 160), *range(55296, 57344)), 65533)
"Control characters and lone surrogates, which HTML and UTF-8 cannot hold; a page shows that something was there."


def escape(text: object) -> str:
    """Text made safe for HTML content and quoted attributes."""
    return html.escape(str(text).translate(_INVISIBLE), quote=True)


@dataclass(frozen=True)
class _Run:
    """Equal neighbouring tokens: same text, mask and turn."""

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    turn: int | None
    "0-based index of the response in which they were sampled; None when they were not (mask 0)."


def tokens_html(tokens: Tokens) -> str:
    """The token sequence: sampled tokens one by one with id and log-probability, shown ones in grey blocks."""
    sampled = sum(tokens.mask)
    parts = []
    for shown, runs in groupby(_runs(tokens), key=lambda run: run.turn is None):
        if shown:
            parts.append(f'<span class="shown">{"".join(_shown(run) for run in runs)}</span>')
        else:
            parts.extend(_sampled(run) for run in runs)
    return (
        f'<p class="legend"><span class="tok turn0">sampled, trained</span> {sampled} of {len(tokens)} tokens; '
        f'<span class="shown">shown, not trained</span> {len(tokens) - sampled}; '
        '<span class="tok turn0 rare">underlined</span>: under 10% likely when sampled</p>'
        f'<pre class="tokens">{"".join(parts)}</pre>'
    )


def _runs(tokens: Tokens) -> Iterator[_Run]:
    texts = tokens.texts if tokens.texts is not None else [f"[{token}]" for token in tokens.ids]
    turns: list[int | None] = [0 if masked else None for masked in tokens.mask]
    for turn, (start, end) in enumerate(tokens.spans):
        for index in range(start, min(end, len(turns))):
            turns[index] = turn if tokens.mask[index] else None
    keys = list(zip(texts, turns, strict=True))
    for (text, of_turn), group in groupby(range(len(keys)), key=keys.__getitem__):
        indices = list(group)
        size = len(indices) if len(indices) >= _SHORTEST_RUN else 1
        for start in range(0, len(indices), size):
            part = indices[start : start + size]
            logprobs = tuple(tokens.logprobs[i] for i in part) if tokens.logprobs is not None else ()
            yield _Run(text, tuple(tokens.ids[i] for i in part), logprobs, of_turn)


def _label(run: _Run) -> str:
    text = escape(run.text).replace("\r", "␍").replace("\n", '<span class="nl">↵</span>\n')
    return text if len(run.ids) == 1 else f'{text}<span class="times"> ×{len(run.ids)} </span>'


def _shown(run: _Run) -> str:
    return _label(run)


def _sampled(run: _Run) -> str:
    hint = f"id {run.ids[0]}"
    rare = ""
    if run.logprobs:
        mean = math.fsum(run.logprobs) / len(run.logprobs)
        hint += f", log-prob {mean:.3f}"
        rare = " rare" if mean < math.log(0.1) else ""
    turn = run.turn or 0
    return f'<span class="tok turn{turn % 2}{rare}" title="{escape(f"turn {turn + 1}, {hint}")}">{_label(run)}</span>'
