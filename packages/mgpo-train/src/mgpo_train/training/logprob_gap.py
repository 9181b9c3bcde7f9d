"""How far the trainer's log-probabilities are from the rollout engine's, per turn, and when that stops a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgpo_core.errors import MGPOError

DEFAULT_LIMITS = {"float32": 1e-3, "bfloat16": 0.08}
"""Largest mean gap in nats by precision: what kernels differ by, and not yet what a lost image does."""


class LogprobGapError(MGPOError):
    """Rollout engine and trainer do not see the same policy."""


@dataclass(frozen=True)
class TurnGap:
    """Absolute differences in nats over the sampled tokens of one turn."""

    turn: int
    mean: float
    max: float
    tokens: int


def turn_numbers(mask: Tensor) -> Tensor:
    """(B, T) loss mask -> (B, T) number of the turn that each sampled token belongs to, from 1; 0 elsewhere."""
    before = torch.nn.functional.pad(mask[:, :-1], (1, 0))
    return ((mask > 0) & (before == 0)).cumsum(dim=1) * (mask > 0)


def gaps_by_turn(trainer: Tensor, engine: Tensor, turns: Tensor) -> list[TurnGap]:
    """Gap of each turn that has tokens; all arguments are (B, T), the first two log-probabilities."""
    found = []
    for turn in range(1, int(turns.max()) + 1):
        values = (trainer - engine).abs()[turns == turn]
        if values.numel():
            found.append(TurnGap(turn, values.mean().item(), values.max().item(), values.numel()))
    return found


class LogprobGapGuard:
    """Stops a run when a turn's mean gap is over `limit` nats; a limit of 0 or less: never.

    Small batches add up to `TOKENS` before they are judged: of a few tokens, one odd one would decide.
    """

    TOKENS = 128

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._pending: dict[int, TurnGap] = {}

    def add(self, gaps: Sequence[TurnGap], *, step: int) -> None:
        """Hear a batch's gaps; raises LogprobGapError when enough is heard and it is too much, or is no number."""
        if self.limit <= 0:
            return
        for gap in gaps:
            (pending,) = together([self._pending[gap.turn], gap] if gap.turn in self._pending else [gap])
            if pending.mean == pending.mean and pending.tokens < self.TOKENS:
                self._pending[gap.turn] = pending
                continue
            self._pending.pop(gap.turn, None)
            if not pending.mean <= self.limit:
                raise LogprobGapError(_explained(pending, self.limit, step))


def together(gaps: Iterable[TurnGap]) -> list[TurnGap]:
    """One gap of each turn, over the tokens of all that are given of it, in the turns' order."""
    found: dict[int, TurnGap] = {}
    for gap in gaps:
        before = found.get(gap.turn)
        if before is not None:
            tokens = before.tokens + gap.tokens
            mean = (before.mean * before.tokens + gap.mean * gap.tokens) / tokens
            gap = TurnGap(gap.turn, mean, max(before.max, gap.max), tokens)
        found[gap.turn] = gap
    return [found[turn] for turn in sorted(found)]


def _explained(gap: TurnGap, limit: float, step: int) -> str:
    images = "" if gap.turn == 1 else "; is an inserted image missing in the training forward, or shifted?"
    return (
        f"step {step}: rollout engine and trainer disagree about turn {gap.turn} by {gap.mean:.3g} nats a token on "
        f"average (at most {gap.max:.3g}; the limit is {limit:g}); they do not see the same tokens, images, "
        f"positions, weights or precision, so the loss would be wrong{images}; docs/parity.md shows what each "
        "cause looks like; --max_logprob_gap sets the limit (0: none)"
    )
