"""Reads annotated sets from any of their sources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mgpo_core.errors import SampleError
from mgpo_core.haystack.multi import make_sets
from mgpo_core.messages.suggest import nearest
from mgpo_train.config.data_spec import HAYSTACK_MULTI, DataSpec
from mgpo_train.reasoning_data.readers.annotations import Annotations
from mgpo_train.reasoning_data.readers.coco import read_coco
from mgpo_train.reasoning_data.readers.jsonl import read_jsonl

__all__ = ["ON_BAD_RECORD", "AnnotationSource", "read_annotations"]

ON_BAD_RECORD = ("error", "skip")
_MADE_OPTIONS = ("images", "tasks")


@dataclass(frozen=True)
class AnnotationSource:
    """What to read, and how."""

    input: str
    """A .jsonl file, a .json file of COCO-style annotations, or haystack_multi:SPLIT?n=..&images=..&tasks=..&seed=.."""
    images: str | None = None
    """Folder that image paths are relative to; default: that of the file."""
    n: int | None = None
    """Read at most this many sets."""
    seed: int = 0
    """COCO: which images make a set."""
    set_images: int = 3
    """COCO: how many images make a set."""
    tasks: str | None = None
    """COCO: the tasks to pose, with commas."""
    on_bad_record: str = "error"
    """JSONL: error stops at the first bad line; skip leaves it out and counts it."""


def read_annotations(source: AnnotationSource) -> Annotations:
    """Read every set; raises SampleError naming the file, the line and the field, and for an input without any set."""
    if source.on_bad_record not in ON_BAD_RECORD:
        raise SampleError(f"on_bad_record={source.on_bad_record!r}: {nearest(source.on_bad_record, ON_BAD_RECORD)}")
    if source.n is not None and source.n < 1:
        raise SampleError(f"n={source.n}: give a positive whole number")
    found = _read(source)
    _check_ids(found)
    if not found.sets:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in found.left_out.most_common())
        raise SampleError(
            f"{found.source} gave no annotated set ({reasons or 'it holds none'}): see docs/reasoning-data.md"
        )
    return found


def _read(source: AnnotationSource) -> Annotations:
    if source.input.startswith(HAYSTACK_MULTI):
        return _made(source)
    path = Path(source.input).expanduser()
    folder = Path(source.images).expanduser() if source.images else path.parent
    if not path.is_file():
        raise SampleError(
            f"input {source.input!r} is no file: give a .jsonl file of annotated sets, a .json file of COCO-style "
            f"annotations, or {HAYSTACK_MULTI}train"
        )
    if not folder.is_dir():
        raise SampleError(f"images={source.images!r} is not a directory: give the one that image paths are relative to")
    if path.suffix == ".jsonl":
        return read_jsonl(path, folder, n=source.n, skip=source.on_bad_record == "skip")
    if path.suffix == ".json":
        return read_coco(path, folder, n=source.n, seed=source.seed, set_images=source.set_images, tasks=source.tasks)
    raise SampleError(f"input {source.input!r} ends in {path.suffix!r}: give a .jsonl file or COCO's .json")


def _made(source: AnnotationSource) -> Annotations:
    spec = DataSpec.parse(source.input)
    for name in spec.options:
        if name not in _MADE_OPTIONS:
            raise SampleError(
                f"input: {name!r} is not a valid option for {spec.path!r}: "
                f"{nearest(name, (*_MADE_OPTIONS, 'n', 'seed'))}"
            )
    n = spec.n if source.n is None else min(source.n, spec.n or source.n)
    split, seed = spec.path.removeprefix(HAYSTACK_MULTI) or "train", spec.seed or 0
    return Annotations(source.input, make_sets(split, n or 500, seed, **spec.options))


def _check_ids(found: Annotations) -> None:
    ids = Counter(one.id for one in found.sets)
    twice = next((name for name, count in ids.items() if count > 1), None)
    if twice is not None:
        raise SampleError(f"{found.source}: the id {twice!r} is given to {ids[twice]} sets: give each its own")
