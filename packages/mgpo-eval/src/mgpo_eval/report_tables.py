"""The other parts of a results report, as HTML: settings, what is not as it should be, what can be browsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mgpo_core.evaluation_runs import Run
from mgpo_core.token_view import escape
from mgpo_eval.comparison import flat_provenance
from mgpo_eval.gallery import KINDS, Exhibit
from mgpo_eval.report_html import run_html, table_html

__all__ = ["gallery_note", "notes_section", "settings_section"]

_SETTINGS = ("lmms_eval_version", "model", "model_args", "gen_kwargs", "limit")
"What is shown of lmms-eval's own configuration."

_KIND_WORDS = {
    "changed": "changed between runs",
    "wrong": "wrong",
    "refused": "invalid box",
    "missed": "box missed",
    "right": "right",
}


def settings_section(runs: Mapping[str, Run]) -> str:
    """What each run was made with, one column a run; what differs is marked."""
    columns = {short: _settings(run) for short, run in runs.items()}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = []
    for name in names:
        groups = [column.get(name, {}) for column in columns.values()]
        cells = "".join(f"<td>{_values(group, groups) or '–'}</td>" for group in groups)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    head = ["Setting", *(f"{short}: {run.name}" if len(runs) > 1 else run.name for short, run in runs.items())]
    return f'<section class="part" id="settings"><h2>Settings</h2>{table_html(head, rows, "settings")}</section>'


def _values(group: Mapping[str, str], groups: Sequence[Mapping[str, str]]) -> str:
    """One run's values of a group of settings, those marked that another run has otherwise."""
    parts = []
    for name, value in group.items():
        differs = any(other.get(name) != value for other in groups)
        label = f"<small>{escape(name)}</small> " if name else ""
        parts.append(f"<span{' class=differs' if differs else ''}>{label}{escape(value or 'none')}</span>")
    return " ".join(parts)


def _settings(run: Run) -> dict[str, dict[str, str]]:
    """Settings by group, then by name within it (empty for a group of one value)."""
    found: dict[str, dict[str, str]] = {}
    for name, value in flat_provenance(run.provenance).items():
        group, _, rest = name.partition(".")
        found.setdefault(group, {})[rest] = value
    own = {name: str(run.settings[name]) for name in _SETTINGS if run.settings.get(name) not in (None, "")}
    return found | {"lmms-eval": own, "evaluated": {"": ", ".join(run.dates)}, "folder": {"": str(run.folder)}}


def notes_section(runs: Mapping[str, Run]) -> str:
    """What was skipped, broken, repeated, or has no trajectory; empty where nothing was."""
    texts = [(short, text) for short, run in runs.items() for text in _notes(run)]
    if not texts:
        return ""
    marks = {short: f"{run_html(short)} " if len(runs) > 1 else "" for short in runs}
    items = "".join(f"<li>{marks[short]}{escape(text)}</li>" for short, text in texts)
    return f'<section class="part" id="notes"><h2>Notes</h2><ul class="warning">{items}</ul></section>'


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


def gallery_note(shown: Sequence[Exhibit], exhibits: Sequence[Exhibit]) -> str:
    """How many samples of how many the page shows, per kind."""
    if not exhibits:
        return '<p class="warning">There is no trajectory to browse: these logs hold answers only.</p>'
    kinds = [(kind, sum(exhibit.flags[kind] for exhibit in exhibits)) for kind in KINDS]
    counts = ", ".join(
        f"{_KIND_WORDS[kind]} {sum(exhibit.flags[kind] for exhibit in shown)} of {total}"
        for kind, total in kinds
        if total
    )
    how = "" if len(shown) == len(exhibits) else ", chosen evenly so that every kind is there; --samples shows more"
    return f"<p>{len(shown)} of {len(exhibits)} samples are shown{how}: {counts}.</p>"
