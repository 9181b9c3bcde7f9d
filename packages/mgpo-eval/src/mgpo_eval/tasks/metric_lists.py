"""The `metric_list` of each of our tasks: which metrics of `process_results` are averaged, and how.

The YAML files in `tasks/` name these lists with `!function`, which in lmms-eval 0.7.3 imports any attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from mgpo_core.haystack.multi import TASKS as SET_TASKS
from mgpo_core.haystack.world import SHAPES
from mgpo_eval import mig_bench
from mgpo_eval.tasks import haystack_multi_scoring, mig_scoring, scoring

__all__ = ["HAYSTACK", "HAYSTACK_MULTI", "HR_BENCH", "MIG_BENCH", "MME_REALWORLD", "VSTAR"]

MetricList = list[dict[str, Any]]

_LOWER_IS_BETTER = ("crop_area_fraction", "skipped", "inverted", "clipped")


def _means(*names: str, aggregation: Callable[..., float] = scoring.mean) -> MetricList:
    return [
        {"metric": name, "aggregation": aggregation, "higher_is_better": name not in _LOWER_IS_BETTER} for name in names
    ]


def _totals(*names: str) -> MetricList:
    return _means(*names, aggregation=scoring.total)


def _with_intervals(names: Iterable[str], of: Any = scoring, prefix: str = "") -> MetricList:
    """Means, each with the ends of its 95% interval, by the functions `mean`, `low` and `high` of a module."""
    ends = {"": "mean", "_low": "low", "_high": "high"}
    return [
        metric
        for name, (end, function) in product(names, ends.items())
        for metric in _means(f"{name}{end}", aggregation=getattr(of, prefix + function))
    ]


def _by_category(names: Iterable[str], categories: Iterable[str]) -> MetricList:
    return _means(*(f"{name}/{category}" for category, name in product(categories, names)))


def _multiple_choice(*categories: str) -> MetricList:
    return [
        *_with_intervals(["accuracy"]),
        *_means("answered_rate", "valid_box_rate", "crop_area_fraction"),
        *_totals("skipped"),
        *_by_category(["accuracy"], categories),
    ]


_MME_KINDS = ("Perception", "Reasoning")
_MME_SUBJECTS = (
    "Monitoring",
    "Autonomous_Driving",
    "OCR with Complex Context",
    "Diagram and Table",
    "Remote Sensing",
)

VSTAR = _multiple_choice("direct_attributes", "relative_position")
HR_BENCH = _multiple_choice("single", "cross")
MME_REALWORLD = _multiple_choice(*_MME_KINDS, *map("/".join, product(_MME_KINDS, _MME_SUBJECTS)))

HAYSTACK = [
    *_with_intervals(["accuracy"]),
    *_means("answered_rate", "valid_box_rate", "hit_rate", "mean_iou", "image_accuracy", "crop_area_fraction"),
    *_totals("skipped"),
    *_by_category(["accuracy"], SHAPES),
]

HAYSTACK_MULTI = [
    *_with_intervals(haystack_multi_scoring.SCORES),
    *_means("answered_rate", "valid_box_rate", "hit_rate", "crop_area_fraction"),
    *_totals("skipped"),
    *_by_category(haystack_multi_scoring.SCORES, SET_TASKS),
]

_MIG_SCORES = (*mig_bench.THRESHOLDS, "mean_iou", "image_accuracy")
MIG_BENCH = [
    *_with_intervals([*_MIG_SCORES, "iou_on_named_image"], mig_scoring, "macro_"),
    *_means("valid_box_rate", "answered_rate", "hit_rate", "crop_area_fraction"),
    *_totals("skipped", "inverted", "clipped"),
    *_by_category(_MIG_SCORES, mig_bench.TASKS),
]
"""Names without a task are means over the tasks (the published average)."""
