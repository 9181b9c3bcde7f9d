"""The runs that a report is about: chosen by the words on the command line, and lettered."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from mgpo_core.evaluation_runs import ResultsError, Run

__all__ = ["choose_runs", "lettered"]


def choose_runs(runs: Sequence[Run], wanted: Sequence[str]) -> list[Run]:
    """The wanted runs in the order asked for: by their letter in this order, by name, id, date or folder.

    ResultsError unless each word is of just one run.
    """
    chosen = [_chosen(lettered(runs), word) for word in wanted]
    if len({id(run) for run in chosen}) < len(chosen):
        raise ResultsError(f"the runs {', '.join(wanted)} are not all different: name each run once")
    return chosen


def lettered(runs: Sequence[Run]) -> dict[str, Run]:
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
