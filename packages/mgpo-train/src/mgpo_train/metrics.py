"""What is measured in training: numbers of a step from its trajectories, and the log that holds them (no torch)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgpo_core.trajectory import Trajectory
from mgpo_core.boxes import Rejection

TIMING = "time/"
"""Prefix of the metrics that are not a function of the seed: wall-clock seconds."""

METRICS_FILE = "metrics.jsonl"


def step_metrics(
    trajectories: Sequence[Trajectory],
    *,
    rewards: Any = None,
    advantages: Any = None,
    group_size: int | None = None,
) -> dict[str, float]:
    """Metrics of one step's trajectories; `rewards` and `advantages` are `(B,)`, groups lie next to each other.

    The share of groups without an advantage counts groups whose rewards (without rewards: advantages) are all equal.
    """
    if not trajectories:
        raise ValueError("a step without trajectories has no metrics: was every sample skipped?")
    found = mean_of([trajectory.metrics() for trajectory in trajectories])
    found |= _turn_metrics(trajectories) | _rejection_rates(trajectories)
    if rewards is not None:
        values = np.asarray(rewards, dtype=np.float64)
        found["reward"] = float(values.mean())
        found["reward_std"] = float(values.std(ddof=1)) if values.size > 1 else 0.0
    signal = rewards if rewards is not None else advantages
    if signal is not None and group_size:
        groups = np.asarray(signal, dtype=np.float64).reshape(-1, group_size)
        found["frac_zero_advantage_groups"] = float(np.mean(np.ptp(groups, axis=1) < 1e-8))
    return found


def mean_of(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every metric over the rows that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in columns.items()}


def _turn_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean response length in tokens and share of responses that hit the length limit, by turn."""
    found = {}
    for index in range(max(len(t.turns) for t in trajectories)):
        turns = [t.turns[index] for t in trajectories if len(t.turns) > index]
        found[f"length/turn{index + 1}"] = sum(turn.tokens for turn in turns) / len(turns)
        found[f"truncated/turn{index + 1}"] = sum(turn.finish_reason == "length" for turn in turns) / len(turns)
    return found


def _rejection_rates(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Share of the turns read for a box that were refused, by reason; every reason is there, so that columns are stable."""
    read = [turn for t in trajectories for turn in t.turns if turn.read_for_box]
    if not read:
        return {}
    return {f"rejected/{reason.value}": sum(t.rejection == reason.value for t in read) / len(read) for reason in Rejection}


def logprob_gap(trajectories: Sequence[Trajectory], recomputed: Sequence[Any]) -> dict[str, float]:
    """How far the trainer's log-probabilities are from the sampler's, by turn: mean and largest |difference|.

    `recomputed[b]` holds the trainer's log-probability of every token of `trajectories[b].tokens.ids`, `(T_b,)`;
    only sampled tokens are looked at.
    """
    gaps: list[np.ndarray] = []
    for trajectory, values in zip(trajectories, recomputed, strict=True):
        tokens = trajectory.tokens
        if tokens is None or tokens.logprobs is None:
            raise ValueError(f"sample {trajectory.sample_id!r}: its trajectory has no sampled log-probabilities to compare")
        gaps.append(np.abs(np.asarray(values, dtype=np.float64) - np.asarray(tokens.logprobs, dtype=np.float64)))
    by_turn = _by_turn(trajectories, gaps)
    found = {f"logprob_gap/turn{turn}": float(values.mean()) for turn, values in by_turn.items()}
    return found | {f"logprob_gap/turn{turn}_max": float(values.max()) for turn, values in by_turn.items()}


def turn_entropy(trajectories: Sequence[Trajectory], entropies: Sequence[Any] | None = None) -> dict[str, float]:
    """Mean entropy in nats of the sampled tokens, by turn; `entropies[b]` is `(T_b,)` over the trajectory's tokens.

    Without them, the mean of -log p over the sampled tokens stands in: the same in expectation at the sampling
    temperature. Empty when neither is known.
    """
    if entropies is None:
        if any(t.tokens is None or t.tokens.logprobs is None for t in trajectories):
            return {}
        entropies = [-np.asarray(t.tokens.logprobs, dtype=np.float64) for t in trajectories if t.tokens is not None]
    by_turn = _by_turn(trajectories, [np.asarray(values, dtype=np.float64) for values in entropies])
    return {f"entropy/turn{turn}": float(values.mean()) for turn, values in by_turn.items()}


def _by_turn(trajectories: Sequence[Trajectory], values: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """The values at the sampled tokens of every turn, counted from 1, all trajectories together."""
    found: dict[int, list[np.ndarray]] = {}
    for trajectory, row in zip(trajectories, values, strict=True):
        tokens = trajectory.tokens
        if tokens is None or len(row) != len(tokens.ids):
            have = "no tokens" if tokens is None else f"{len(tokens.ids)} tokens"
            raise ValueError(f"sample {trajectory.sample_id!r}: {len(row)} values for {have}")
        for turn, (start, end) in enumerate(tokens.spans, start=1):
            found.setdefault(turn, []).append(row[start:end][np.asarray(tokens.mask[start:end], dtype=bool)])
    joined = {turn: np.concatenate(parts) for turn, parts in found.items()}
    return {turn: row for turn, row in joined.items() if row.size}


class MetricsLog:
    """`OUT/metrics.jsonl`, one line a step, and the last step's trajectories for the report.

    A run that goes on from the checkpoint of step k opens it with `keep_to_step=k`: later lines, and one that was cut
    short by the kill, are dropped, because those steps will be taken again.
    """

    def __init__(self, folder: str | Path, *, keep_to_step: int = 0, keep_trajectories: int = 8) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / METRICS_FILE
        self.keep_trajectories = keep_trajectories
        self.trajectories: list[Trajectory] = []
        self.trajectories_step = 0
        self.latest: dict[str, Any] = {}
        self._truncate(keep_to_step)

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one line; numbers that JSON cannot hold (NaN, infinities) become null."""
        row = {"step": step, **{name: _plain(value) for name, value in sorted(metrics.items())}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.latest = row

    def keep(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Remember some of a step's trajectories for the report, evenly spread over the batch (so over its groups)."""
        count = min(self.keep_trajectories, len(trajectories))
        self.trajectories = [trajectories[i * len(trajectories) // count] for i in range(count)] if count else []
        self.trajectories_step = step

    def rows(self) -> list[dict[str, Any]]:
        """All complete lines of the file, in order."""
        return list(read_metrics(self.path))

    def _truncate(self, step: int) -> None:
        kept = [row for row in self.rows() if row["step"] <= step]
        # written aside and renamed: a kill in between must not cost the whole log
        aside = self.path.with_suffix(".tmp")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        aside.replace(self.path)
        self.latest = kept[-1] if kept else {}


def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a metrics file; a last line that was cut short is left out."""
    path = Path(path)
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and "step" in row:
            yield row


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | str) or value is None:
        return value
    number = float(value)
    return number if math.isfinite(number) else None
