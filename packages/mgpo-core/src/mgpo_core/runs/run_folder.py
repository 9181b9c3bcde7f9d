"""The output folder of a training or an evaluation, opened to look at its trajectories one by one.

Only a light index is kept; a trajectory is read when its card is asked for. Nothing inside a folder is read through a
symbolic link, since what is looked at may be somebody else's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mgpo_core.errors import MGPOError
from mgpo_core.files.json_lines import MALFORMED_RECORD, json_at, numbered_lines, reason
from mgpo_core.files.output_folder import RUN_FILE
from mgpo_core.render.card import Card, card_flags
from mgpo_core.runs.evaluation_runs import ResultsError, evaluation_files, is_sample_log, output_folder, read_runs
from mgpo_core.runs.response_payload import ResponsePayload
from mgpo_core.runs.sample_card import category_facts, has_card, sample_card
from mgpo_core.runs.sample_log import SampleResult, TaskResult
from mgpo_core.runs.trajectory_log import TRAJECTORIES_FILE

__all__ = [
    "CONFIG_FILE",
    "CURVES",
    "METRICS_FILE",
    "Entry",
    "RunFolder",
    "RunFolderError",
    "open_run",
    "run_files",
    "run_folder_of",
]

METRICS_FILE, CONFIG_FILE = "metrics.jsonl", "config.json"
"""Files of a training run: a line of metrics a step, and the options of one of a version before `run.json`."""

_BUILD_FILE = "build.json"
"""What build-trajectories of that version left beside a trajectories.jsonl that holds training data."""

CURVES = ("reward", "hit_rate", "accuracy", "valid_box_rate")
"Metrics of a training step that are read as curves, where the run has them."

_TRAINING_FILES = (TRAJECTORIES_FILE, METRICS_FILE, RUN_FILE, CONFIG_FILE)
_TITLE = ("method", "template", "model")


class RunFolderError(MGPOError, ValueError):
    """A folder that is no run's, or one that changed while it was read; the message names it and the remedy."""


@dataclass(frozen=True)
class Entry:
    """One trajectory of a run: where it stands, and what filters go by."""

    id: str
    "The sample's name."
    part: str
    "The part of the training that it is from, or the task."
    flags: Mapping[str, bool]
    "As `render.card.card_flags`: right, wrong, refused, missed."
    file: Path
    offset: int
    "Where in the file its line begins, in bytes."
    _read: Callable[[], Card] = field(repr=False, compare=False)

    def card(self) -> Card:
        """The trajectory with its images and its verdict, read now; RunFolderError when it cannot be any more."""
        try:
            return self._read()
        except (*MALFORMED_RECORD, OSError) as error:
            what = reason(error)
        raise RunFolderError(
            f"{self.id} cannot be read from {self.file.name} ({what}): was the file rewritten? open the run again"
        )


@dataclass
class RunFolder:
    """A run: its trajectories, how it went, and what could not be read of it."""

    folder: Path
    kind: Literal["training", "evaluation"]
    title: str
    entries: list[Entry] = field(default_factory=list)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    "Metric -> (step, value), of a training; those of `CURVES` that were logged."
    problems: list[str] = field(default_factory=list)
    "What could not be read or is not shown, one text each."
    stamp: frozenset[tuple[str, int, int]] = frozenset()
    "Name, time and size of its files when they were read."

    @property
    def parts(self) -> list[str]:
        """The parts or tasks, in the order of the entries."""
        return list(dict.fromkeys(entry.part for entry in self.entries))

    @property
    def changed(self) -> bool:
        """Whether its files are not those that were read: open it again."""
        return _stamp(run_files(self.folder)) != self.stamp


def open_run(folder: str | os.PathLike[str]) -> RunFolder:
    """Read the index of a run's output folder.

    A training is known by its trajectories.jsonl or metrics.jsonl, an evaluation by lmms-eval's sample logs anywhere
    below the folder. RunFolderError for any other folder.
    """
    folder = Path(folder)
    files = run_files(folder)
    if not files:
        raise RunFolderError(
            f"{folder} holds no run: give the --output_dir of mgpo-train (with {TRAJECTORIES_FILE}) or the "
            "--output_path of an evaluation with --log_samples (with *_samples_*.jsonl below it)"
        )
    for file in files:
        if file.is_symlink():
            raise RunFolderError(
                f"{file.relative_to(folder)} in {folder} is a symbolic link, which is not followed: put the file there"
            )
    stamp = _stamp(files)  # before reading: what is written meanwhile counts as a change
    run = _training(folder) if _is_training(folder) else _evaluation(folder)
    run.stamp = stamp
    run.problems = [text.replace(f"{folder}{os.sep}", "") for text in run.problems]
    return run


def run_files(folder: Path) -> list[Path]:
    """The files that make a folder a run's: of a training, else of evaluations below it; empty when it is none."""
    if _is_training(folder):
        return [path for name in _TRAINING_FILES if (path := folder / name).is_file()]
    logs = evaluation_files(folder) if folder.is_dir() else []
    return logs if any(path.suffix == ".jsonl" for path in logs) else []


