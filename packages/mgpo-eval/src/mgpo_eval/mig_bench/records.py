"""The records of MIG-Bench: read, checked, with the image each one asks about and the true box put in order.

Target images as in Migician's evaluation (arXiv 2501.05767): the JSON says them in words only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mgpo_core.boxes.parse import Box
from mgpo_core.errors import SampleError
from mgpo_core.images.load import ImageSource
from mgpo_core.messages.suggest import nearest
from mgpo_eval.mig_bench.image_store import ImageStore
from mgpo_eval.mig_bench.mentions import find_mentions, find_ordinal

__all__ = ["TASKS", "DefectCounts", "Record", "count_defects", "load_records", "to_rows"]

TASKS: dict[str, str] = {
    "region": "first",
    "common_object": "question",
    "object_tracking": "question",
    "multi_view": "question",
    "group_grounding": "info",
    "diff": "second",
    "correspondence": "second",
    "reasoning": "second",
    "refer_grounding": "second",
    "view_diff": "second",
}
"""The ten tasks, and what tells the image that the true box lies on: it is always the first or the second, or the last
one named in the question, or the one named in `additional_info`."""

JSON_NAME = "MIG_data.json"
"""The file of the hub repository; it is taken where a folder holds several."""

HUB_ID = "Michael4933/MIG-Bench"


@dataclass(frozen=True)
class Record:
    """One question of the benchmark; `ground_truth` is in 0-1 of its image, corners in order.

    Its `image` is the target image.
    """

    index: int
    "Its place in the JSON, from 0; errors name it."
    task: str
    images: tuple[str, ...]
    "Names as in the JSON, relative."
    question: str
    ground_truth: Box
    additional_info: str = ""
    need_format: bool = True
    "Whether the published prompt adds its request for a format: some questions are asked without."
    inverted: bool = False
    "The true box came with its corners in the wrong order."
    clipped: bool = False
    "The true box reached out of the image."
    sources: tuple[ImageSource, ...] = field(default=(), repr=False, compare=False)
    "The images themselves, opened at use; empty for a record made of a row alone."

    @property
    def target(self) -> int:
        """The image that the answer lies on, counted from 0."""
        return self.ground_truth.image

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """The record of a row of `to_rows` (or of the JSON, with its `index`); SampleError names what is wrong."""
        index, task, images = int(row.get("index", -1)), row.get("task"), row.get("images")
        who = f"MIG-Bench: record {index}"
        if task not in TASKS:
            raise SampleError(f"{who}: unknown task {task!r}: {nearest(str(task), TASKS)}")
        if not isinstance(images, list | tuple) or not images or not all(isinstance(name, str) for name in images):
            raise SampleError(f"{who}: images must be a list of at least one path, not {images!r:.80}")
        question = row.get("question")
        if not isinstance(question, str) or not question.strip():
            raise SampleError(f"{who}: the question is {question!r:.80}; it must be a text")
        info = row.get("additional_info")
        info = "" if info is None else str(info)
        target = _target(task, question, info, len(images), who)
        ground_truth, inverted, clipped = _ground_truth(row.get("answer"), target, who)
        need_format = bool(row.get("need_format", True))
        return cls(index, task, tuple(images), question, ground_truth, info, need_format, inverted, clipped)


@dataclass(frozen=True)
class DefectCounts:
    """How many records' true boxes were put in order (published: five inverted, two over 1), of `n`."""

    n: int = 0
    inverted: int = 0
    clipped: int = 0
    empty: int = 0
    "Boxes without area even so: no answer can score on them."


def count_defects(records: Iterable[Record]) -> DefectCounts:
    """Count the repairs of the ground truth, for a report."""
    records = list(records)
    return DefectCounts(
        n=len(records),
        inverted=sum(record.inverted for record in records),
        clipped=sum(record.clipped for record in records),
        empty=sum(not record.ground_truth.area > 0 for record in records),
    )


def load_records(place: str | os.PathLike[str]) -> list[Record]:
    """Every record of a local copy, its images as sources that are opened at use.

    `place`: a folder laid out as the hub repository (one JSON, and the zip of images or what it was unpacked to), or
    the JSON file. Raises SampleError for a missing JSON or image, an unknown task, and whatever else cannot be scored.
    """
    records = [Record.from_row(row) for row in _rows(place)]
    found = _find_images(place, records)
    return [replace(record, sources=tuple(found[name] for name in record.images)) for record in records]


