"""Every score of a report's runs, as tables, and whether lmms-eval came to the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mgpo_core.evaluation_runs import Run
from mgpo_core.logged_scores import score_interval
from mgpo_core.sample_log import SampleResult, TaskResult, clusters_of, in_order
from mgpo_core.token_view import escape
from mgpo_eval.report_html import MOST_CATEGORIES, category_html, folded, run_html, table_html

__all__ = ["disagreement", "score_section"]

Category = tuple[str, str]


def score_section(runs: Mapping[str, Run]) -> str:
    """Every score of every run (by short name) with its interval and n, task by task, over all and per category."""
    names = dict.fromkeys(name for run in runs.values() for name in run.tasks)
    parts = []
    for name in names:
        tasks = {short: run.tasks[name] for short, run in runs.items() if name in run.tasks}
        parts.append(f"<h3>{escape(name)}</h3>{_score_table(tasks, several=len(runs) > 1)}{_agreement(tasks)}")
    return (
        f'<section class="part" id="scores"><h2>Scores</h2>{"".join(parts)}<p class="legend">Small numbers: 95% '
        "interval, Wilson's for scores of 0 and 1, else normal; by question where samples repeat one, as HR-Bench's "
        "rotations do. <b>◆</b> decides what counts as right and wrong here. "
        "A score that is not defined for every sample says over how many it is taken.</p></section>"
    )


def _score_table(tasks: Mapping[str, TaskResult], *, several: bool) -> str:
    mains = {task.main for task in tasks.values()}
    scores = in_order(dict.fromkeys(name for task in tasks.values() for name in task.score_names), mains)
    categories: list[Category] = sorted({pair for task in tasks.values() for pair in task.categories})
    head = ["Samples", *(["Run"] if several else []), "n", *(f"{name} ◆" if name in mains else name for name in scores)]

    def table(parts: Sequence[Category | None]) -> str:
        rows = [row for category in parts for row in _score_rows(tasks, scores, category, several)]
        return table_html(head, rows, "scores", numbers=2 if several else 1)

    if len(categories) <= MOST_CATEGORIES:
        return table([None, *categories])
    return table([None]) + folded(f"{len(categories)} categories", table(categories))


def _score_rows(
    tasks: Mapping[str, TaskResult], scores: Sequence[str], category: Category | None, several: bool
) -> Iterator[str]:
    """A row a run over the samples of a category, or over all."""
    for place, (short, task) in enumerate(tasks.items()):
        cells = [f"<td>{run_html(short)}</td>"] if several else []
        cells.append(f'<td class="num">{len(task.of(category))}{_questions_html(task.of(category))}</td>')
        cells += [_score_cell(task, name, category) for name in scores]
        title = _row_head(category, len(tasks)) if place == 0 else ""
        yield f'<tr class="{"main" if category is None else "category"}">{title}{"".join(cells)}</tr>'


def _questions_html(samples: Sequence[SampleResult]) -> str:
    clusters = clusters_of(samples)
    return "" if clusters is None else f"<small>{len(set(clusters))} questions</small>"


def _row_head(category: Category | None, rows: int) -> str:
    return f'<th scope="row" rowspan="{rows}">{"all" if category is None else category_html(category)}</th>'


def _score_cell(task: TaskResult, name: str, category: Category | None) -> str:
    samples = task.of(category)
    scored = [sample for sample in samples if name in sample.scores]
    values = [sample.scores[name] for sample in scored]
    if not values:
        return '<td class="num">–</td>'
    mean, limits = sum(values) / len(values), score_interval(values, clusters_of(scored))
    of = "" if len(values) == len(samples) else f"<small>n = {len(values)}</small>"
    reported = disagreement(task, name, category)
    own = "" if reported is None else f'<small class="bad">lmms-eval: {reported}</small>'
    return f'<td class="num">{mean:.3f}{_interval_html(limits)}{_meter(mean, limits)}{of}{own}</td>'


def _interval_html(limits: tuple[float, float] | None) -> str:
    return "" if limits is None else f"<small>{limits[0]:.3f} to {limits[1]:.3f}</small>"


def _meter(mean: float, limits: tuple[float, float] | None) -> str:
    if limits is None or not (limits[0] >= 0 and limits[1] <= 1):
        return ""
    return f'<i class="meter" style="--low:{limits[0]:.4f};--high:{limits[1]:.4f};--value:{mean:.4f}"></i>'


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


def _agreement(tasks: Mapping[str, TaskResult]) -> str:
    """Whether lmms-eval's own averages are the same; where not, that it weighs differently or the log is not whole."""
    pairs = [
        (task, name, category)
        for task in tasks.values()
        for name in task.score_names
        for category in (None, *task.categories)
        if _reported(task, name, category) is not None
    ]
    differing = sum(disagreement(*pair) is not None for pair in pairs)
    if not pairs:
        return '<p class="legend">No averages of lmms-eval to compare with.</p>'
    if not differing:
        return f'<p class="legend">lmms-eval\'s own averages ({len(pairs)}) agree in all digits shown.</p>'
    return (
        f'<p class="warning">{differing} of {len(pairs)} averages of lmms-eval differ from these means (marked above): '
        "its task weighs samples differently, or the log is not the whole of what it averaged.</p>"
    )
