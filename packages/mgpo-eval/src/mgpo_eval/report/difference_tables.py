"""Runs against the baseline, the first of a report, with what makes a comparison unfair beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgpo_core.runs.evaluation_runs import Run
from mgpo_eval.report.comparison import TaskComparison, comparability, compare_runs
from mgpo_eval.report.score_tables import MOST_CATEGORIES
from mgpo_eval.report.significance import PairedDifference

__all__ = ["difference_tables"]

_NO_DIRECTION = ("crop_area_fraction",)
"Scores of which neither more nor less is better."


def difference_tables(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Every further run against the first, over the samples that both have; empty for a single run."""
    first, *others = runs.items()
    return [_pair(first, other) for other in others]


def _pair(first: tuple[str, Run], second: tuple[str, Run]) -> dict[str, Any]:
    (a, run_a), (b, run_b) = first, second
    warnings = comparability(run_a, run_b)
    alone = [f"{name} (only {a})" for name in run_a.tasks if name not in run_b.tasks]
    alone += [f"{name} (only {b})" for name in run_b.tasks if name not in run_a.tasks]
    if alone:
        warnings.append(f"Tasks that one run alone has: {', '.join(alone)}.")
    compared = compare_runs(run_a, run_b)
    if not any(found.matching.pairs for found in compared):
        warnings.append("These runs have no sample in common.")
        compared = []
    return {
        "a": a,
        "b": b,
        "name_a": run_a.name,
        "name_b": run_b.name,
        "warnings": warnings,
        "head": ["Task", "Score", "n", a, b, f"{b} − {a}", "95%", "p", "Test"],
        "tasks": [_task(found) for found in compared],
    }


def _task(found: TaskComparison) -> dict[str, Any]:
    """A task's scores, the main one's categories, and how often both runs, one or none of them is right."""
    scores = [_row(found, name, difference) for name, difference in found.scores.items()]
    categories = [
        _row(found, found.main or "", difference, category) for category, difference in found.categories.items()
    ]
    table = found.scores[found.main].table if found.main is not None else None
    matching = found.matching
    return {
        "name": found.task,
        "main": found.main,
        "scores": scores,
        "categories": categories,
        "folded": len(categories) > MOST_CATEGORIES,
        "fourfold": [*(table or ("–",) * 4), matching.only_a, matching.only_b, matching.other_ground_truth],
    }


def _row(
    task: TaskComparison, name: str, found: PairedDifference, category: tuple[str, str] | None = None
) -> dict[str, Any]:
    better = found.difference < 0 if name in task.lower_is_better else found.difference > 0
    clear = found.p < 0.05 and found.difference != 0 and name not in _NO_DIRECTION
    return {
        "name": name,
        "category": category,
        "main": name == task.main,
        "n": found.n,
        "questions": found.questions,
        "mean_a": f"{found.mean_a:.3f}",
        "mean_b": f"{found.mean_b:.3f}",
        "difference": _signed(found.difference),
        "verdict": ("good" if better else "bad") if clear else "",
        "limits": "" if found.interval is None else " to ".join(map(_signed, found.interval)),
        "p": "< 0.001" if found.p < 0.001 else f"{found.p:.3f}",
        "test": found.test,
    }


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
