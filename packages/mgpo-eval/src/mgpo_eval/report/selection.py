"""The runs of a report: chosen by the words on the command line, the baseline first, labelled by letters."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from mgpo_core.runs.evaluation_runs import ResultsError, Run
from mgpo_eval.report.baseline import baseline_first

__all__ = ["choose_runs", "label_runs", "order_runs"]


def order_runs(found: Sequence[Run], wanted: Sequence[str] = (), baseline: str | None = None) -> tuple[list[Run], str]:
    """The runs of a report, the baseline first, and why it is the baseline.

    It is the run called `baseline`, else the first of the `wanted`, else what `baseline_first` finds. Letters in these
    words are those of a page on all that was found. ResultsError unless each word is of just one run.
    """
    runs, reason = baseline_first(found)
    chosen = choose_runs(runs, wanted) if wanted else runs
    if wanted:
        reason = "named first in --runs"
    if baseline is not None:
        [first] = choose_runs(runs, [baseline])
        if first not in chosen:
            raise ResultsError(f"--baseline {baseline}: not among the runs {', '.join(wanted)}; add it to --runs")
        chosen, reason = [first, *(run for run in chosen if run is not first)], "named by --baseline"
    return chosen, reason


def choose_runs(runs: Sequence[Run], wanted: Sequence[str]) -> list[Run]:
    """The wanted runs in the order asked for: by their letter in this order, by name, id, date or folder.

    ResultsError unless each word is of just one run.
    """
    chosen = [_chosen(label_runs(runs), word) for word in wanted]
    if len({id(run) for run in chosen}) < len(chosen):
        raise ResultsError(f"the runs {', '.join(wanted)} are not all different: name each run once")
    return chosen


def label_runs(runs: Sequence[Run]) -> dict[str, Run]:
    """The runs by the letters that a report gives them, A being the first; ResultsError for more than 26."""
    if len(runs) > len(string.ascii_uppercase):
        raise ResultsError(f"{len(runs)} runs are too many for a page: report on some of the folders at a time")
    return dict(zip(string.ascii_uppercase, runs, strict=False))


def _chosen(runs: Mapping[str, Run], word: str) -> Run:
    found = [run for letter, run in runs.items() if word in (letter, run.name, run.id, str(run.folder), *run.dates)]
    found = found or [run for run in runs.values() if run.id is not None and run.id.startswith(word)]
    if len(found) != 1:
        known = "; ".join(
            f"{letter}: {run.name} (id {run.id}, {', '.join(run.dates)}, {run.folder})" for letter, run in runs.items()
        )
        raise ResultsError(f"{'no run is' if not found else 'more than one run is'} called {word!r}: there are {known}")
    return found[0]
