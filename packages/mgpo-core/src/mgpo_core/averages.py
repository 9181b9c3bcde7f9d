"""Means of trajectory metrics with their 95% intervals: what every score printed by this project goes through."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgpo_core.trajectory import Trajectory

METRICS = (
    "accuracy",
    "image_accuracy",
    "valid_box_rate",
    "hit_rate",
    "mean_iou",
    "crop_area_fraction",
    "answered_rate",
)
"""The metric names of a trajectory, the same in training, evaluation and reports.

Where the answer is a box in one of several images: `accuracy` is the share with an IoU of at least 0.5, and
`image_accuracy` the share that names the right image."""

_Z95 = 1.959963984540054
"Standard normal quantile of a two-sided 95% interval."


def aggregate(trajectories: Iterable[Trajectory]) -> dict[str, Any]:
    """Mean of every metric that is defined for any trajectory, with `n`, intervals and counts.

    Beside the means: `n` (trajectories), `counts` (trajectories per metric, where a metric is not defined for all),
    `intervals` (metric -> [low, high], 95%: Wilson for 0/1 metrics, normal otherwise) and `rejections` (reason -> boxes
    refused for it).
    """
    trajectories = list(trajectories)
    rows = [trajectory.metrics() for trajectory in trajectories]
    columns = {name: [row[name] for row in rows if name in row] for name in METRICS}
    columns = {name: values for name, values in columns.items() if values}
    reasons = Counter(turn.rejection for trajectory in trajectories for turn in trajectory.turns if turn.rejection)
    summary: dict[str, Any] = {name: math.fsum(values) / len(values) for name, values in columns.items()}
    return summary | {
        "n": len(trajectories),
        "counts": {name: len(values) for name, values in columns.items()},
        "intervals": {name: list(interval(values)) for name, values in columns.items()},
        "rejections": dict(sorted(reasons.items())),
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of values in 0-1: Wilson's when all are 0 or 1 or there is only one, else normal."""
    if len(values) < 2 or all(value in (0.0, 1.0) for value in values):
        return wilson_interval(math.fsum(values), len(values))
    low, high = mean_interval(values)
    return max(0.0, low), min(1.0, high)


def wilson_interval(k: float, n: int) -> tuple[float, float]:
    """Wilson's 95% score interval for k successes in n trials; (0, 1) for no trials. ValueError unless 0 <= k <= n."""
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials: needs 0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    share, z2 = k / n, _Z95 * _Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Normal 95% interval of the mean of at least two values (unbiased variance); ValueError for fewer."""
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} value(s): an interval of the mean needs at least two")
    mean = math.fsum(values) / n
    half = _Z95 * math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    return mean - half, mean + half
