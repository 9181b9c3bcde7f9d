"""Data sets: haystack, JSONL with images, parquet, local folders and hub ids, all checked before training starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgpo_core import Sample
from mgpo_core.annotations import AnnotatedSet
from mgpo_core.errors import SampleError
from mgpo_core.regions import Solution
from mgpo_train.data_spec import HAYSTACK, HAYSTACK_MULTI, DataSpec, is_made
from mgpo_train.options import nearest
from mgpo_train.rows import Columns, RowImage, digest_of, image_cells, read_row

NAMED_SCHEMAS = ("mme-realworld", "vstar")
"""Schemas that need no naming where they stand in a hub id or path, as in those of the paper's data sets."""
SHOWN_ERRORS = 5
MULTI_OPTIONS = ("images", "tasks")
SPLITS = ("train", "val", "valid", "validation", "dev", "test")
"""What parquet files of a folder may be called by the part of the data that they hold."""
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class UnreachableDataError(SampleError):
    """A data set of the hub that could not be loaded; `spec` is what was asked for."""

    def __init__(self, message: str, spec: DataSpec) -> None:
        super().__init__(message)
        self.spec = spec


class SampleSet(list[Sample]):
    """Samples with where they came from and what was left out."""

    source: str = ""
    skipped: list[str]

    def __init__(self, samples: list[Sample], source: str = "", skipped: list[str] | None = None) -> None:
        super().__init__(samples)
        self.source = source
        self.skipped = skipped or []

    def describe(self) -> str:
        """One line: how many samples from where, and how many rows were skipped."""
        text = f"{len(self)} samples from {self.source}"
        return text + (f" ({len(self.skipped)} bad rows skipped)" if self.skipped else "")


@dataclass(frozen=True)
class _Table:
    """Rows of any source: their columns, their number, a way to read one, and the folder of image paths."""

    source: str
    available: list[str]
    rows: Callable[[], Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]]
    folder: Path | None
    lazy_images: bool


def load_samples(
    spec: str | Mapping[str, Any],
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_sample: str = "error",
    max_bad_fraction: float = 0.1,
    check_images: str = "quick",
    answers_with_box: bool = False,
) -> SampleSet:
    """Read and check every row of a data set; images are verified (`rows.check_image`), and decoded only when used.

    `answers_with_box` says that true boxes are what is asked for: then every row has some, and need not have an answer.
    Raises SampleError naming row and column at the first bad row, or with `on_bad_sample="skip"` when more than
    `max_bad_fraction` of the rows are bad.
    """
    parsed = DataSpec.parse(spec)
    if parsed.path.startswith(HAYSTACK):
        return _haystack(parsed)
    if parsed.path.startswith(HAYSTACK_MULTI):
        return _haystack_multi(parsed)
    if columns:
        parsed = replace(parsed, columns={**columns, **parsed.columns})
    table = _open(parsed)
    schema = parsed.schema or _guess_schema(parsed.path)
    truth = "boxes" if answers_with_box else "answer"
    resolved = Columns.resolve(table.available, schema, parsed.columns, table.source, truth=truth)
    samples: list[Sample] = []
    bad: list[str] = []
    for number, (row_name, read) in enumerate(table.rows()):
        if parsed.n is not None and number >= parsed.n:
            break
        try:
            row_id, full = f"{number}", check_images == "full"
            sample = read_row(
                read(), resolved, name=row_name, folder=table.folder, row_id=row_id, full=full, truth=truth
            )
        except SampleError as error:
            if on_bad_sample != "skip":
                raise SampleError(f"{error} (on_bad_sample=skip would leave bad rows out)") from error
            bad.append(str(error))
            continue
        samples.append(_lazy(sample, read, resolved, row_name) if table.lazy_images else sample)
    _check_bad(bad, len(samples) + len(bad), max_bad_fraction, table.source)
    return SampleSet(samples, table.source, bad)


def _check_bad(bad: list[str], total: int, limit: float, source: str) -> None:
    if total == 0:
        raise SampleError(f"{source} has no rows")
    shown = "\n  ".join(bad[:SHOWN_ERRORS]) + (
        f"\n  ... and {len(bad) - SHOWN_ERRORS} more" if len(bad) > SHOWN_ERRORS else ""
    )
    if len(bad) == total:
        raise SampleError(f"{source}: all {total} rows are bad:\n  {shown}")
    if len(bad) > limit * total:
        raise SampleError(
            f"{source}: {len(bad)} of {total} rows are bad, more than max_bad_fraction={limit} allows:\n  {shown}"
        )


