"""Tables of any source (JSON files, parquet files, folders, saved data sets, the hub) as rows to be read one by one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import one_line, show
from mgpo_train.config.data_spec import DataSpec, is_hub_id, is_synthetic
from mgpo_train.data.json_rows import NamedRow, read_json_rows

__all__ = ["Table", "UnreachableDataError", "open_table", "refuse_missing"]

SHOWN_FILES = 5
SPLITS = ("train", "val", "valid", "validation", "dev", "test")
"""What parquet files of a folder may be called by the part of the data that they hold."""
IN_MEMORY = 64 * 2**20
"""Bytes of local parquet files up to which they are read at once; larger ones are read through `datasets`' cache."""
_JSON = (".jsonl", ".json", ".ndjson")
_NOT_ROWS = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")


class UnreachableDataError(SampleError):
    """A data set of the hub that could not be loaded; `spec` is what was asked for."""

    def __init__(self, message: str, spec: DataSpec) -> None:
        super().__init__(message)
        self.spec = spec


@dataclass(frozen=True)
class Table:
    """Rows of any source, their columns, and the folder of image paths."""

    source: str
    available: list[str]
    rows: list[NamedRow]
    folder: Path | None
    same_columns: bool
    """Whether every row has the same columns, so that a few rows tell the layout of all."""


def open_table(spec: DataSpec) -> Table:
    """The table that a spec names; raises SampleError, and UnreachableDataError for one of the hub."""
    path = Path(spec.path).expanduser()
    shown = show(spec.path, 200)
    if _is(path, "file") and path.suffix in _JSON:
        return _json(path, spec)
    if _is(path, "file") and path.suffix == ".parquet":
        spec.refuse("it is one file, all of which is read", "split", "name")
        return _dataset(_parquet([path], shown), str(path), spec)
    if _is(path, "dir"):
        return _folder(path, spec)
    if _is(path, "file"):
        raise SampleError(
            f"data: {shown} is neither a .jsonl, .json nor a .parquet file: write one JSON object per line"
        )
    refuse_missing(spec)
    try:
        dataset = _load(spec.path, name=spec.name, split=spec.split or "train")
    except SampleError as error:
        raise UnreachableDataError(str(error), spec) from error
    return _dataset(dataset, spec.path, spec)


def refuse_missing(spec: DataSpec) -> None:
    """Raise SampleError when a path is there neither as a file nor as a folder, and can be no id of the hub."""
    path = Path(spec.path).expanduser()
    if is_synthetic(spec.path) or _is(path, "file") or _is(path, "dir"):
        return
    if not is_hub_id(spec.path) or path.suffix in (*_JSON, ".parquet"):
        raise SampleError(
            f"data: no such file or folder: {show(spec.path, 200)} does not exist (working folder: {os.getcwd()}; "
            "a data set of the hub is named OWNER/NAME)"
        )


def _is(path: Path, kind: str) -> bool:
    try:
        return path.is_dir() if kind == "dir" else path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _folder(path: Path, spec: DataSpec) -> Table:
    lists = sorted(path.glob("*.jsonl"))
    if len(lists) == 1:
        return _json(lists[0], spec)
    if not lists:
        spec.refuse("only data sets of the hub have configurations", "name")
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return _dataset(_saved(path, spec), str(path), spec)
        parquets = sorted(path.rglob("*.parquet"))
        if parquets:
            return _dataset(_parquet(_of_split(parquets, path, spec.split), str(path)), str(path), spec)
        lists = [file for file in sorted(path.glob("*.json")) if file.name not in _NOT_ROWS]
        if len(lists) == 1:
            return _json(lists[0], spec)
    if lists:
        names = ", ".join(file.name for file in lists)
        raise SampleError(f"data: {path} holds {len(lists)} {lists[0].suffix} files: name one of {one_line(names)}")
    raise SampleError(
        f"data: {path} holds neither a .jsonl file nor parquet files: write one JSON object per line, see --help"
    )


def _saved(path: Path, spec: DataSpec) -> Any:
    """What `datasets` saved into a folder: one table, or the wanted one of several."""
    from datasets import load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:  # damaged files raise a dozen unrelated types here
        raise SampleError(f"data: {path} cannot be read ({one_line(error)}): save the data set again") from error
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
    names = ", ".join(str(name) for name in list(inside.values())[:SHOWN_FILES])
    names += f" and {len(files) - SHOWN_FILES} more" if len(files) > SHOWN_FILES else ""
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


def _json(path: Path, spec: DataSpec) -> Table:
    spec.refuse(f"all of {path.name} is read; keep each split in a file of its own", "split", "name")
    rows = read_json_rows(path)
    available: dict[str, None] = {}
    for _, read in rows:
        try:
            available.update(dict.fromkeys(read()))
        except SampleError:
            continue  # reported with its name when the row is read
    if not available:
        if rows:
            rows[0][1]()
        raise SampleError(f"{path} has no rows")
    return Table(str(path), list(available), rows, _image_folder(spec, path.parent), same_columns=False)


def _image_folder(spec: DataSpec, default: Path | None) -> Path | None:
    return Path(spec.images).expanduser() if spec.images else default


def _parquet(files: list[Path], shown: str) -> Any:
    """Local parquet files as a `datasets.Dataset`: in memory if they are small, else on disk."""
    try:
        if sum(file.stat().st_size for file in files) > IN_MEMORY:
            return _load("parquet", data_files=[str(file) for file in files], split="train")
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
        from datasets import Dataset

        tables = [pyarrow.parquet.read_table(file) for file in files]
        return Dataset(pyarrow.concat_tables(tables, promote_options="default"))
    except SampleError:
        raise
    except Exception as error:  # damaged files raise a dozen unrelated types here
        raise SampleError(
            f"data: {shown} cannot be read as parquet ({type(error).__name__}: {one_line(error)}): write it again"
        ) from error


def _load(path: str, **options: Any) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(path, **{k: v for k, v in options.items() if v is not None})
    except Exception as error:  # datasets and the hub client raise a dozen unrelated types here
        here = "" if path == "parquet" else "; there is no such file or folder here, so it was looked up on the hub"
        raise SampleError(
            f"data: could not load {path!r} ({type(error).__name__}: {one_line(error)}): "
            f"check name, split and network{here}"
        ) from error


def _dataset(dataset: Any, source: str, spec: DataSpec) -> Table:
    """A `datasets.Dataset`, whose image columns are left undecoded."""
    from datasets import Image, List

    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            dataset = dataset.cast_column(name, List(Image(decode=False)))
    base = Path(source) if Path(source).is_dir() else Path(source).parent if Path(source).is_file() else None

    names = [f"{source}, row {number}" for number in range(len(dataset))]
    rows: list[NamedRow] = [(name, partial(_row_of, dataset, number, name)) for number, name in enumerate(names)]
    return Table(source, list(dataset.column_names), rows, _image_folder(spec, base), same_columns=True)


def _row_of(dataset: Any, number: int, name: str) -> Mapping[str, Any]:
    try:
        return dataset[number]
    except Exception as error:  # damaged cells raise a dozen unrelated types here
        raise SampleError(
            f"{name} cannot be read ({type(error).__name__}: {one_line(error)}): write it again"
        ) from error
