"""Results folders of lmms-eval, read into runs.

A run is what one model with one set of settings did, in however many evaluations: the sample logs of a folder belong
together when their envelopes name the same run (logs without envelopes: the same model, arguments and generation
settings). Of a task that was evaluated twice in a run, the newer counts.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgpo_core.errors import MGPOError
from mgpo_core.files.output_folder import RUN_FILE
from mgpo_core.files.safe_join import path_below
from mgpo_core.runs.sample_log import TaskResult, read_task

__all__ = [
    "FOLDER",
    "RUN_FILE",
    "ResultsError",
    "Run",
    "evaluation_files",
    "is_evaluation_file",
    "is_sample_log",
    "output_folder",
    "read_runs",
]

FOLDER = "mgpo"
"""The folder below lmms-eval's output in which runs keep samples, images and settings (`run.json`)."""

_OLD_SINGLE_TURN = "direct"
"""What older versions wrote in `run.json` for `mode=single_turn`."""

_RESULTS = re.compile(r"(?P<date>.+)_results\.json")
_SAMPLES = re.compile(r"(?P<date>.+?)_samples_(?P<task>.+)\.jsonl")


class ResultsError(MGPOError, ValueError):
    """Results that cannot be read or compared; the message names the folder or file and the remedy."""


@dataclass
class Run:
    """What one model with one set of settings did."""

    folder: Path
    "The folder that was asked for."
    root: Path
    "The folder that lmms-eval wrote into; images lie below it."
    id: str | None
    "The id in its envelopes; None for a model that writes none."
    provenance: Mapping[str, Any]
    "The content of run.json; empty where there is none."
    model: str
    "The folder that lmms-eval named after the model."
    dates: list[str] = field(default_factory=list)
    "Of its evaluations, oldest first."
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    "lmms-eval's own `config` and version, of the newest evaluation."
    notes: list[str] = field(default_factory=list)
    "What a reader must know about how the run was put together."
    name: str = ""
    "What tells it from the other runs of the report."

    @property
    def samples(self) -> int:
        """How many samples were read, over all tasks."""
        return sum(len(task.samples) for task in self.tasks.values())


def read_runs(folders: Sequence[Path], tasks: Collection[str] = ()) -> list[Run]:
    """The runs of the folders in their order, those of one folder by date, named; `tasks` keeps only these.

    ResultsError for a folder without results, without sample logs or without a readable sample (of these tasks).
    """
    runs = [run for folder in folders for run in _runs_of(Path(folder), tasks)]
    _give_names(runs)
    return runs


@dataclass
class _Evaluation:
    """The files of one call of lmms-eval."""

    date: str
    folder: Path
    results: Path | None = None
    logs: dict[str, Path] = field(default_factory=dict)


def _runs_of(folder: Path, wanted: Collection[str]) -> list[Run]:
    if not folder.is_dir():
        raise ResultsError(f"{folder} is not a directory: give the one that was lmms-eval's --output_path")
    evaluations = _find(folder)
    if not evaluations:
        raise ResultsError(
            f"{folder} holds no results of lmms-eval (no *_results.json below it): give the folder that was its "
            "--output_path, of an evaluation with --log_samples"
        )
    logged = [evaluation for evaluation in evaluations if evaluation.logs]
    if not logged:
        raise ResultsError(
            f"{folder} holds averages but no samples (no *_samples_*.jsonl beside {evaluations[0].results}): evaluate "
            "again with --log_samples"
        )
    runs: dict[str, Run] = {}
    for evaluation in logged:
        _add(runs, evaluation, folder, wanted)
    found = [run for run in runs.values() if run.samples]
    if not found:
        raise ResultsError(_nothing_read(folder, logged, list(runs.values()), wanted))
    for run in runs.values():
        if not run.samples:
            found[0].notes.append(f"Left out, as none of its samples can be read: {', '.join(_broken([run]))}.")
    left_out = [str(evaluation.results) for evaluation in evaluations if not evaluation.logs]
    if left_out:
        found[0].notes.append(f"Left out, as evaluated without --log_samples: {', '.join(left_out)}.")
    return found


def _broken(runs: Sequence[Run]) -> list[str]:
    return [text for run in runs for task in run.tasks.values() for text in task.broken]


def _nothing_read(folder: Path, logged: list[_Evaluation], runs: list[Run], wanted: Collection[str]) -> str:
    broken = _broken(runs)
    if broken:
        return f"{folder} holds no sample that can be read ({len(broken)} broken lines: {broken[0]}): evaluate again"
    names = sorted({task for evaluation in logged for task in evaluation.logs})
    asked = f" of {', '.join(wanted)}" if wanted else ""
    return f"{folder} holds no sample{asked}: its logs are of {', '.join(names)}"


def is_sample_log(name: str) -> bool:
    """Whether a file of this name is a sample log of lmms-eval."""
    return _SAMPLES.fullmatch(name) is not None


def is_evaluation_file(name: str) -> bool:
    """Whether a file of this name is a sample log or a results file of lmms-eval."""
    return is_sample_log(name) or _RESULTS.fullmatch(name) is not None


