"""MIG-Bench: which part of which image of a set is meant, ten tasks, scored by the overlap of boxes.

The benchmark is Migician's (Li et al., arXiv 2501.05767; hub: Michael4933/MIG-Bench, 4,295 records), and the one that
MIRG-RL reports on (arXiv 2509.21788). Here are its records, prompts and scores as pure functions: no torch, no
lmms-eval.

>>> from mgpo_eval import mig_bench
>>> records = mig_bench.load_records("MIG-Bench")                                     # doctest: +SKIP
>>> asked = mig_bench.published_prompt(records[0])                                    # doctest: +SKIP
>>> scores = [mig_bench.score(records[0], answer)]                                    # doctest: +SKIP
>>> mig_bench.aggregate(scores)["macro"]["iou_05"]                                    # doctest: +SKIP
"""

from __future__ import annotations

from mgpo_eval.mig_bench.answers import Answer, read_answer
from mgpo_eval.mig_bench.image_store import image_source
from mgpo_eval.mig_bench.prompts import mark_boxes, published_prompt
from mgpo_eval.mig_bench.records import TASKS, DefectCounts, Record, count_defects, load_records, to_rows
from mgpo_eval.mig_bench.scoring import (
    METRICS,
    THRESHOLDS,
    Score,
    aggregate,
    macro_mean,
    score,
    score_played,
    true_box,
)

__all__ = [
    "METRICS",
    "TASKS",
    "THRESHOLDS",
    "Answer",
    "DefectCounts",
    "Record",
    "Score",
    "aggregate",
    "count_defects",
    "image_source",
    "load_records",
    "macro_mean",
    "mark_boxes",
    "published_prompt",
    "read_answer",
    "score",
    "score_played",
    "to_rows",
    "true_box",
]