def _haystack(spec: DataSpec) -> SampleSet:
    from mgpo_core import haystack

    split, seed = spec.path.removeprefix(HAYSTACK) or "train", spec.seed or 0
    try:
        return SampleSet(haystack.make(split, spec.n or 512, seed, **spec.options), f"{HAYSTACK}{split} (seed {seed})")
    except (TypeError, ValueError) as error:
        raise SampleError(f"data: {spec.path!r}: {error}") from error


def _haystack_multi(spec: DataSpec) -> SampleSet:
    """Samples over several images; with `solutions=true` each has the solution that the rule-based writer gives it,
    of which a share of `slips` goes wrong at the end (`with_slip`)."""
    from mgpo_core.haystack.multi import make_sets

    split, seed, options = spec.path.removeprefix(HAYSTACK_MULTI) or "train", spec.seed or 0, dict(spec.options)
    solved, slips = options.pop("solutions", False), options.pop("slips", 0)
    if not isinstance(solved, bool):
        raise SampleError(f"data: solutions={solved!r}: write true or false")
    if isinstance(slips, bool) or not isinstance(slips, int | float) or not 0 <= slips <= 1 or (slips and not solved):
        raise SampleError(f"data: slips={slips!r}: give a share from 0 to 1, with solutions=true")
    for name in options:
        if name not in MULTI_OPTIONS:
            known = ("n", "seed", "slips", "solutions", *MULTI_OPTIONS)
            raise SampleError(f"data: {name!r} is no option of {spec.path!r}: {nearest(name, known)}")
    sets = make_sets(split, spec.n or 500, seed, **options)
    solutions = _solutions(sets, slips, seed) if solved else [None] * len(sets)
    samples = [one.sample(solution=solution) for one, solution in zip(sets, solutions, strict=True)]
    return SampleSet(samples, f"{HAYSTACK_MULTI}{split} (seed {seed})")


def _solutions(sets: Sequence[AnnotatedSet], slips: float, seed: int) -> list[Solution]:
    from mgpo_train.trajectories.rule_writer import write_solution
    from mgpo_train.trajectories.slips import with_slip

    rng = np.random.default_rng((seed, len(sets)))
    written = [(one, write_solution(one)) for one in sets]
    return [with_slip(one, solution, rng) if rng.random() < slips else solution for one, solution in written]


def refuse_missing(spec: DataSpec) -> None:
    """Raise SampleError when a path is there neither as a file nor as a folder, and can be no id of the hub."""
    path = Path(spec.path).expanduser()
    if is_made(spec.path) or path.exists():
        return
    if not _HUB_ID.fullmatch(spec.path) or path.suffix in (".jsonl", ".json", ".parquet") or spec.path[0] == ".":
        raise SampleError(
            f"data: no such file or folder: {spec.path!r} does not exist (working folder: {os.getcwd()}; "
            "a data set of the hub is named OWNER/NAME)"
        )


def _open(spec: DataSpec) -> _Table:
    path = Path(spec.path).expanduser()
    if path.suffix in (".jsonl", ".json") and path.is_file():
        return _jsonl(path, spec)
    if path.suffix == ".parquet" and path.is_file():
        spec.refuse("it is one file, all of which is read", "split", "name")
        return _hub_table(_load("parquet", data_files=str(path), split="train"), str(path), spec)
    if path.is_dir():
        return _folder(path, spec)
    if path.is_file():
        raise SampleError(f"data: {spec.path!r} is neither a .jsonl nor a .parquet file")
    refuse_missing(spec)
    try:
        dataset = _load(spec.path, name=spec.name, split=spec.split or "train")
    except SampleError as error:
        raise UnreachableDataError(str(error), spec) from error
    return _hub_table(dataset, spec.path, spec)


def _folder(path: Path, spec: DataSpec) -> _Table:
    lists = sorted(path.glob("*.jsonl"))
    if len(lists) > 1:
        names = ", ".join(f.name for f in lists)
        raise SampleError(f"data: {path} holds {len(lists)} .jsonl files: name one of {names}")
    if lists:
        return _jsonl(lists[0], spec)
    spec.refuse("only data sets of the hub have configurations", "name")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return _hub_table(_saved(path, spec), str(path), spec)
    parquets = sorted(path.rglob("*.parquet"))
    if parquets:
        files = [str(f) for f in _of_split(parquets, path, spec.split)]
        return _hub_table(_load("parquet", data_files=files, split="train"), str(path), spec)
    raise SampleError(
        f"data: {path} holds neither a .jsonl file nor parquet files: write one JSON object per line, see --help"
    )


