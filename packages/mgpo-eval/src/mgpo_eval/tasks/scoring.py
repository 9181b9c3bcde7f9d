"""How our own tasks ask, score a sample and average: what the YAML files in `tasks/` name with `!function`.

Every score is a mean over samples with a standard error, and accuracy has a 95% interval (Wilson's for 0/1 scores,
normal otherwise). Where a benchmark repeats questions, a score is `{"score": ..., "cluster": name of the question}` and
both are by question (lmms-eval's convention, its `cluster_key`); else it is a number. Scores of boxes come from the
trajectory behind the answer; models that give none are scored on answers alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from mgpo_core.boxes.boxed_answer import extract_boxed
from mgpo_core.episodes.intervals import Clusters, interval, standard_error
from mgpo_core.errors import SampleError
from mgpo_core.images.load import load_image
from mgpo_core.runs.logged_scores import CLUSTER, TRUE_BOXES
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload
from mgpo_core.samples.grading import choice_letter, resolve_choice
from mgpo_eval.tasks.readers import Reader, find_reader

__all__ = ["high", "images", "low", "mean", "prompt", "score", "stderr", "target", "total", "with_stderr"]

_ASK = "Answer with the option's letter from the given choices directly."

Row = Mapping[str, Any]


def images(row: Row) -> list[Image.Image]:
    """`doc_to_visual`: the row's images, decoded."""
    return [load_image(source) for source in _reader(row).images(row)]


def prompt(row: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """`doc_to_text`, for models that take one prompt; ours reads the row itself."""
    question, choices = _reader(row).question(row)
    lines = "".join(f"({choice_letter(index)}) {choice}\n" for index, choice in enumerate(choices))
    return f"{question}\n{lines}{_ASK if choices else ''}"


def target(row: Row) -> str:
    """`doc_to_target`: the letter of the right choice."""
    return _reader(row).answer(row)


def score(row: Row, results: Sequence[str]) -> dict[str, Any]:
    """`process_results`: the metrics of one sample, its categories' accuracies, and what a report shows beside them."""
    reader = _reader(row)
    payload = decode_payload(results[0])
    _, choices = reader.question(row)
    ground_truth = reader.answer(row)
    right = float(_letter(payload, choices) == ground_truth)
    metrics: dict[str, Any] = {"accuracy": right, "accuracy_low": right, "accuracy_high": right}
    metrics["skipped"] = float(payload.skipped is not None)
    metrics |= _box_metrics(payload, reader, row, choices, ground_truth)
    categories = reader.categories(row)
    metrics |= {f"accuracy/{category}": right for category in categories}
    if (cluster := reader.cluster(row)) is not None:
        metrics = {name: {"score": value, CLUSTER: cluster} for name, value in metrics.items()}
    boxes = [[*box.as_tuple(), box.image] for box in reader.boxes(row)]
    return metrics | {"category": categories[-1]} | ({TRUE_BOXES: boxes} if boxes else {})


def _box_metrics(
    payload: ResponsePayload, reader: Reader, row: Row, choices: tuple[str, ...], ground_truth: str
) -> dict[str, float]:
    trajectory = payload.trajectory()
    if trajectory is None:
        return {"answered_rate": float(_letter(payload, choices) is not None)}
    played = replace(trajectory, ground_truth=ground_truth, true_boxes=reader.boxes(row))
    metrics = {name: value for name, value in played.metrics().items() if name != "accuracy"}
    if reader.count(row) > 1 and "hit_rate" in metrics:
        looked_at = {box.image for box in [played.box_original] if box is not None}
        metrics["image_accuracy"] = float(any(true.image in looked_at for true in played.true_boxes))
    return metrics


def _letter(payload: ResponsePayload, choices: tuple[str, ...]) -> str | None:
    """The choice that an answer names, of any model."""
    boxed = extract_boxed(payload.answer)
    index = resolve_choice(payload.answer if boxed is None else boxed, choices)
    return None if index is None else choice_letter(index)


def _reader(row: Row) -> Reader:
    reader = find_reader(row) or _without_images(row)
    if reader is None:
        raise SampleError(f"no benchmark with the columns {', '.join(row)} is known; check the data set's layout")
    return reader


def _without_images(row: Row) -> Reader | None:
    """lmms-eval scores rows that it has taken the images from."""
    return find_reader([*row, "image", "bytes"])


Entry = float | Mapping[str, Any]
"""A score of one sample as `score` gives it: the number, or a dict with it and the question that the sample repeats."""


def _columns(entries: Sequence[Entry]) -> tuple[list[float], Clusters]:
    """The numbers, and the question of each where they have any."""
    values = [float(entry["score"]) if isinstance(entry, Mapping) else entry for entry in entries]
    named = [entry.get(CLUSTER) if isinstance(entry, Mapping) else None for entry in entries]
    return values, named if any(name is not None for name in named) else None


def stderr(entries: Sequence[Entry]) -> float:
    """The standard error of `mean`, by question where samples repeat one; for lmms-eval's column `Stderr`."""
    return standard_error(*_columns(entries))


Aggregation = Callable[[Sequence[Any]], float]


def with_stderr(of_mean: Callable[[Sequence[Any]], float | None]) -> Callable[[Aggregation], Aggregation]:
    """Names the function that gives an aggregation's standard error: plugin.py tells lmms-eval."""

    def mark(aggregation: Aggregation) -> Aggregation:
        aggregation.stderr = of_mean  # type: ignore[attr-defined]
        return aggregation

    return mark


@with_stderr(stderr)
def mean(entries: Sequence[Entry]) -> float:
    """The mean of a metric over samples."""
    values, _ = _columns(entries)
    return math.fsum(values) / len(values)


def low(entries: Sequence[Entry]) -> float:
    """The lower end of the mean's 95% interval."""
    return interval(*_columns(entries))[0]


def high(entries: Sequence[Entry]) -> float:
    """The upper end of the mean's 95% interval."""
    return interval(*_columns(entries))[1]


def total(entries: Sequence[Entry]) -> float:
    """The sum: a count of samples."""
    return math.fsum(_columns(entries)[0])