def run_folder_of(folder: Path, names: Collection[str]) -> Path | None:
    """The run's folder that a folder with these files is, or belongs to; None when they are no run's."""
    if (TRAJECTORIES_FILE in names or METRICS_FILE in names) and _BUILD_FILE not in names:
        return folder
    return output_folder(folder) if any(is_sample_log(name) for name in names) else None


def _is_training(folder: Path) -> bool:
    found = any((folder / name).is_file() for name in (TRAJECTORIES_FILE, METRICS_FILE))
    return found and not (folder / _BUILD_FILE).is_file()


def _stamp(files: list[Path]) -> frozenset[tuple[str, int, int]]:
    found = set()
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue  # gone since it was listed: another stamp
        found.add((str(file), status.st_mtime_ns, status.st_size))
    return frozenset(found)


def _training(folder: Path) -> RunFolder:
    run = RunFolder(folder, "training", _training_title(folder))
    run.curves = _curves(folder / METRICS_FILE, run.problems)
    path = folder / TRAJECTORIES_FILE
    if not path.is_file():
        run.problems.append(
            f"No trajectories yet: {TRAJECTORIES_FILE} is written with report.html, every report_every steps and at "
            "the end; a run of a version before it has report.html only"
        )
        return run
    for number, offset, line in numbered_lines(path):
        try:
            run.entries.append(_training_entry(folder, path, offset, json.loads(line)))
        except MALFORMED_RECORD as error:
            run.problems.append(f"{path.name}, line {number}: {reason(error)}; left out")
    return run


def _training_entry(folder: Path, path: Path, offset: int, record: Mapping[str, Any]) -> Entry:
    trajectory = ResponsePayload("", record).trajectory()  # grey images: none is decoded for the index
    if trajectory is None:
        raise ValueError("no trajectory in it")
    part, name = str(record["part"]), str(trajectory.sample_id)
    flags = card_flags(Card.of(trajectory))
    return Entry(name, part, flags, path, offset, partial(_training_card, folder, path, offset, (part, name)))


def _training_card(folder: Path, path: Path, offset: int, expected: tuple[str, str]) -> Card:
    record = json_at(path, offset)
    trajectory, problem = ResponsePayload("", record).trajectory_as_kept(folder)
    if trajectory is None or (str(record["part"]), str(trajectory.sample_id)) != expected:
        raise ValueError("another trajectory stands there")
    facts = [("part", expected[0], "")]
    if problem:
        facts.append(("images", problem, "bad"))
    return Card(trajectory, trajectory.correct, trajectory.hit, facts=tuple(facts))


def _training_title(folder: Path) -> str:
    """What the run's options say it is; its folder's name where they cannot be read."""
    try:
        options = _options(folder)
        control = options.get("reward_control", "none")
        words = [*(_short(str(options[name])) for name in _TITLE), f"seed {options['seed']}"]
        return ", ".join(words + ([] if control == "none" else [f"rewards: {control}"]))
    except (*MALFORMED_RECORD, OSError):
        return folder.resolve().name


def _options(folder: Path) -> Mapping[str, Any]:
    if (folder / RUN_FILE).is_file():
        return dict(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["options"])
    return dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["same_on_resume"])


def _short(name: str) -> str:
    """A model's name, of a folder the end of its path: where it lay is nobody's business but its owner's."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() else name


def _curves(path: Path, problems: list[str]) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in CURVES}
    for number, _, line in numbered_lines(path) if path.is_file() else ():
        try:
            row = json.loads(line)
            step = int(row["step"])
            values = {name: float(row[name]) for name in CURVES if row.get(name) is not None}  # null: not defined
        except MALFORMED_RECORD as error:
            problems.append(f"{path.name}, line {number}: {reason(error)}; left out")
            continue
        for name, value in values.items():
            if math.isfinite(value):
                found[name].append((step, value))
    return {name: points for name, points in found.items() if points}


def _evaluation(folder: Path) -> RunFolder:
    try:
        runs = read_runs([folder])
    except ResultsError as error:
        raise RunFolderError(str(error)) from error
    run = RunFolder(folder, "evaluation", "; ".join(found.name for found in runs))
    for found in runs:
        run.problems += found.notes
        root = found.root if found.root.is_relative_to(folder) else folder
        for task in found.tasks.values():
            part = task.name if len(runs) == 1 else f"{task.name}, {found.name}"
            run.problems += task.broken
            run.entries += _task_entries(task, part, root)
            if blank := sum(not has_card(sample) for sample in task.samples.values()):
                run.problems.append(f"{part}: {blank} samples have no trajectory in the log, and are not shown")
    return run


def _task_entries(task: TaskResult, part: str, root: Path) -> Iterator[Entry]:
    for sample in task.samples.values():
        if has_card(sample):
            name = f"{task.name}/{sample.doc_id}"
            facts = (("task", part, ""), *category_facts(sample))
            read = partial(sample_card, task, sample, root, name=name, facts=facts)
            yield Entry(name, part, _sample_flags(task, sample), sample.file, sample.offset, read)


def _sample_flags(task: TaskResult, sample: SampleResult) -> dict[str, bool]:
    right = task.right(sample)
    missed = sample.hit is False and not sample.refused
    return {"right": right is True, "wrong": right is False, "refused": sample.refused, "missed": missed}
