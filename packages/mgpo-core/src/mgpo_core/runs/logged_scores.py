"""Scores and categories in one line of lmms-eval's sample log, read by the same rules for every task.

lmms-eval writes what a task's `process_results` returned into the line, beside its own keys. A value is read as

- a number or true/false: the score, if lmms-eval averages it (its name is among the metrics of the results file, or
  there is no such file) or it is one of the grounding metrics;
- a dict: the score is the number under the first of `SCORE_KEYS` that it has (vstar_bench: `score`, hrbench:
  `gpt_score`); with `pred_answer` and `answer` and none of these (mmerealworld), 1 if they are equal or the second is
  within the first, case apart, as that task's own average has it;
- anything else: no score.

Beside a score, our own tasks log the same value again under names of their own, for lmms-eval to average: `NAME_low`
and `NAME_high` (the ends of its interval) and `NAME/CATEGORY` (its mean over a category). These are no further scores.
`skipped` is none either: a skipped sample is known by its envelope. Tasks of ours that repeat questions log dicts,
`{"score": ..., "cluster": name of the question}`. Of hrbench, which repeats questions too (a dict has `cycle_category`)
and logs neither their names nor images, the question is known by the words and the choices of its prompt.

Null, NaN and infinity mean that the score is not defined for the sample: it is left out of that mean, and n says so.
Categories are texts under `CATEGORY_KEYS`, of the line or else of the first dict that has any, and those of
`NAME/CATEGORY`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mgpo_core.episodes.intervals import Clusters, interval, mean_interval
from mgpo_core.episodes.trajectory import METRICS
from mgpo_core.samples.questions import split_question
from mgpo_core.samples.repeated_questions import question_key

__all__ = [
    "CLUSTER",
    "GROUNDING",
    "TRUE_BOXES",
    "main_score",
    "read_categories",
    "read_cluster",
    "read_scores",
    "repeated_scores",
    "score_interval",
    "verdict",
]

GROUNDING = tuple(name for name in METRICS if name != "accuracy")
"The metrics that say where the model looked, not whether it was right."

SCORE_KEYS = ("score", "gpt_score", "accuracy", "acc", "correct", "exact_match")
CATEGORY_KEYS = ("category", "sub_category", "cycle_category")
TRUE_BOXES = "true_boxes"
"Key under which our tasks log true boxes: lists of x1, y1, x2, y2 in pixels of the original, and the image."
CLUSTER = "cluster"
"Key beside a score that names the question, where a task asks each several times; lmms-eval's `cluster_key`."
MAIN_SCORES = ("accuracy", "iou_05")
"Scores that say whether a sample is right wherever a task has them; the second is MIG-Bench's, an overlap of a half."

_OWN_KEYS = {
    "doc_id",
    "target",
    "resps",
    "filtered_resps",
    "token_counts",
    "doc_hash",
    "input_media",
    "input",
    "skipped",
}
"What lmms-eval itself puts into a line, and the one number of our tasks that is no score."


def read_scores(line: Mapping[str, Any], metrics: Collection[str] = ()) -> dict[str, float]:
    """The scores of a line, in its order; `metrics` are the names that lmms-eval averages, empty if not known."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if name in _OWN_KEYS or name in CATEGORY_KEYS:
            continue
        if isinstance(value, Mapping):
            score = _score_in(value)
        else:
            score = _number(value) if not metrics or name in metrics or name in METRICS else None
        if score is not None:
            found[name] = score
    return found


def repeated_scores(scores: Iterable[Mapping[str, float]]) -> set[str]:
    """The names that, in every sample of a task that has them, stand for another score's value once more."""
    repeated: dict[str, bool] = {}
    for of_sample in scores:
        for name, score in of_sample.items():
            base = name.partition("/")[0] if "/" in name else name.removesuffix("_low").removesuffix("_high")
            repeats = base != name and of_sample.get(base) == score
            repeated[name] = repeated.get(name, True) and repeats
    return {name for name, repeats in repeated.items() if repeats}


def _score_in(value: Mapping[str, Any]) -> float | None:
    for key in SCORE_KEYS:
        if key in value:
            return _number(value[key])
    if isinstance(value.get("pred_answer"), str) and isinstance(value.get("answer"), str):
        return float(value["answer"].lower() in value["pred_answer"].lower())
    return None


def _number(value: Any) -> float | None:
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        return None
    return float(value)


def read_categories(line: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """What the sample is counted under, as (kind, category), a kind possibly more than once; empty without any."""
    parts = [name.partition("/") for name in line]
    found = [("category", category) for base, slash, category in parts if slash and base in line]
    for holder in (line, *(value for value in line.values() if isinstance(value, Mapping))):
        own = [(key, str(holder[key])) for key in CATEGORY_KEYS if isinstance(holder.get(key), (str, int))]
        if own:
            found += own
            break
    return tuple(dict.fromkeys(found))


def read_cluster(line: Mapping[str, Any], seen: Counter[tuple[str, ...]]) -> str | None:
    """The name of the question that a line repeats; None where its task is not known to repeat any.

    `seen` counts what was read so far of a log. A question whose choices come in the same order again is not another
    rotation: it is the same words about another image.
    """
    dicts = [value for value in line.values() if isinstance(value, Mapping)]
    for holder in dicts:
        if isinstance(holder.get(CLUSTER), str):
            return str(holder[CLUSTER])
    if not any("cycle_category" in holder for holder in dicts):
        return None
    question, choices = split_question(str(line.get("input", "")))
    if not choices:
        return None
    key = question_key(question, (), choices)
    seen[key, *choices] += 1
    return f"{key}-{seen[key, *choices]}"


def main_score(scores: Iterable[Mapping[str, float]], lower_is_better: Collection[str] = ()) -> str | None:
    """The score that says whether a sample is right, given the scores of a task's samples; None without such a score.

    One of `MAIN_SCORES` where the task has it; else, of the scores that are 0 or 1 throughout, are not about grounding
    and are the better the higher, the one that most samples have, and the first of these (vstar_bench: its overall
    accuracy; hrbench: `average`).
    """
    counts: dict[str, int] = {}
    graded: set[str] = set()
    for of_sample in scores:
        for name, score in of_sample.items():
            counts[name] = counts.get(name, 0) + 1
            if score not in (0.0, 1.0):
                graded.add(name)
    for name in MAIN_SCORES:
        if name in counts:
            return name
    binary = [name for name in counts if name not in graded and name not in (*GROUNDING, *lower_is_better)]
    return max(binary, key=lambda name: counts[name], default=None)


def verdict(score: float | None) -> bool | None:
    """Right for a score of 1, wrong for 0, neither between or without one."""
    return {1.0: True, 0.0: False}.get(score) if score is not None else None


def score_interval(values: Sequence[float], clusters: Clusters = None) -> tuple[float, float] | None:
    """95% interval of the mean: as for every metric of this project where values lie in 0-1, else normal.

    None for a single value outside 0-1, and for none at all.
    """
    if values and all(0.0 <= value <= 1.0 for value in values):
        return interval(values, clusters)
    return mean_interval(values, clusters) if len(values) > 1 else None
