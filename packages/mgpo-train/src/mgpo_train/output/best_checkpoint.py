"""`OUT/best/`: the weights with the best score so far, whole whenever the folder is there, and right after a kill.

A run that is killed goes on from its last checkpoint, and what was best at that step may have been replaced since. It
is therefore kept in `best.before/` until a checkpoint has been written after its successor, and comes back with the
checkpoint.

transformers' `save_strategy="best"` keeps a whole checkpoint, not a model that can be published, and loses what was
best at the checkpoint that a killed run resumes from; test_best_checkpoint.py kills a run at every disk operation.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgpo_core.files.output_folder import OutputRecord
from mgpo_train.output.summary import write_json

BEST_FOLDER, BEST_FILE = "best", "best.json"
_BEFORE, _PART, _OLD = "best.before", "best.part", "best.old"
FOLDERS = (BEST_FOLDER, _BEFORE, _PART, _OLD)
"""All folders that may be left in the folder of a run."""


@dataclass(frozen=True)
class Best:
    """The best score so far, and the step after which the weights had it."""

    step: int
    metric: str
    value: float

    def beaten_by(self, value: float) -> bool:
        """Whether a later score is better; of equal ones the first stays."""
        return math.isfinite(value) and value > self.value


def best_of(rows: Iterable[Mapping[str, Any]], metric: str, column: str) -> Best | None:
    """The best among the rows of a metrics file, where `column` holds the metric."""
    best: Best | None = None
    for row in rows:
        value = row.get(column)
        if value is not None and (best is None or best.beaten_by(value)):
            best = Best(row["step"], metric, value)
    return best


def read_best(folder: Path) -> dict[str, Any] | None:
    """`best.json` of a folder that is whole; it is written last. None for any other."""
    path = folder / BEST_FILE
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


class BestFolder:
    """Keeps `best/` in the folder of a run; for the main process alone.

    `record` gives the record of the folder, where there is one: then only files that the run wrote are removed, and
    what somebody put beside them stays in `best/`.
    """

    def __init__(self, out: Path, record: Callable[[], OutputRecord | None] = lambda: None) -> None:
        self.out, self._record = out, record
        self.saved_step = 0
        """The step that a killed run would go on from."""

    @property
    def part(self) -> Path:
        """Where the weights of a new best go first."""
        return self.out / _PART

    def resume(self, step: int, best_at: Callable[[str], Best | None]) -> Best | None:
        """Bring back what was best at the checkpoint of `step`, and give its record; None when nothing is kept.

        `best_at` finds the best of a metric in the metrics file, which ends at `step`. Where its weights are gone (the
        newest checkpoint was lost), `best/` stays as it is until something better comes.
        """
        self.saved_step = step
        whole = [self.out / name for name in FOLDERS if read_best(self.out / name)]
        if not whole:
            return None
        found = best_at(_record(whole[0])["metric"])
        right = [folder for folder in whole if found is not None and _record(folder)["step"] == found.step]
        chosen = (right or whole)[0]
        if chosen.name != BEST_FOLDER:
            self._remove(BEST_FOLDER)
            chosen.rename(self.out / BEST_FOLDER)
        for name in FOLDERS[1:]:
            self._return_others(name)
            self._remove(name)
        return found

    def replace(self, best: Best, scores: Mapping[str, float]) -> None:
        """Make what was written into `part` the folder `best/`, with its record."""
        record = {"step": best.step, "metric": best.metric, "value": best.value, "scores": dict(scores)}
        write_json(self.part / BEST_FILE, record)
        if (folder := self._record()) is not None:
            folder.done(_PART)
        now = read_best(self.out / BEST_FOLDER)
        if now is not None and now["step"] <= self.saved_step:
            self._remove(_BEFORE)
            self._give_way(_BEFORE)
            (self.out / BEST_FOLDER).rename(self.out / _BEFORE)
        else:
            self._remove(BEST_FOLDER)
        self._give_way(BEST_FOLDER)
        self.part.rename(self.out / BEST_FOLDER)
        for name in (_BEFORE, _OLD):
            self._return_others(name)

    def saved(self, step: int) -> None:
        """A checkpoint was written: a killed run goes on from there, with `best/` as it is."""
        self.saved_step = step
        self._remove(_BEFORE)

    def clear_part(self) -> None:
        """Remove what a kill left half written, and say that `part` is about to be written."""
        self._remove(_PART)
        if (record := self._record()) is not None:
            record.begin(_PART)

    def _remove(self, name: str) -> None:
        """Remove a folder; a kill on the way leaves none that passes for whole, and no half of `best/`."""
        folder = self.out / name
        if not folder.is_dir():
            return
        if name == BEST_FOLDER:
            self._remove(_OLD)
            self._give_way(_OLD)
            folder = folder.rename(self.out / _OLD)
        record = self._record()
        if record is None:
            (folder / BEST_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder)
            return
        record.remove(f"{folder.name}/{BEST_FILE}")
        record.remove(folder.name)

    def _give_way(self, name: str) -> None:
        """Rename what is not the run's, and would be in the way of a folder, to NAME.kept."""
        if (record := self._record()) is not None and (self.out / name).exists():
            record.set_aside(name)

    def _return_others(self, name: str) -> None:
        """Put what is not the run's, and went along when `best/` was renamed, back into it."""
        folder, record = self.out / name, self._record()
        if record is None or not folder.is_dir() or not (self.out / BEST_FOLDER).is_dir():
            return
        for place in record.others(name):
            target = self.out / BEST_FOLDER / Path(place).relative_to(name)
            if not os.path.lexists(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.out / place).rename(target)


def _record(folder: Path) -> dict[str, Any]:
    record = read_best(folder)
    assert record is not None  # asked for whole folders alone
    return record
