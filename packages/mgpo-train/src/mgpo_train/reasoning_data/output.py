"""The folder of a build: rows for training, synthetic images, and what was dropped and left out."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.files.output_folder import HERE, OutputRecord, Owner, open_output
from mgpo_core.files.whole_file import whole_file
from mgpo_core.images.load import ImageSource, load_image
from mgpo_train.config.options import ConfigError
from mgpo_train.output.summary import versions, write_json
from mgpo_train.reasoning_data.outcomes import Outcome
from mgpo_train.reasoning_data.readers import Annotations

__all__ = ["DROPPED", "JOURNAL", "REPORT", "TRACES", "OutputFolder"]

TRACES, DROPPED, REPORT, JOURNAL = "sft_traces.jsonl", "dropped.jsonl", "report.json", "teacher.jsonl"
_IMAGES = "images"
OWNER = Owner(
    "mgpo-train build-reasoning-data",
    "output",
    files="|".join(name.replace(".", r"\.") for name in (TRACES, DROPPED, REPORT)),
    folders={_IMAGES: r".*-\d+\.png"},
)
"""What a build writes into its folder; the journal of a teacher's replies is only ever appended to."""
MAY_CHANGE = ("concurrency", "attempts", "teacher_url")
"""Settings that may differ when a build is resumed: they do not decide what a trace is."""
_MESSAGES = 200
"""The most messages about what was left out in a report; its counts are of all."""


class OutputFolder:
    """The output of one build; a build with other settings is not mixed into it."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path, self.settings = path, json.loads(json.dumps(dict(settings), default=str))
        self.overwrite = overwrite
        self._check()

    def start(self) -> None:
        """Mark the folder as the build's, after removing an earlier build that is to be replaced."""
        record = self._check()
        if record is None:
            record = OutputRecord.create(self.path, OWNER, {"options": self.settings})
        else:
            record.done()  # what a kill left open
            if self.overwrite:
                record.clear()
            record.update(options=self.settings)
        for name in (HERE, _IMAGES):
            record.begin(name, fresh=False)

    def _check(self) -> OutputRecord | None:
        """The folder's record; ConfigError and OutputFolderError when this build must not be written into it."""
        record = open_output(self.path, OWNER)
        if record is None:
            return None
        then = record.data.get("options") or {}
        changed = [name for name in self.settings if name not in MAY_CHANGE and then.get(name) != self.settings[name]]
        if changed and not self.overwrite:
            listed = ", ".join(f"{name} was {then.get(name)!r} and is {self.settings[name]!r}" for name in changed)
            raise ConfigError(
                f"output={str(self.path)!r} holds another build ({listed}): give the same options to continue it, "
                "--overwrite to replace it (a teacher's answers are kept), or another --output"
            )
        record.refuse_in_the_way()
        return record

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what was written into the folder when the block ends, however it ends."""
        try:
            yield
        finally:
            record = open_output(self.path, OWNER)
            if record is not None:
                record.done()

    def write(self, outcomes: Iterable[Outcome], read: Annotations) -> dict[str, Any]:
        """Write rows, images, dropped texts and the report, which is returned."""
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
        self._write_lines(TRACES, kept)
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
        with whole_file(self.path / name, encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _row(self, outcome: Outcome, solution: WorkedSolution) -> dict[str, Any]:
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
        """A path for the row, relative to the folder where possible; a synthetic image is written first."""
        if isinstance(source, str | os.PathLike):
            path = Path(source).resolve()
            try:
                return Path(os.path.relpath(path, self.path.resolve())).as_posix()
            except ValueError:  # on another drive
                return path.as_posix()
        inside = f"{_IMAGES}/{name}.png"
        target = self.path / inside
        target.parent.mkdir(exist_ok=True)
        with whole_file(target, "wb") as file:
            load_image(source).save(file, format="PNG")
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
