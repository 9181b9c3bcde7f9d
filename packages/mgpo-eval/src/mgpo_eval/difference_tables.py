"""Runs against the baseline, the first of a report, as tables, with what makes a comparison unfair beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mgpo_core.evaluation_runs import Run
from mgpo_core.token_view import escape
from mgpo_eval.comparison import TaskComparison, compare_runs, fairness
from mgpo_eval.report_html import MOST_CATEGORIES, category_html, folded, run_html, table_html
from mgpo_eval.significance import PairedDifference

__all__ = ["comparison_section"]

_NO_DIRECTION = ("crop_area_fraction",)
"Scores of which neither more nor less is better."


def comparison_section(runs: Mapping[str, Run], baseline: str) -> str:
    """Every further run against the first, over the samples that both have; empty for a single run.

    `baseline` is the sentence that says which the first is, and why.
    """
    first, *others = runs.items()
    if not others:
        return ""
    parts = "".join(_pair(first, other) for other in others)
    stated = escape(baseline[:1].upper() + baseline[1:])
    return (
        f'<section class="part" id="comparison"><h2>Comparison</h2><p>{stated}.</p>{parts}'
        '<p class="legend">Green is better than the baseline, red worse, where p is below 0.05; of some scores, less '
        "is better. Over samples with the same doc_id and target in both runs. Intervals: Bonett and Price's for "
        "scores of 0 and 1, else normal; intervals and tests by question where samples repeat one. p-values are "
        "two-sided and not corrected for the number of comparisons.</p></section>"
    )


def _pair(first: tuple[str, Run], second: tuple[str, Run]) -> str:
    (a, run_a), (b, run_b) = first, second
    title = f"<h3>{run_html(b)} {escape(run_b.name)} against {run_html(a)} {escape(run_a.name)}</h3>"
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in fairness(run_a, run_b))
    compared = compare_runs(run_a, run_b)
    alone = [f"{name} (only {short})" for name, short in _tasks_of_one(first, second)]
    if alone:
        warnings += f'<p class="warning">Tasks that one run alone has: {escape(", ".join(alone))}.</p>'
    if not any(found.matching.pairs for found in compared):
        return f'{title}{warnings}<p class="warning">These runs have no sample in common.</p>'
    head = ["Task", "Score", "n", a, b, f"{b} − {a}", "95%", "p", "Test"]

    def table(rows: Iterable[str]) -> str:
        return table_html(head, rows, "differences", numbers=2, last=8)

    many = [found for found in compared if len(found.categories) > MOST_CATEGORIES]
    rows = [row for found in compared for row in _difference_rows(found, fold=found in many)]
    more = "".join(
        folded(f"{found.task}: {len(found.categories)} categories", table(_category_rows(found))) for found in many
    )
    return f"{title}{warnings}{table(rows)}{more}{_fourfold(compared, a, b)}"


def _tasks_of_one(first: tuple[str, Run], second: tuple[str, Run]) -> Iterator[tuple[str, str]]:
    for (short, run), (_, other) in ((first, second), (second, first)):
        yield from ((name, short) for name in run.tasks if name not in other.tasks)


def _difference_rows(found: TaskComparison, *, fold: bool) -> Iterator[str]:
    task = f'<th scope="row">{escape(found.task)}</th>'
    for name, difference in found.scores.items():
        kind = "main" if name == found.main else "other"
        yield f'<tr class="{kind}">{task}<td>{escape(name)}</td>{_difference_cells(found, name, difference)}</tr>'
        if name == found.main and not fold:
            yield from _category_rows(found)
        task = "<td></td>"


def _category_rows(found: TaskComparison) -> Iterator[str]:
    for category, difference in found.categories.items():
        cells = _difference_cells(found, found.main or "", difference)
        yield f'<tr class="category"><td></td><td>{category_html(category)}</td>{cells}</tr>'


def _difference_cells(task: TaskComparison, name: str, found: PairedDifference) -> str:
    better = found.difference < 0 if name in task.lower_is_better else found.difference > 0
    clear = found.p < 0.05 and found.difference != 0 and name not in _NO_DIRECTION
    kind = ("good" if better else "bad") if clear else ""
    limits = "" if found.interval is None else f"{_signed(found.interval[0])} to {_signed(found.interval[1])}"
    of = "" if found.questions is None else f"<small>{found.questions} questions</small>"
    p = "< 0.001" if found.p < 0.001 else f"{found.p:.3f}"
    return (
        f'<td class="num">{found.n}{of}</td>'
        f'<td class="num">{found.mean_a:.3f}</td><td class="num">{found.mean_b:.3f}</td>'
        f'<td class="num"><b class="{kind}">{_signed(found.difference)}</b></td><td class="num">{limits}</td>'
        f'<td class="num">{p}</td><td><small>{escape(found.test)}</small></td>'
    )


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _fourfold(compared: Sequence[TaskComparison], a: str, b: str) -> str:
    """How often both runs, one or none of them is right, and what could not be matched."""
    rows = []
    for found in compared:
        table = found.scores[found.main].table if found.main is not None else None
        matching = found.matching
        cells = [*(table or ("–",) * 4), matching.only_a, matching.only_b, matching.other_target]
        numbers = "".join(f'<td class="num">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{escape(found.task)}</th><td>{escape(found.main or "–")}</td>{numbers}</tr>')
    head = ["Task", "Score", "Both right", f"Only {a}", f"Only {b}", "Both wrong"]
    head += [f"Unmatched in {a}", f"Unmatched in {b}", "Other target"]
    return table_html(head, rows, "fourfold", numbers=2)
