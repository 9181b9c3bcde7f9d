"""What `tasks/mig_bench.yaml` names with `!function`: prompt, images, scores and their means."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from mgpo_core.episodes.intervals import standard_error
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.images.load import load_image
from mgpo_core.runs.logged_scores import TRUE_BOXES
from mgpo_core.runs.response_payload import decode_payload
from mgpo_eval import mig_bench
from mgpo_eval.tasks.scoring import with_stderr

__all__ = ["images", "macro_high", "macro_low", "macro_mean", "macro_stderr", "prompt", "score", "target"]

Row = Mapping[str, Any]


def images(row: Row) -> list[Image.Image]:
    """`doc_to_visual`: the record's images in order, decoded."""
    record = mig_bench.Record.from_row(row)
    return [load_image(mig_bench.image_source(row["place"], name)) for name in record.images]


def prompt(row: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """`doc_to_text`: the published prompt (thousandths), for models that take one; ours reads the row itself."""
    return mig_bench.published_prompt(mig_bench.Record.from_row(row))


def target(row: Row) -> str:
    """`doc_to_target`: the true box in 0-1 and its image, counted from 1."""
    ground_truth = mig_bench.Record.from_row(row).ground_truth
    return f"image {ground_truth.image + 1}: {[round(value, 4) for value in ground_truth.as_tuple()]}"


def score(row: Row, results: Sequence[str]) -> dict[str, Any]:
    """`process_results`: every metric of one record, for all tasks and for its own; the true box, for a report."""
    record = mig_bench.Record.from_row(row)
    payload = decode_payload(results[0])
    trajectory = payload.trajectory()
    if trajectory is not None and trajectory.answers_with_box:
        found, boxes = mig_bench.score_played(record, trajectory), _box_metrics(record, trajectory)
    else:  # asked as published, as models other than ours are; or a record that could not be run
        found = mig_bench.score(record, payload.answer)
        boxes = dict.fromkeys(("valid_box_rate", "answered_rate"), float(found.box is not None))
    values = found.metrics()
    entries = {name: {"score": value, "task": record.task} for name, value in values.items()}
    metrics: dict[str, Any] = {
        f"{name}{end}": entry for name, entry in entries.items() for end in ("", "_low", "_high")
    }
    metrics |= {f"{name}/{record.task}": value for name, value in values.items()}
    metrics |= boxes | {"skipped": float(payload.skipped is not None)}
    metrics |= {"inverted": float(record.inverted), "clipped": float(record.clipped), "category": record.task}
    if trajectory is None:
        return metrics
    true = mig_bench.true_box(record, trajectory.original_sizes)
    return metrics | {TRUE_BOXES: [[*true.as_tuple(), true.image]]}


def _box_metrics(record: mig_bench.Record, trajectory: Trajectory) -> dict[str, float]:
    """Of an answer that is a box, the metrics that are the same for every task."""
    played = replace(trajectory, true_boxes=(mig_bench.true_box(record, trajectory.original_sizes),))
    wanted = ("valid_box_rate", "answered_rate", "hit_rate", "crop_area_fraction")
    return {name: value for name, value in played.metrics().items() if name in wanted}


def macro_stderr(entries: Sequence[Mapping[str, Any]]) -> float | None:
    """The standard error of `macro_mean`; None where a task has a single record, which tells of no spread."""
    columns = _columns(entries).values()
    if any(len(values) < 2 for values in columns):
        return None
    return math.hypot(*map(standard_error, columns)) / len(columns)


@with_stderr(macro_stderr)
def macro_mean(entries: Sequence[Mapping[str, Any]]) -> float:
    """The mean over tasks of a metric's mean per task: what papers publish."""
    return mig_bench.macro_mean(_columns(entries))[0]


def macro_low(entries: Sequence[Mapping[str, Any]]) -> float:
    """The lower end of its 95% interval."""
    return mig_bench.macro_mean(_columns(entries))[1]


def macro_high(entries: Sequence[Mapping[str, Any]]) -> float:
    """The upper end of its 95% interval."""
    return mig_bench.macro_mean(_columns(entries))[2]


def _columns(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """The scores by task."""
    columns: dict[str, list[float]] = {}
    for entry in entries:
        columns.setdefault(entry["task"], []).append(entry["score"])
    return columns
