"""The card of one sample of an evaluation: the scorer's verdict beside what the model did."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from mgpo_core.boxes.parse import Box
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.render.card import Card, Fact
from mgpo_core.runs.logged_scores import TRUE_BOXES
from mgpo_core.runs.sample_log import SampleResult, TaskResult, read_sample

__all__ = ["category_facts", "has_card", "sample_card"]


def has_card(sample: SampleResult) -> bool:
    """Whether there is something to show of a sample: its trajectory, or why it was skipped."""
    return sample.played or sample.skipped is not None


def category_facts(sample: SampleResult) -> tuple[Fact, ...]:
    """What the sample is counted under, as facts."""
    return tuple((kind.replace("_", " "), category, "") for kind, category in sample.categories)


def sample_card(
    task: TaskResult, sample: SampleResult, root: Path, *, name: str = "", run: str = "", facts: tuple[Fact, ...] = ()
) -> Card:
    """The card of a sample, read from its log again; images are read from below `root`.

    `name` is the sample's on the card, `run` that of the run it is from; `facts` come first. Raises what a damaged
    line does (`MALFORMED_RECORD`), and OSError when the log is gone.
    """
    line, payload = read_sample(sample)
    if line["doc_id"] != sample.doc_id:
        raise ValueError(f"the line is of {line['doc_id']!r}")
    trajectory, problem = payload.trajectory_as_kept(root)
    if trajectory is None:
        trajectory = Trajectory(question=str(line.get("input", "")))
    found = list(facts)
    if sample.skipped is not None:
        found.append(("skipped", sample.skipped, "bad"))
    if problem:
        found.append(("images", problem, "bad"))
    if payload.answer != (trajectory.answer or "").strip():
        found.append(("scored", payload.answer, ""))
    right = task.right(sample)
    if right is None and task.main is not None and task.main in sample.scores:
        found.append((task.main, f"{sample.scores[task.main]:.3g}", ""))
    boxes = tuple(Box(x1, y1, x2, y2, int(image)) for x1, y1, x2, y2, image in line.get(TRUE_BOXES) or ())
    trajectory = dataclasses.replace(
        trajectory, ground_truth=sample.ground_truth or None, true_boxes=boxes, sample_id=name
    )
    found += _scored_facts(sample, trajectory.metrics())
    return Card(trajectory, right, sample.hit, run, tuple(found))


def _scored_facts(sample: SampleResult, metrics: Mapping[str, float]) -> Iterator[Fact]:
    """What the scorer says of the box beyond the trajectory's own `metrics`, which the card shows anyway."""
    scores = {} if sample.skipped is not None else {n: v for n, v in sample.scores.items() if n not in metrics}
    if "image_accuracy" in scores:
        right = scores["image_accuracy"] == 1.0
        yield "image", "right" if right else "wrong", "good" if right else "bad"
    if "mean_iou" in scores:
        yield "IoU", f"{scores['mean_iou']:.2f}", ""