def to_rows(place: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Checked plain rows for `datasets.Dataset.from_list`: index, task, images (names), question, answer (four floats,
    as published), additional_info, need_format. `Record.from_row` and `image_source` take them from there.

    Raises what `load_records` raises.
    """
    rows = _rows(place)
    _find_images(place, [Record.from_row(row) for row in rows])
    return rows


def _rows(place: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of the JSON with one type per column; what they say is checked by `Record.from_row`."""
    path = _json_file(Path(place).expanduser())
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SampleError(f"MIG-Bench: {path} cannot be read as JSON ({error})") from error
    if not isinstance(listed, list) or not listed:
        raise SampleError(f"MIG-Bench: {path} must hold a list of records, not {type(listed).__name__}")
    return [_row(index, entry) for index, entry in enumerate(listed)]


def _row(index: int, entry: Any) -> dict[str, Any]:
    who = f"MIG-Bench: record {index}"
    if not isinstance(entry, dict):
        raise SampleError(f"{who} is a {type(entry).__name__}, not an object: {entry!r:.80}")
    missing = [key for key in ("task", "images", "question", "answer") if key not in entry]
    if missing:
        raise SampleError(f"{who} has no {', '.join(missing)}: {entry!r:.120}")
    images = entry["images"]
    info = entry.get("additional_info")
    return {
        "index": index,
        "task": entry["task"],
        "images": [images] if isinstance(images, str) else images,
        "question": entry["question"],
        "answer": list(_four(entry["answer"], who)),
        "additional_info": "" if info is None else str(info),
        "need_format": bool(entry.get("need_format", True)),
    }


def _json_file(place: Path) -> Path:
    if place.is_file():
        return place
    if not place.is_dir():
        raise SampleError(f"MIG-Bench: {place} does not exist; download {HUB_ID} and give its folder")
    found = sorted(place.glob("*.json"))
    named = [path for path in found if path.name == JSON_NAME]
    if len(found) == 1 or named:
        return (named or found)[0]
    if not found:
        raise SampleError(f"MIG-Bench: {place} holds no JSON file; download {HUB_ID} ({JSON_NAME} and images.zip)")
    names = ", ".join(path.name for path in found)
    raise SampleError(f"MIG-Bench: {place} holds {len(found)} JSON files ({names}): give the path of the one")


def _find_images(place: str | os.PathLike[str], records: Iterable[Record]) -> dict[str, ImageSource]:
    """The source of every image by its name; SampleError for the first that is missing."""
    store = ImageStore.at(place)
    found: dict[str, ImageSource] = {}
    for record in records:
        for name in record.images:
            source = found.get(name) or store.find(name)
            if source is None:
                raise SampleError(
                    f"MIG-Bench: record {record.index}: its image {name!r} is missing from {store.describe()}"
                )
            found[name] = source
    return found


def _target(task: str, question: str, info: str, images: int, who: str) -> int:
    """The image (0-based) that the true box lies on."""
    if images == 1:
        return 0
    rule = TASKS[task]
    if rule == "first" or rule == "second":
        return 0 if rule == "first" else 1
    text, where = (question, "question") if rule == "question" else (info, "additional_info")
    named = [mention.image for mention in find_mentions(text)]
    target = named[-1] if named else find_ordinal(text) if rule == "info" else None
    if target is None:
        raise SampleError(f"{who} ({task}): its {where} names no image: {text!r:.200} (question: {question!r:.200})")
    if not 0 <= target < images:
        raise SampleError(f"{who} ({task}): its {where} names image {target + 1} of {images}: {text!r:.200}")
    return target


def _ground_truth(answer: Any, target: int, who: str) -> tuple[Box, bool, bool]:
    """The true box in order, and whether it was inverted and whether it was clipped."""
    x1, y1, x2, y2 = _four(answer, who)
    box = Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), target)
    inside = box.clipped(1.0, 1.0)
    return inside, x1 > x2 or y1 > y2, inside != box


def _four(answer: Any, who: str) -> tuple[float, float, float, float]:
    try:
        x1, y1, x2, y2 = (float(value) for value in answer)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{who}: the answer must be x1, y1, x2, y2 in 0-1, not {answer!r:.80}") from error
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        raise SampleError(f"{who}: the answer must be four finite numbers, not {answer!r:.80}")
    return x1, y1, x2, y2