def _saved(path: Path, spec: DataSpec) -> Any:
    """What `datasets` saved into a folder: one table, or the wanted one of several."""
    from datasets import load_from_disk

    saved = load_from_disk(str(path))
    if not isinstance(saved, dict):
        spec.refuse("it holds one table, all of which is read", "split")
        return saved
    split = spec.split or "train"
    if split not in saved:
        raise SampleError(f"data: {path} has no split {split!r}: give split= one of {', '.join(saved)}")
    return saved[split]


def _of_split(files: list[Path], folder: Path, split: str | None) -> list[Path]:
    """The files that hold a split, by their names or folders; never a mixture of splits that nobody asked for."""
    inside = {file: file.relative_to(folder) for file in files}
    names = ", ".join(str(name) for name in list(inside.values())[:SHOWN_ERRORS])
    names += f" and {len(files) - SHOWN_ERRORS} more" if len(files) > SHOWN_ERRORS else ""
    if split is None:
        parts = {p for name in inside.values() for p in (*name.parts[:-1], re.split(r"[-_.]", name.name)[0])}
        mixed = [part for part in SPLITS if part in parts]
        if len(mixed) > 1:
            raise SampleError(
                f"data: {folder} holds parquet files of several splits ({names}): give split= one of {', '.join(mixed)}"
            )
        return files
    found = [file for file, name in inside.items() if name.name.startswith(split) or split in name.parts[:-1]]
    if not found:
        raise SampleError(f"data: {folder} has no parquet file of split={split!r}; there are {names}")
    return found


def _jsonl(path: Path, spec: DataSpec) -> _Table:
    spec.refuse(f"all of {path.name} is read; keep each split in a file of its own", "split", "name")
    try:
        # split at newlines alone: JSON texts may hold the other characters that str.splitlines() splits at
        lines = [(i, line) for i, line in enumerate(path.read_text("utf-8-sig").split("\n"), start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise SampleError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    if not lines:
        raise SampleError(f"{path} has no rows")
    available: dict[str, None] = {}
    for _, line in lines:
        try:
            available.update(dict.fromkeys(_parse_line(line, "")))
        except SampleError:
            continue  # reported with its line number when the row is read
    if lines[0][1].lstrip().startswith("[") and not available:
        raise SampleError(f"{path} holds a JSON array: write one object per line, without brackets and commas around")
    if not available:
        _parse_line(lines[0][1], f"{path.name}, line {lines[0][0]}")

    def rows() -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
        for number, line in lines:
            name = f"{path.name}, line {number}"
            yield name, partial(_parse_line, line, name)

    folder = Path(spec.images).expanduser() if spec.images else path.parent
    return _Table(str(path), list(available), rows, folder, lazy_images=False)


def _parse_line(line: str, name: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise SampleError(f"{name} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise SampleError(f"{name} is a {type(row).__name__}: write one JSON object per line")
    return row


def _load(path: str, **options: Any) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(path, **{k: v for k, v in options.items() if v is not None})
    except Exception as error:  # datasets and the hub client raise a dozen unrelated types here
        here = "" if path == "parquet" else "; there is no such file or folder here, so it was looked up on the hub"
        raise SampleError(
            f"data: could not load {path!r} ({type(error).__name__}: {error}): check name, split and network{here}"
        ) from error


def _hub_table(dataset: Any, source: str, spec: DataSpec) -> _Table:
    """A `datasets.Dataset`, whose rows stay on disk; image columns are left undecoded."""
    from datasets import Image, List

    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            dataset = dataset.cast_column(name, List(Image(decode=False)))
    base = Path(source) if Path(source).is_dir() else Path(source).parent if Path(source).is_file() else None
    folder = Path(spec.images).expanduser() if spec.images else base

    def rows() -> Iterator[tuple[str, Callable[[], Mapping[str, Any]]]]:
        for number in range(len(dataset)):
            yield f"{source}, row {number}", partial(dataset.__getitem__, number)

    return _Table(source, list(dataset.column_names), rows, folder, lazy_images=True)


def _lazy(sample: Sample, read: Callable[[], Mapping[str, Any]], columns: Columns, name: str) -> Sample:
    """The same sample with in-table image bytes replaced by a way to fetch them again."""

    def cell(position: int) -> Any:
        return image_cells(read(), columns)[1][position]

    sources = tuple(
        source if isinstance(source, str) else RowImage(partial(cell, i), name, digest_of(source))
        for i, source in enumerate(sample.images)
    )
    return replace(sample, images=sources)


def _guess_schema(path: str) -> str:
    lowered = path.lower().replace("_", "-")
    return next((schema for schema in NAMED_SCHEMAS if schema in lowered), "plain")
