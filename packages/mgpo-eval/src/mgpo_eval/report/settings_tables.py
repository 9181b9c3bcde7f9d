"""What each run was made with, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mgpo_core.runs.evaluation_runs import Run
from mgpo_eval.report.comparison import flat_provenance

__all__ = ["run_notes", "setting_columns"]

_SETTINGS = ("lmms_eval_version", "model", "model_args", "gen_kwargs", "limit")
"What is shown of lmms-eval's own configuration."


def setting_columns(runs: Mapping[str, Run]) -> dict[str, Any]:
    """The settings of each run, one column a run: rows of (group, per run a list of (name, value, differs))."""
    columns = [_settings(run) for run in runs.values()]
    rows = []
    for group in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(group, {}) for column in columns]
        rows.append((group, [_compared(one, values) for one in values]))
    head = ["Setting", *(f"{short}: {run.name}" if len(runs) > 1 else run.name for short, run in runs.items())]
    return {"head": head, "rows": rows}


def _compared(group: Mapping[str, str], groups: Sequence[Mapping[str, str]]) -> list[tuple[str, str, bool]]:
    """One run's values of a group of settings, and whether another run has them otherwise."""
    return [(name, value, any(other.get(name) != value for other in groups)) for name, value in group.items()]


def _settings(run: Run) -> dict[str, dict[str, str]]:
    """Settings by group, then by name within it (empty for a group of one value)."""
    found: dict[str, dict[str, str]] = {}
    for name, value in flat_provenance(run.provenance).items():
        group, _, rest = name.partition(".")
        found.setdefault(group, {})[rest] = value
    own = {name: str(run.settings[name]) for name in _SETTINGS if run.settings.get(name) not in (None, "")}
    return found | {"lmms-eval": own, "evaluated": {"": ", ".join(run.dates)}, "folder": {"": str(run.folder)}}


def run_notes(runs: Mapping[str, Run]) -> list[tuple[str, str]]:
    """(short name of the run, note) of all that was skipped, broken, repeated, or has no trajectory."""
    return [(short, text) for short, run in runs.items() for text in _notes(run)]


def _notes(run: Run) -> Iterator[str]:
    yield from run.notes
    for task in run.tasks.values():
        samples = list(task.samples.values())
        skips = [f"{sample.doc_id}: {sample.skipped}" for sample in samples if sample.skipped is not None]
        yield from _listed(
            f"{task.name}: {len(skips)} of {len(samples)} samples were skipped and are scored as logged", skips
        )
        yield from _listed(f"{task.name}: {len(task.broken)} broken lines", task.broken)
        if task.repeated:
            yield f"{task.name}: {task.repeated} lines repeat a document that was there before; the first counts."
        several = sum(sample.responses > 1 for sample in samples)
        if several:
            yield f"{task.name}: {several} samples have several responses; the trajectories are of the first."
        bare = sum(not sample.played and sample.skipped is None for sample in samples)
        if bare:
            yield (
                f"{task.name}: {bare} of {len(samples)} samples have no trajectory that can be read (another model's "
                "log, or response=answer): their scores count, and there is nothing of them to browse."
            )


def _listed(text: str, cases: Sequence[str], most: int = 5) -> Iterator[str]:
    """The text with the first few cases; nothing without any."""
    if cases:
        more = f"; and {len(cases) - most} more" if len(cases) > most else ""
        yield f"{text}: {'; '.join(cases[:most])}{more}."
