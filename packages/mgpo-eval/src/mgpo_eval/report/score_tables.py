"""Every score of a report's runs, and whether lmms-eval came to the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgpo_core.runs.evaluation_runs import Run
from mgpo_core.runs.logged_scores import score_interval
from mgpo_core.runs.sample_log import TaskResult, clusters_of, in_order

__all__ = ["MOST_CATEGORIES", "disagreement", "n_questions", "score_tables"]

MOST_CATEGORIES = 12
"A task with more categories than this has them folded away."

Category = tuple[str, str]


def score_tables(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Every score of every run (by short name) with its interval and n, task by task, over all and per category."""
    names = dict.fromkeys(name for run in runs.values() for name in run.tasks)
    return [
        _score_table(
            name,
            {short: run.tasks[name] for short, run in runs.items() if name in run.tasks},
            several=len(runs) > 1,
        )
        for name in names
    ]


def _score_table(name: str, tasks: Mapping[str, TaskResult], *, several: bool) -> dict[str, Any]:
    mains = {task.main for task in tasks.values()}
    scores = in_order(dict.fromkeys(name for task in tasks.values() for name in task.score_names), mains)
    categories: list[Category] = sorted({pair for task in tasks.values() for pair in task.categories})
    return {
        "name": name,
        "several": several,
        "head": ["Samples", *["Run"] * several, "n", *(f"{name} ◆" if name in mains else name for name in scores)],
        "numbers": 2 if several else 1,
        "parts": [
            {"category": part, "rows": [_row(short, task, scores, part) for short, task in tasks.items()]}
            for part in (None, *categories)
        ],
        "folded": len(categories) > MOST_CATEGORIES,
        **_agreement(list(tasks.values())),
    }


def _row(short: str, task: TaskResult, scores: Sequence[str], category: Category | None) -> dict[str, Any]:
    """The scores of one run over the samples of a category, or over all."""
    samples = task.of(category)
    cells = [_cell(task, name, category) for name in scores]
    return {"run": short, "n": len(samples), "questions": n_questions(clusters_of(samples)), "cells": cells}


def n_questions(clusters: Sequence[Any] | None) -> int | None:
    """How many questions samples are of that repeat some; None where each has its own."""
    return None if clusters is None else len(set(clusters))


def _cell(task: TaskResult, name: str, category: Category | None) -> dict[str, Any] | None:
    """A score's mean and 95% interval; n where not every sample has it; None where none has."""
    samples = task.of(category)
    scored = [sample for sample in samples if name in sample.scores]
    values = [sample.scores[name] for sample in scored]
    if not values:
        return None
    return {
        "mean": sum(values) / len(values),
        "limits": score_interval(values, clusters_of(scored)),
        "n": None if len(values) == len(samples) else len(values),
        "reported": disagreement(task, name, category),
    }


def disagreement(task: TaskResult, name: str, category: Category | None) -> str | None:
    """lmms-eval's own average of a score where it differs from ours in the digits shown (or in per cent of these)."""
    own = _reported(task, name, category)
    values = [sample.scores[name] for sample in task.of(category) if name in sample.scores]
    if own is None or not values:
        return None
    mean = sum(values) / len(values)
    same = any(f"{value:.3f}" == f"{mean:.3f}" or abs(value - mean) < 1e-6 for value in (own, own / 100))
    return None if same else f"{own:.3f}"


def _reported(task: TaskResult, name: str, category: Category | None) -> float | None:
    """lmms-eval's average of a score; our own tasks have it average categories under names of their own."""
    name = name if category is None else f"{name}/{category[1]}"
    keys = sorted(
        (key for key in task.reported if key.split(",")[0] == name), key=lambda key: not key.endswith(",none")
    )
    values = [task.reported[key] for key in keys]
    return next((float(value) for value in values if isinstance(value, (int, float)) and value == value), None)


def _agreement(tasks: Sequence[TaskResult]) -> dict[str, int]:
    """How many averages of lmms-eval can be compared with ours, and how many of them differ."""
    compared = [
        (task, name, category)
        for task in tasks
        for name in task.score_names
        for category in (None, *task.categories)
        if _reported(task, name, category) is not None
    ]
    return {"compared": len(compared), "differing": sum(disagreement(*one) is not None for one in compared)}
