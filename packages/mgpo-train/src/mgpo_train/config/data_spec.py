"""The spec of a data set, `PATH?key=value&...` or a mapping, checked before anything is read (no torch)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_core.messages.suggest import check_words, literal_words, nearest

HAYSTACK = "haystack:"
HAYSTACK_MULTI = "haystack_multi:"
"""What the paths of made data begin with."""
TEXTS = ("split", "schema", "format", "layout", "images", "name", "columns", "box_scale", "box_format")
"""Options whose values stay texts, "2024" too."""
LAYOUT_KEYS = ("layout", "format", "schema")
"""Names of the one option that says which layout the data have."""
COLUMNS_SYNTAX = "write columns=question=prompt,image=picture (our field = your column; solution= for none)"
BoxScale = Literal["pixels", "0-1", "0-1000"]
BoxFormat = Literal["xyxy", "xywh"]


@dataclass(frozen=True)
class DataSpec:
    """Where samples come from: the parsed form of `train_data` and `eval_data`."""

    path: str
    """haystack:SPLIT, a .jsonl or .parquet file, a folder, or a hub id."""
    split: str | None = None
    n: int | None = None
    """Maximum number of rows, from the start (haystack: the exact number)."""
    seed: int | None = None
    """haystack only; default 0."""
    columns: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    """The layout by its name, or as `PYTHON_FILE:name`; default: recognised by the columns.

    Written `layout`, `format` or `schema`.
    """
    box_scale: BoxScale | None = None
    """What the numbers of boxes are: pixels, 0-1 or 0-1000."""
    box_format: BoxFormat | None = None
    """xyxy or xywh."""
    images: str | None = None
    """Folder that image paths are relative to; default: the folder of the JSONL file. (Of haystack it is an option.)"""
    name: str | None = None
    """Configuration of a hub data set."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """haystack only: difficulty, number of images; haystack_multi: images, tasks, solutions, noisy_solutions."""

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> DataSpec:
        """From `PATH?key=value&...` or a mapping with `path`; raises SampleError naming what cannot be."""
        given = _given(value)
        named = {name: given.pop(name) for name in LAYOUT_KEYS if name in given}
        if named:
            given["schema"], *others = named.values()
            if any(other != given["schema"] for other in others):
                raise SampleError(f"data: {' and '.join(named)} are the same option: give one of them")
        kind = given.pop("kind", None)
        if kind == "haystack":
            given["path"] = HAYSTACK + str(given.pop("split", "train"))
        elif kind is not None:
            raise SampleError(
                f"data: kind={show(kind)}: only haystack has one; give path=FILE, FOLDER or hub id instead"
            )
        if not given.get("path"):
            raise SampleError(f"data: {show(value)} names no path: give a file, a folder, a hub id or haystack:train")
        path = given["path"] = str(given["path"])
        made = is_synthetic(path)
        if "\0" in path:
            raise SampleError(
                f"data: the path {show(path)} has a NUL character in it: give a file, a folder or a hub id"
            )
        known = {f.name for f in fields(cls)} - ({"options", "images"} if made else {"options"})
        extra = {k: given.pop(k) for k in list(given) if k not in known}
        if extra and not made:
            name = next(iter(extra))
            raise SampleError(f"data: {show(name)} is not a valid option for {show(path)}: {nearest(name, known)}")
        if "columns" in given:
            given["columns"] = parse_columns(given["columns"], f"data: columns of {show(path)}")
        spec = cls(**given, options=extra)
        spec._check()
        return spec

    def _check(self) -> None:
        if self.n is not None and (type(self.n) is not int or self.n < 1):
            raise SampleError(f"data: n={show(self.n)} of {show(self.path)}: give a positive whole number")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise SampleError(f"data: seed={show(self.seed)} of {show(self.path)}: give a whole number, 0 or more")
        for name in ("split", "schema", "images", "name"):
            if not isinstance(getattr(self, name), str | None):
                raise SampleError(f"data: {name}={show(getattr(self, name))} of {show(self.path)}: give a text")
        check_words(vars(self), literal_words(DataSpec), SampleError, "data: ")
        if is_synthetic(self.path):
            self.refuse("its samples are made, not read", "columns", "schema", "name", "box_scale", "box_format")
            self.refuse(f"write {self.path.partition(':')[0]}:{self.split}", "split")
            if "seen" in self.options:
                raise SampleError(
                    f"data: 'seen' of {show(self.path)} is fixed: the marks vanish only in images of the "
                    "checkpoints' own budget; other worlds are made in Python, with mgpo_core.haystack.make"
                )
        else:
            self.refuse("it is for haystack alone", "seed")

    def with_defaults(
        self, columns: Mapping[str, str] | None, box_scale: BoxScale | None, box_format: BoxFormat | None
    ) -> DataSpec:
        """This spec with the run's own options where it says nothing itself."""
        return replace(
            self,
            columns={**(columns or {}), **self.columns},
            box_scale=self.box_scale or box_scale,
            box_format=self.box_format or box_format,
        )

    def refuse(self, why: str, *names: str) -> None:
        """Raise SampleError for the first of these options that was given."""
        for name in names:
            if getattr(self, name) not in (None, {}):
                raise SampleError(f"data: {name!r} is not a valid option for {show(self.path)}: {why}")


def is_synthetic(path: str) -> bool:
    """Whether the samples of a path are made instead of read."""
    return path.startswith((HAYSTACK, HAYSTACK_MULTI))


def _given(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The options as given, null ones left out."""
    if not isinstance(value, str):
        return {k: v for k, v in value.items() if v is not None}
    path, _, query = value.partition("?")
    # of haystack `images` is a number: how many
    texts = [name for name in TEXTS if name != "images"] if is_synthetic(path) else TEXTS
    given = {k: v if k in texts else _scalar(v) for k, v in parse_qsl(query, keep_blank_values=True)}
    return {**given, "path": path}


def parse_columns(value: Any, where: str) -> dict[str, str]:
    """`our field = your column` from a mapping, or from the text `question=prompt,image=picture`."""
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(ours.strip() and equals for ours, equals, _ in pairs):
            raise SampleError(f"{where}: {show(value)} maps nothing: {COLUMNS_SYNTAX}")
        return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if not isinstance(value, Mapping) or not all(isinstance(theirs, str | None) for theirs in value.values()):
        raise SampleError(f"{where}: {show(value)} is not a mapping of names: {COLUMNS_SYNTAX}")
    return {ours: theirs or "" for ours, theirs in value.items()}


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(name: str) -> bool:
    """Whether a model or data set is one of the hub's, as far as its name tells: no path that is there."""
    return bool(_HUB_ID.fullmatch(name)) and not name.startswith(".") and not Path(name).expanduser().exists()
