"""The folder of a build: rows that the data reader takes, pictures that were made, and what was left out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mgpo_core.boxes import Box
from mgpo_core.regions import Solution
from mgpo_core.sample import ImageSource, load_image
from mgpo_train.options import ConfigError
from mgpo_train.summary import versions, write_json
from mgpo_train.trajectories.outcomes import Outcome
from mgpo_train.trajectories.readers import Annotations

__all__ = ["DROPPED", "JOURNAL", "REPORT", "TRAJECTORIES", "OutputFolder"]

TRAJECTORIES, DROPPED, REPORT, JOURNAL = "trajectories.jsonl", "dropped.jsonl", "report.json", "teacher.jsonl"
_SETTINGS, _IMAGES = "build.json", "images"
MAY_CHANGE = ("concurrency", "attempts", "teacher_url")
"""Settings with which a build may go on: they decide how it is made, or how far, not what it is."""
_MESSAGES = 200
"""So many messages about what was left out stand in the report; the numbers count all."""


class OutputFolder:
    """Where one build writes; a build with other settings is not mixed into it."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path, self.settings = path, dict(settings)
        self._start(overwrite)

    def _start(self, overwrite: bool) -> None:
        file = self.path / _SETTINGS
        if file.is_file():
            then = json.loads(file.read_text("utf-8"))
            changed = [
                name for name in self.settings if name not in MAY_CHANGE and then.get(name) != self.settings[name]
            ]
            if changed and not overwrite:
                listed = ", ".join(f"{name} was {then.get(name)!r} and is {self.settings[name]!r}" for name in changed)
                raise ConfigError(
                    f"output={str(self.path)!r} holds another build ({listed}): give the same options to go on with "
                    "it, --overwrite to replace it (a teacher's answers are kept), or another --output"
                )
            if overwrite:
                self._clear()
        elif self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"output={str(self.path)!r} is a file: name a folder")
        elif (self.path / TRAJECTORIES).exists():
            raise ConfigError(
                f"output={str(self.path)!r} holds a {TRAJECTORIES} of unknown origin: name another folder"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(file, self.settings)

    def _clear(self) -> None:
        """Remove what an earlier build wrote, but for the teacher's answers, which name what they answer."""
        for name in (TRAJECTORIES, DROPPED, REPORT):
            (self.path / name).unlink(missing_ok=True)
        for picture in (self.path / _IMAGES).glob("*.png"):
            picture.unlink()

    def write(self, outcomes: Iterable[Outcome], read: Annotations) -> dict[str, Any]:
        """Write rows, pictures, dropped texts and the report; the report is returned."""
        kept, dropped, reasons, tasks = [], [], Counter[str](), Counter[str]()
        total = failed = 0
        for outcome in outcomes:
            total, failed = total + 1, failed + len(outcome.failed)
            if outcome.solution is not None:
                kept.append(self._row(outcome, outcome.solution))
                tasks[outcome.annotated.task or "-"] += 1
                continue
            dropped += _dropped(outcome)
            reasons.update({problem.reason.value for attempt in outcome.failed for problem in attempt.problems})
        self._write_lines(TRAJECTORIES, kept)
        self._write_lines(DROPPED, dropped)
        report = {
            "source": read.source,
            "sets": total,
            "kept": len(kept),
            "kept_by_task": dict(sorted(tasks.items())),
            "dropped": total - len(kept),
            "dropped_by_reason": dict(reasons.most_common()),
            "failed_attempts": failed,
            "left_out_by_reason": dict(read.left_out.most_common()),
            "left_out": read.messages[:_MESSAGES],
            "settings": self.settings,
            "versions": versions(),
        }
        write_json(self.path / REPORT, report)
        return report

    def _write_lines(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        aside = self.path / f"{name}.tmp"
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        aside.replace(self.path / name)

    def _row(self, outcome: Outcome, solution: Solution) -> dict[str, Any]:
        one = outcome.annotated
        return {
            "id": one.id,
            "question": one.question,
            "images": [self._image(source, f"{one.id}-{number}") for number, source in enumerate(one.images, start=1)],
            "boxes": [_entry(one.answer.box)],
            "regions": [_entry(box) for box in one.regions],
            "solution": {
                "reasoning": solution.reasoning,
                "regions": [_entry(box) for box in solution.regions],
                "box": _entry(solution.box),
                "label": solution.label,
            },
            "task": one.task,
            "target_image": one.answer.box.image,
            "label": one.answer.label,
        }

    def _image(self, source: ImageSource, name: str) -> str:
        """A path for the row, relative to the folder where that is possible; a made picture is written first."""
        if isinstance(source, str | os.PathLike):
            path = Path(source).resolve()
            try:
                return Path(os.path.relpath(path, self.path.resolve())).as_posix()
            except ValueError:  # on another drive
                return path.as_posix()
        inside = f"{_IMAGES}/{name}.png"
        target = self.path / inside
        target.parent.mkdir(exist_ok=True)
        aside = target.with_suffix(".tmp")
        load_image(source).save(aside, format="PNG")
        aside.replace(target)
        return inside


def _entry(box: Box) -> dict[str, Any]:
    return {"image": box.image, "bbox_2d": list(box.as_tuple())}


def _dropped(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "id": outcome.annotated.id,
            "task": outcome.annotated.task,
            "attempt": number,
            "text": attempt.text,
            "problems": [{"reason": problem.reason.value, "detail": problem.detail} for problem in attempt.problems],
        }
        for number, attempt in enumerate(outcome.failed, start=1)
    ]
