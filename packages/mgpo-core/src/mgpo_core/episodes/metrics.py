"""Means of trajectory metrics with their 95% intervals: what every score printed by this project goes through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from mgpo_core.episodes.intervals import Clusters, interval
from mgpo_core.episodes.trajectory import METRICS, Turn


class HasMetrics(Protocol):
    """What means are taken of: a `Trajectory`, or what another process tells of one."""

    @property
    def turns(self) -> list[Turn]:
        """Its responses."""

    def metrics(self) -> dict[str, float]:
        """The metrics that are defined for it."""


def aggregate(trajectories: Iterable[HasMetrics], clusters: Clusters = None) -> dict[str, Any]:
    """Mean of every metric that is defined for any trajectory, with `n`, intervals and counts.

    Beside the means: `n` (trajectories), `counts` (trajectories per metric, where a metric is not defined for all),
    `intervals` (metric -> [low, high], 95%: Wilson for 0/1 metrics, normal otherwise, by question where `clusters` say
    which question a trajectory repeats) and `rejections` (reason -> boxes refused for it).
    """
    trajectories = list(trajectories)
    rows = [trajectory.metrics() for trajectory in trajectories]
    columns = {name: [row[name] for row in rows if name in row] for name in METRICS}
    columns = {name: values for name, values in columns.items() if values}
    asked = {
        name: None if clusters is None else [key for key, row in zip(clusters, rows, strict=True) if name in row]
        for name in columns
    }
    reasons = Counter(turn.rejection for trajectory in trajectories for turn in trajectory.turns if turn.rejection)
    summary: dict[str, Any] = {name: math.fsum(values) / len(values) for name, values in columns.items()}
    return summary | {
        "n": len(trajectories),
        "counts": {name: len(values) for name, values in columns.items()},
        "intervals": {name: list(interval(values, asked[name])) for name, values in columns.items()},
        "rejections": dict(sorted(reasons.items())),
    }
