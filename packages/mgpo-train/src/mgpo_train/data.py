"""Data sets: haystack, JSONL with images, parquet, local folders and hub ids, all checked before training starts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from mgpo_core import Sample
from mgpo_core.errors import SampleError
from mgpo_train.options import nearest
from mgpo_train.rows import Columns, RowImage, read_row

KNOWN_SCHEMAS = {"xinyu1205/mme_realworld_train_21690": "mme-realworld"}
"""Hub ids whose schema needs no naming; any id with "mme-realworld" in it counts too."""
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class DataSpec:
    """Where samples come from: the parsed form of `train_data` and `eval_data`."""

    path: str
    """haystack:SPLIT, a .jsonl or .parquet file, a folder, or a hub id."""
    split: str | None = None
    n: int | None = None
    """At most so many rows, from the start (haystack: exactly so many)."""
    seed: int = 0
    """haystack only."""
    columns: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    images: str | None = None
    """Folder that image paths are relative to; default: the folder of the JSONL file."""
    name: str | None = None
    """Configuration of a hub data set."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """haystack only: difficulty."""

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> DataSpec:
        """From `PATH?key=value&...` or a mapping with `path`; raises SampleError naming an unknown key."""
        if isinstance(value, str):
            path, _, query = value.partition("?")
            given: dict[str, Any] = {k: _scalar(v) for k, v in parse_qsl(query, keep_blank_values=True)}
            given["path"] = path
        else:
            given = dict(value)
        kind = given.pop("kind", None)
        if kind == "haystack":
            given["path"] = "haystack:" + str(given.pop("split", "train"))
        elif kind is not None:
            raise SampleError(f"data: kind={kind!r}: only haystack has one; give path=FILE, FOLDER or hub id instead")
        if not given.get("path"):
            raise SampleError(f"data: {value!r} names no path: give a file, a folder, a hub id or haystack:train")
        known = {f.name for f in fields(cls)} - {"options"}
        extra = {k: given.pop(k) for k in list(given) if k not in known}
        if extra and not str(given["path"]).startswith("haystack:"):
            name = next(iter(extra))
            raise SampleError(f"data: {name!r} is no option of {given['path']!r}: {nearest(name, known)}")
        spec = cls(**{k: v for k, v in given.items() if v is not None}, options=extra)
        if spec.n is not None and (not isinstance(spec.n, int) or spec.n < 1):
            raise SampleError(f"data: n={spec.n!r} of {spec.path!r}: give a positive whole number")
        return spec


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
) -> SampleSet:
    """Read and check every row of a data set; images are verified (`rows.check_image`), and decoded only when used.

    Raises SampleError naming row and column at the first bad row, or with `on_bad_sample="skip"` when more than
    `max_bad_fraction` of the rows are bad.
    """
    parsed = DataSpec.parse(spec)
    if columns:
        parsed = replace(parsed, columns={**columns, **parsed.columns})
    if parsed.path.startswith("haystack:"):
        return _haystack(parsed)
    table = _open(parsed)
    schema = parsed.schema or _guess_schema(parsed.path)
    resolved = Columns.resolve(table.available, schema, parsed.columns, table.source)
    samples: list[Sample] = []
    bad: list[str] = []
    for number, (row_name, read) in enumerate(table.rows()):
        if parsed.n is not None and number >= parsed.n:
            break
        try:
            row_id, full = f"{number}", check_images == "full"
            sample = read_row(read(), resolved, name=row_name, folder=table.folder, row_id=row_id, full=full)
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

    split = spec.path.removeprefix("haystack:") or "train"
    n = spec.n or 512
    used = {"split": spec.split, "columns": spec.columns or None, "schema": spec.schema, "images": spec.images}
    for key, value in used.items():
        if value is not None and key != "columns":
            raise SampleError(f"data: {key!r} is no option of {spec.path!r}, whose samples are made, not read")
    try:
        return SampleSet(
            haystack.make(split, n, spec.seed, **dict(spec.options)), f"haystack:{split} (seed {spec.seed})"
        )
    except (TypeError, ValueError) as error:
        raise SampleError(f"data: {spec.path!r}: {error}") from error


def _open(spec: DataSpec) -> _Table:
    path = Path(spec.path).expanduser()
    if path.suffix in (".jsonl", ".json") and path.is_file():
        return _jsonl(path, spec)
    if path.suffix == ".parquet" and path.is_file():
        return _hub_table(_load("parquet", data_files=str(path), split="train"), str(path), spec)
    if path.is_dir():
        return _folder(path, spec)
    if (
        spec.path.count("/") > 1
        or path.suffix in (".jsonl", ".json", ".parquet")
        or spec.path.startswith((".", "/", "~"))
    ):
        raise SampleError(f"data: {spec.path!r} does not exist (working folder: {os.getcwd()})")
    return _hub_table(_load(spec.path, name=spec.name, split=spec.split or "train"), spec.path, spec)


def _folder(path: Path, spec: DataSpec) -> _Table:
    lists = sorted(path.glob("*.jsonl"))
    if len(lists) == 1:
        return _jsonl(lists[0], spec)
    if len(lists) > 1:
        raise SampleError(
            f"data: {path} holds {len(lists)} .jsonl files: name one of {', '.join(f.name for f in lists)}"
        )
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        from datasets import load_from_disk

        saved = load_from_disk(str(path))
        return _hub_table(saved if not isinstance(saved, dict) else saved[spec.split or "train"], str(path), spec)
    parquets = sorted(str(f) for f in path.rglob("*.parquet"))
    if parquets:
        wanted = [f for f in parquets if spec.split is None or Path(f).name.startswith(spec.split)]
        return _hub_table(_load("parquet", data_files=wanted or parquets, split="train"), str(path), spec)
    raise SampleError(
        f"data: {path} holds neither a .jsonl file nor parquet files: write one JSON object per line, see --help"
    )


def _jsonl(path: Path, spec: DataSpec) -> _Table:
    lines = [(i, line) for i, line in enumerate(path.read_text("utf-8").splitlines(), start=1) if line.strip()]
    available: dict[str, None] = {}
    for _, line in lines:
        try:
            available.update(dict.fromkeys(json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue  # reported with its line number when the row is read

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
        raise SampleError(
            f"data: could not load {path!r} ({type(error).__name__}: {error}): check name, split and network"
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
        row = read()
        value = columns.get(row, "images") if "images" in columns.of else columns.get(row, "image")
        return value[position] if isinstance(value, list | tuple) else value

    sources = tuple(
        source if isinstance(source, str) else RowImage(partial(cell, i), name)
        for i, source in enumerate(sample.images)
    )
    return replace(sample, images=sources)


def _guess_schema(path: str) -> str:
    lowered = path.lower().replace("_", "-")
    return KNOWN_SCHEMAS.get(path, "mme-realworld" if "mme-realworld" in lowered else "plain")


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
