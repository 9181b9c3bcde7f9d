"""`report.html`: what evaluations came to, how runs differ, where the model looked; one page, without a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mgpo_core.render.environment import template
from mgpo_core.render.page import refuse_other_page, write_gallery
from mgpo_core.runs.evaluation_runs import ResultsError, Run, read_runs
from mgpo_eval.report.baseline import describe_baseline
from mgpo_eval.report.comparison import compare_runs
from mgpo_eval.report.difference_tables import difference_tables
from mgpo_eval.report.gallery import choose_samples, gallery_items, gallery_note, gallery_samples
from mgpo_eval.report.score_tables import score_tables
from mgpo_eval.report.selection import label_runs, order_runs
from mgpo_eval.report.settings_tables import run_notes, setting_columns

__all__ = ["write_results_report"]


def write_results_report(
    folders: Sequence[Path],
    page: Path,
    *,
    samples: int = 200,
    tasks: Collection[str] = (),
    runs: Sequence[str] = (),
    baseline: str | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Path:
    """Write the report of lmms-eval's output folders as one self-contained HTML page; gives its path.

    Every run in the folders is on it, or the wanted `runs` (by letter, name, id, date or folder) and `tasks`. They are
    compared with the `baseline`, else with the first of `runs`, else with the run that `baseline_first` finds; `tell`
    gets a sentence that says which it is. At most `samples` samples can be browsed; scores are always over all.
    ResultsError for folders that hold no readable samples, and for two folders (or named runs) that share none;
    OutputFolderError when `page` is there and is not such a report.
    """
    refuse_other_page(page)
    chosen, reason = order_runs(read_runs(folders, tasks), runs, baseline)
    by_letter = label_runs(chosen)
    if len(folders) > 1 or runs:
        _check_in_common(chosen)
    found = gallery_samples(by_letter)
    shown = choose_samples(found, samples)
    several = len(chosen) > 1
    stated = describe_baseline(by_letter, reason) if several else ""
    header = _header(by_letter, stated, gallery_note(shown, found))
    names = {letter: run.name for letter, run in by_letter.items()} if several else None
    write_gallery(page, gallery_items(shown, several=several), _title(chosen), header, runs=names)
    if several:
        tell(stated)
    return page


def _header(runs: Mapping[str, Run], baseline: str, note: str) -> str:
    """What stands above the cards, as HTML: `baseline` says which run that is, `note` what the gallery holds."""
    return template("mgpo_eval.report/report.html.j2").render(
        runs=runs,
        several=len(runs) > 1,
        baseline=baseline,
        notes=run_notes(runs),
        pairs=difference_tables(runs),
        scored=score_tables(runs),
        setting_columns=setting_columns(runs),
        gallery_note=note,
    )


def _check_in_common(runs: Sequence[Run]) -> None:
    first, *others = runs
    for other in others:
        if not any(found.matching.pairs for found in compare_runs(first, other)):
            raise ResultsError(
                f"{first.name} ({first.folder}: {', '.join(first.tasks)}) and {other.name} ({other.folder}: "
                f"{', '.join(other.tasks)}) have no sample in common: evaluate both on the same task"
            )


def _title(runs: Sequence[Run]) -> str:
    names = " and ".join(run.name for run in runs)
    return f"Evaluation of {names}" if len(runs) <= 2 else f"Evaluation of {len(runs)} runs"
