"""`report.html`: what evaluations came to, how runs differ, where the model looked; one page, without a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from mgpo_core.evaluation_runs import ResultsError, Run, read_runs
from mgpo_core.report_page import refuse_other_page, write_gallery
from mgpo_core.token_view import escape
from mgpo_eval.baseline import describe_baseline
from mgpo_eval.comparison import compare_runs
from mgpo_eval.difference_tables import comparison_section
from mgpo_eval.gallery import choose_exhibits, exhibits_of, gallery_items
from mgpo_eval.report_tables import gallery_note, notes_section, settings_section
from mgpo_eval.results import lettered, order_runs
from mgpo_eval.score_tables import score_section

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
    by_letter = lettered(chosen)
    if len(folders) > 1 or runs:
        _check_in_common(chosen)
    exhibits = exhibits_of(by_letter)
    shown = choose_exhibits(exhibits, samples)
    several = len(chosen) > 1
    stated = describe_baseline(by_letter, reason) if several else ""
    header = (
        f"{_overview(by_letter)}{notes_section(by_letter)}{comparison_section(by_letter, stated)}"
        f"{score_section(by_letter)}{settings_section(by_letter)}"
        f'<section class="part" id="gallery"><h2>Trajectories</h2>{gallery_note(shown, exhibits)}</section>'
    )
    names = {letter: run.name for letter, run in by_letter.items()} if several else None
    write_gallery(page, gallery_items(shown, several=several), _title(chosen), header, runs=names)
    if several:
        tell(stated)
    return page


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


def _overview(runs: Mapping[str, Run]) -> str:
    """Which runs these are, and links to the parts of the page."""
    several = len(runs) > 1
    lines = "".join(
        f"<li>{f'<span class=run>{letter}</span> ' if several else ''}<b>{escape(run.name)}</b> "
        f"<small>{run.samples} samples of {len(run.tasks)} task{'s' if len(run.tasks) > 1 else ''} "
        f"({escape(', '.join(run.tasks))}), {escape(', '.join(run.dates))}</small></li>"
        for letter, run in runs.items()
    )
    parts = ["comparison"] * several + ["scores", "settings", "gallery"]
    words = {"gallery": "Trajectories"}
    links = "".join(f'<a href="#{part}">{words.get(part, part.capitalize())}</a>' for part in parts)
    return f'<ul class="runs-list">{lines}</ul><nav class="contents" aria-label="Parts of the page">{links}</nav>'
