"""What `tasks/haystack_multi.yaml` names with `!function`: prompt, images and scores of answers that are boxes.

A box on another image than the true one overlaps with nothing. `accuracy` is the share with an IoU of at least 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from mgpo_core import CoordinateSpace, Episode, Sample
from mgpo_core.boxes.parse import Size
from mgpo_core.boxes.regions import View
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.images.load import load_image
from mgpo_core.runs.logged_scores import TRUE_BOXES
from mgpo_core.runs.response_payload import ResponsePayload, decode_payload
from mgpo_core.templates.multi_image import MultiImage
from mgpo_eval import mig_bench
from mgpo_eval.tasks.haystack_rows import answer_of_set, boxes_in, images_of_set

__all__ = ["SCORES", "images", "prompt", "score", "target"]

SCORES = ("accuracy", "image_accuracy", "mean_iou", "iou_03", "iou_07")
"""What is averaged over all samples, with an interval, and for every task."""

_ASK = (
    'Answer in JSON: [{"image": N, "bbox_2d": [x1, y1, x2, y2]}], where N is the number of the image, counted from 1, '
    "and coordinates are thousandths of its width and height."
)

Row = Mapping[str, Any]


def images(row: Row) -> list[Image.Image]:
    """`doc_to_visual`: the row's images, drawn."""
    return [load_image(source) for source in images_of_set(row)]


def prompt(row: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """`doc_to_text`, for models that take one prompt, in thousandths; ours reads the row itself."""
    sizes = _sizes(row)
    view = View(CoordinateSpace.RELATIVE_1000, sizes, sizes)
    return f"{view.write_out(str(row['question']), boxes_in(row['regions']))} {_ASK}"


def target(row: Row) -> str:
    """`doc_to_target`: the true box, in pixels of the original, and its image, counted from 1."""
    return answer_of_set(row)


def score(row: Row, results: Sequence[str]) -> dict[str, Any]:
    """`process_results`: the metrics of one sample, those of its task, and the true box, for a report."""
    payload = decode_payload(results[0])
    found = _metrics(row, payload)
    task = str(row["category"])
    metrics: dict[str, Any] = dict(found)
    for name in SCORES:
        metrics |= {f"{name}{end}": found[name] for end in ("_low", "_high", f"/{task}")}
    return metrics | {
        "skipped": float(payload.skipped is not None),
        "category": task,
        TRUE_BOXES: [list(box) for box in row["boxes"]],
    }


def _metrics(row: Row, payload: ResponsePayload) -> dict[str, float]:
    """The metrics of the answer; a sample that could not be run is wrong."""
    if payload.skipped is not None:
        return dict.fromkeys((*SCORES, "answered_rate"), 0.0)
    trajectory = payload.trajectory() or _read(row, payload.answer)
    played = replace(trajectory, true_boxes=boxes_in(row["boxes"]))
    levels = {name: float(played.answer_iou >= least) for name, least in mig_bench.THRESHOLDS.items()}
    return played.metrics() | {name: levels[name] for name in SCORES if name in levels}


def _read(row: Row, text: str) -> Trajectory:
    """The answer of another model, in thousandths, read as those of ours are."""
    blank = [Image.new("RGB", size) for size in _sizes(row)]
    sample = Sample(str(row["question"]), tuple(blank), regions=boxes_in(row["regions"]))
    episode = Episode(sample, template=MultiImage(), space=CoordinateSpace.RELATIVE_1000)
    episode.observe(text)
    return episode.trajectory


def _sizes(row: Row) -> list[Size]:
    return [(width, height) for width, height in row["sizes"]]
