"""The tokens of a trajectory as a page shows them: what was trained and what was only shown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mgpo_core.episodes.trajectory import Tokens

__all__ = ["token_view"]

_SHORTEST_RUN = 4
"Equal neighbours from this many on are written once with their number (image tokens, degenerate loops)."

_RARE = math.log(0.1)


@dataclass(frozen=True)
class TokenRun:
    """Equal neighbouring tokens: same text, mask and turn."""

    lines: list[str]
    times: int
    turn: int | None
    "0-based index of the response in which they were sampled; None when they were not (mask 0)."
    hint: str
    rare: bool
    "Whether they were under 10% likely when sampled."


def token_view(tokens: Tokens) -> dict[str, Any]:
    """What the macro `tokens` shows: blocks of (only shown?, runs of tokens), and how many were sampled."""
    blocks = [(shown, list(runs)) for shown, runs in groupby(_runs(tokens), key=lambda run: run.turn is None)]
    return {"blocks": blocks, "sampled": sum(tokens.mask), "total": len(tokens)}


def _runs(tokens: Tokens) -> Iterator[TokenRun]:
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
            yield _run(text, of_turn, tokens, indices[start : start + size])


def _run(text: str, turn: int | None, tokens: Tokens, indices: list[int]) -> TokenRun:
    lines = text.replace("\r", "␍").split("\n")
    if turn is None:
        return TokenRun(lines, len(indices), None, "", False)
    hint, rare = f"turn {turn + 1}, id {tokens.ids[indices[0]]}", False
    if tokens.logprobs is not None:
        mean = math.fsum(tokens.logprobs[index] for index in indices) / len(indices)
        hint, rare = f"{hint}, log-prob {mean:.3f}", mean < _RARE
    return TokenRun(lines, len(indices), turn, hint, rare)
