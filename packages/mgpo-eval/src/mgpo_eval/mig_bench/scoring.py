"""Scores of MIG-Bench: overlap with the true box, per record, per task, and the macro mean that papers publish.

Published protocol (Migician, arXiv 2501.05767): the share of answers whose box overlaps the true one by an IoU of at
least 0.3, 0.5 and 0.7, and the mean IoU, per task; their unweighted mean over the ten tasks; what does not parse scores
0. Asked as published, an answer need not say which image it means: its box is laid on the target image. Asked by a
template that numbers the images, a box on another image overlaps with nothing, as in the object reward of MIRG-RL
(arXiv 2509.21788); `iou_on_named_image` reads answers of the first kind as strictly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mgpo_core.boxes.parse import Box, CoordinateSpace, Size, iou
from mgpo_core.episodes.intervals import interval
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_eval.mig_bench.answers import read_answer
from mgpo_eval.mig_bench.records import TASKS, Record

__all__ = ["METRICS", "THRESHOLDS", "Score", "aggregate", "macro_mean", "score", "score_played", "true_box"]

THRESHOLDS: dict[str, float] = {"iou_03": 0.3, "iou_05": 0.5, "iou_07": 0.7}

METRICS = (*THRESHOLDS, "mean_iou", "image_accuracy", "iou_on_named_image")
"""Names of the aggregated metrics; the last two are not defined for every answer."""


@dataclass(frozen=True)
class Score:
    """How one answer fared."""

    task: str
    iou: float
    "With the true box, 0 without a box."
    box: Box | None = None
    "In 0-1 of its image."
    named: int | None = None
    "The image that the model named, counted from 0."
    image_accuracy: float | None = None
    "1 if it named the right image; None if it named none and was not asked to."
    rejection: str | None = None
    "Why there is no box to compare (a `Rejection` value)."

    @property
    def iou_on_named_image(self) -> float | None:
        """The IoU if the model named the right image, else 0; None where `image_accuracy` is."""
        return None if self.image_accuracy is None else self.iou * self.image_accuracy

    def metrics(self) -> dict[str, float]:
        """Those of METRICS that are defined, by name, and 0/1 at each threshold."""
        found: dict[str, float | None] = {name: float(self.iou >= least) for name, least in THRESHOLDS.items()}
        found |= {"mean_iou": self.iou, "image_accuracy": self.image_accuracy}
        found["iou_on_named_image"] = self.iou_on_named_image
        return {name: value for name, value in found.items() if value is not None}


def score(record: Record, text: str) -> Score:
    """Score the response `text` to a record that was asked as published."""
    answer = read_answer(text)
    box = answer.box
    if box is not None:
        whole = (1, 1)
        box = replace(CoordinateSpace.RELATIVE_1000.to_original(box, whole, whole), image=record.target)
    right = None if answer.named is None else float(answer.named == record.target)
    overlap = 0.0 if box is None else iou(box, record.ground_truth)
    return Score(record.task, overlap, box, answer.named, right, answer.rejection)


def score_played(record: Record, trajectory: Trajectory) -> Score:
    """Score a trajectory whose answer is a box, given to a record in JSON."""
    played = replace(trajectory, true_boxes=(true_box(record, trajectory.original_sizes),))
    box, named, turn = played.answer_box, played.answer_image, played.answer_turn
    if box is not None:
        width, height = played.original_sizes[box.image]
        box = box.scaled(1 / width, 1 / height)
    right = float(named == record.target) if len(record.images) > 1 else None
    return Score(record.task, played.answer_iou, box, named, right, None if turn is None else turn.rejection)


def true_box(record: Record, sizes: Sequence[Size]) -> Box:
    """The true box in pixels of its image, given the (width, height) of the record's images."""
    return record.ground_truth.scaled(*sizes[record.target])


def aggregate(scores: Iterable[Score]) -> dict[str, Any]:
    """Means of the metrics with 95% intervals: per task, over the tasks (`macro`) and over the records (`micro`).

    `tasks`: task -> its means with `n`, `counts` (records per metric, where it is not defined for all) and `intervals`
    (metric -> [low, high]); `micro` is the same over all records. `macro` is the unweighted mean of the tasks that are
    there, with `tasks`, their number; `missing` names the others. `rejections` counts the reasons for boxes that could
    not be compared. Intervals take records for independent, though some share their images: they are a little narrow.
    """
    scores = list(scores)
    tasks = {task: _means([s for s in scores if s.task == task]) for task in TASKS}
    present = {task: means for task, means in tasks.items() if means["n"]}
    return {
        "tasks": present,
        "macro": _macro(present),
        "micro": _means(scores),
        "missing": [task for task in TASKS if task not in present],
        "rejections": dict(sorted(Counter(s.rejection for s in scores if s.rejection).items())),
    }


def _means(scores: Sequence[Score]) -> dict[str, Any]:
    """Mean, count and interval of every metric that is defined for any of the scores."""
    rows = [score.metrics() for score in scores]
    columns = {name: [row[name] for row in rows if name in row] for name in METRICS}
    columns = {name: values for name, values in columns.items() if values}
    return {name: math.fsum(values) / len(values) for name, values in columns.items()} | {
        "n": len(rows),
        "counts": {name: len(values) for name, values in columns.items()},
        "intervals": {name: list(interval(values)) for name, values in columns.items()},
    }


def _macro(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    for name in METRICS:
        known = [(task[name], *task["intervals"][name]) for task in tasks.values() if name in task]
        if known:
            means[name], *intervals[name] = _mean_of_means(known)
    return means | {"tasks": len(tasks), "intervals": intervals}


def macro_mean(values: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """(mean, low, high): the unweighted mean over tasks of one metric's mean per task, with its 95% interval."""
    return _mean_of_means([(math.fsum(column) / len(column), *interval(column)) for column in values.values()])


def _mean_of_means(known: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Of (mean, low, high); distances to the limits add up in squares (Zou & Donner 2008, MOVER)."""
    mean = math.fsum(value for value, _, _ in known) / len(known)
    below = math.sqrt(math.fsum((value - low) ** 2 for value, low, _ in known)) / len(known)
    above = math.sqrt(math.fsum((high - value) ** 2 for value, _, high in known)) / len(known)
    return mean, max(0.0, mean - below), min(1.0, mean + above)
