"""What is measured in training: numbers of a step from its trajectories, and the log that holds them (no torch)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mgpo_core.boxes.parse import Rejection
from mgpo_core.episodes.metrics import HasMetrics
from mgpo_core.episodes.trajectory import Trajectory, Turn
from mgpo_core.files.whole_file import whole_file
from mgpo_core.runs.run_folder import METRICS_FILE as METRICS_FILE

TIMING = "time/"
"""Prefix of the metrics that are not a function of the seed: wall-clock seconds."""

HELD_OUT, TASKS = "eval/", "eval_"
"""How the scores of evaluations in training are called in the metrics file: `eval/accuracy`, `eval_TASK/accuracy`."""


def step_metrics(
    trajectories: Sequence[HasMetrics],
    *,
    rewards: Any = None,
    group_size: int | None = None,
) -> dict[str, float]:
    """Metrics of one step's trajectories; `rewards` are `(B,)` and the members of a group lie next to each other.

    A group has no advantage when all of its rewards are equal: it teaches nothing.
    """
    if not trajectories:
        raise ValueError("a step without trajectories has no metrics: was every sample skipped?")
    found = mean_of([trajectory.metrics() for trajectory in trajectories])
    found |= _turn_metrics(trajectories) | _rejection_rates(trajectories)
    if rewards is not None:
        values = np.asarray(rewards, dtype=np.float64)
        found["reward"] = float(values.mean())
        found["reward_std"] = float(values.std(ddof=1)) if values.size > 1 else 0.0
        if group_size:
            found["frac_zero_advantage_groups"] = float(np.mean(np.ptp(values.reshape(-1, group_size), axis=1) < 1e-8))
    return found


@dataclass(frozen=True)
class Measured:
    """What a trajectory adds to the metrics of a step or an evaluation, without texts, images, tokens and metadata.

    Some hundred bytes, to be sent between processes; measured once, where the rollout was made.
    """

    values: dict[str, float]
    turns: list[Turn]

    @classmethod
    def of(cls, trajectory: Trajectory) -> Measured:
        """The trajectory's own metrics and its turns."""
        return cls(trajectory.metrics(), [replace(turn, text="", label=None) for turn in trajectory.turns])

    def metrics(self) -> dict[str, float]:
        """As `Trajectory.metrics`."""
        return self.values


def mean_of(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every metric over the rows that have it."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in columns.items()}


def _turn_metrics(trajectories: Sequence[HasMetrics]) -> dict[str, float]:
    """Mean response length in tokens, share that hit the length limit, and mean seconds until it was over, by turn."""
    found = {}
    for index in range(max(len(t.turns) for t in trajectories)):
        turns = [t.turns[index] for t in trajectories if len(t.turns) > index]
        found[f"length/turn{index + 1}"] = sum(turn.tokens for turn in turns) / len(turns)
        found[f"{TIMING}turn{index + 1}"] = sum(turn.seconds for turn in turns) / len(turns)
        found[f"truncated/turn{index + 1}"] = sum(turn.finish_reason == "length" for turn in turns) / len(turns)
    return found


def _rejection_rates(trajectories: Sequence[HasMetrics]) -> dict[str, float]:
    """Share of the turns read for a box that were refused, by reason; all reasons, so that columns are stable."""
    read = [turn for t in trajectories for turn in t.turns if turn.read_for_box]
    if not read:
        return {}
    return {
        f"rejected/{reason.value}": sum(t.rejection == reason.value for t in read) / len(read) for reason in Rejection
    }


def is_evaluation(row: Mapping[str, Any]) -> bool:
    """Whether a row holds the scores of an evaluation; the steps' own metrics are in another."""
    return any(name.startswith((HELD_OUT, TASKS)) for name in row)


class MetricsLog:
    """`OUT/metrics.jsonl`, one line a step (and one an evaluation), and the last step's trajectories for the report.

    A run that goes on from the checkpoint of step k opens it with `keep_to_step=k`: later lines, and one that was cut
    short by the kill, are dropped, because those steps will be taken again. Only the main process gets `write=True`.
    """

    def __init__(
        self, folder: str | Path, *, keep_to_step: int = 0, keep_trajectories: int = 8, write: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.path = self.folder / METRICS_FILE
        self.keep_trajectories = keep_trajectories
        self.trajectories: list[Trajectory] = []
        self.trajectories_step = 0
        self.latest: dict[str, Any] = {}
        if write:
            self.folder.mkdir(parents=True, exist_ok=True)
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
        with whole_file(self.path, encoding="utf-8") as file:  # a kill in between must not cost the whole log
            file.writelines(json.dumps(row) + "\n" for row in kept)
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