def evaluation_files(folder: Path) -> list[Path]:
    """Every results file and sample log below a folder, by date."""
    return [
        path
        for evaluation in _find(folder)
        for path in (evaluation.results, *evaluation.logs.values())
        if path is not None
    ]


def _find(folder: Path) -> list[_Evaluation]:
    """The evaluations below a folder, oldest first; our own folders, full of images, are not walked."""
    found: dict[tuple[str, str], _Evaluation] = {}
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if name != FOLDER]
        for name in names:
            samples, results = _SAMPLES.fullmatch(name), _RESULTS.fullmatch(name)
            match = samples or results
            if match is None:
                continue
            evaluation = found.setdefault((match["date"], place), _Evaluation(match["date"], Path(place)))
            if samples is not None:
                evaluation.logs[samples["task"]] = Path(place, name)
            else:
                evaluation.results = Path(place, name)
    return [found[key] for key in sorted(found)]


def _add(runs: dict[str, Run], evaluation: _Evaluation, folder: Path, wanted: Collection[str]) -> None:
    """Read an evaluation into the run that it belongs to; the newer ones come later."""
    notes: list[str] = []
    report = _read_report(evaluation, notes)
    names = sorted(name for name in evaluation.logs if not wanted or name in wanted)
    tasks = {name: read_task(name, evaluation.logs[name], report) for name in names}
    if not tasks:
        return
    run_id = _run_id(tasks, evaluation, notes)
    config = report.get("config") or {}
    key = run_id or json.dumps(
        [str(evaluation.folder), *(config.get(name) for name in ("model", "model_args", "gen_kwargs"))], default=str
    )
    if key not in runs:
        root = output_folder(evaluation.folder)
        runs[key] = Run(folder, root, run_id, _provenance(root, run_id, notes), evaluation.folder.name)
    run = runs[key]
    again = [name for name in tasks if name in run.tasks]
    run.notes += [f"{name} was evaluated more than once: {evaluation.date} counts." for name in again] + notes
    run.dates.append(evaluation.date)
    run.tasks |= tasks
    if report:
        run.settings = {**config, "lmms_eval_version": report.get("lmms_eval_version")}


def _run_id(tasks: Mapping[str, TaskResult], evaluation: _Evaluation, notes: list[str]) -> str | None:
    """The run that the envelopes name, the one of most samples if several."""
    ids = Counter(sample.run_id for task in tasks.values() for sample in task.samples.values() if sample.run_id)
    if len(ids) > 1:
        shares = ", ".join(f"{count} by {name}" for name, count in ids.most_common())
        notes.append(f"The logs of {evaluation.date} hold samples of several runs ({shares}): from a response cache?")
    return ids.most_common(1)[0][0] if ids else None


def output_folder(folder: Path) -> Path:
    """The output folder above a log: lmms-eval puts a folder named after the model between, if it knows its name."""
    return next((place for place in (folder, folder.parent) if (place / FOLDER).is_dir()), folder)


def _read_report(evaluation: _Evaluation, notes: list[str]) -> Mapping[str, Any]:
    if evaluation.results is None:
        notes.append(f"No results file beside the logs of {evaluation.date}: lmms-eval's averages are not compared.")
        return {}
    try:
        return dict(json.loads(evaluation.results.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        notes.append(f"{evaluation.results} is broken ({error}): lmms-eval's averages are not compared.")
        return {}


def _provenance(root: Path, run_id: str | None, notes: list[str]) -> Mapping[str, Any]:
    if run_id is None:
        return {}
    path = path_below(root, f"{FOLDER}/{run_id}/{RUN_FILE}")
    if path is None:
        notes.append(f"The settings of run {run_id!r} are not known: that is not the name of a folder.")
        return {}
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
        return found | {"mode": "single_turn"} if found.get("mode") == _OLD_SINGLE_TURN else found
    except (OSError, TypeError, ValueError) as error:
        notes.append(f"The settings of run {run_id} are not known: {path} cannot be read ({error}).")
        return {}


def _give_names(runs: Sequence[Run]) -> None:
    """Name each run by its weights, or lmms-eval's name of the model; then by what else tells the same ones apart."""
    for run in runs:
        weights = run.provenance.get("weights") or {}
        run.name = str(weights.get("name") or run.settings.get("model") or run.model)
    for part in (_mode, _template, _budget, lambda run: run.folder.name, lambda run: run.dates[-1], lambda run: run.id):
        for name in {run.name for run in runs}:
            same = [run for run in runs if run.name == name]
            if len({part(run) for run in same}) > 1:
                for run in same:
                    run.name = f"{name} {part(run)}"


def _template(run: Run) -> str:
    template = run.provenance.get("template", "template not known")
    return " and ".join(dict.fromkeys(template.values())) if isinstance(template, Mapping) else str(template)


def _mode(run: Run) -> str:
    return str(run.provenance.get("mode", "mode not known"))


def _budget(run: Run) -> str:
    return f"up to {(run.provenance.get('budget') or {}).get('max_pixels', 'unknown')} pixels"
