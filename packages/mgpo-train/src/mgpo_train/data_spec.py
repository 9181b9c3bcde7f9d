"""The spec of a data set, `PATH?key=value&...` or a mapping, checked before anything is read (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import parse_qsl

from mgpo_core.errors import SampleError
from mgpo_train.options import nearest

HAYSTACK = "haystack:"
HAYSTACK_MULTI = "haystack_multi:"
"""What the paths of made data begin with."""
TEXTS = ("split", "schema", "images", "name", "columns")
"""Options whose values stay texts, "2024" too."""
COLUMNS_SYNTAX = "write columns=question=prompt,image=picture (our field = your column)"


@dataclass(frozen=True)
class DataSpec:
    """Where samples come from: the parsed form of `train_data` and `eval_data`."""

    path: str
    """haystack:SPLIT, a .jsonl or .parquet file, a folder, or a hub id."""
    split: str | None = None
    n: int | None = None
    """At most so many rows, from the start (haystack: exactly so many)."""
    seed: int | None = None
    """haystack only; default 0."""
    columns: Mapping[str, str] = field(default_factory=dict)
    schema: str | None = None
    images: str | None = None
    """Folder that image paths are relative to; default: the folder of the JSONL file. (Of haystack it is an option.)"""
    name: str | None = None
    """Configuration of a hub data set."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """haystack only: difficulty, and the number of images; haystack_multi: images, tasks, solutions, slips."""

    @classmethod
    def parse(cls, value: str | Mapping[str, Any]) -> DataSpec:
        """From `PATH?key=value&...` or a mapping with `path`; raises SampleError naming what cannot be."""
        given = _given(value)
        kind = given.pop("kind", None)
        if kind == "haystack":
            given["path"] = HAYSTACK + str(given.pop("split", "train"))
        elif kind is not None:
            raise SampleError(f"data: kind={kind!r}: only haystack has one; give path=FILE, FOLDER or hub id instead")
        if not given.get("path"):
            raise SampleError(f"data: {value!r} names no path: give a file, a folder, a hub id or haystack:train")
        path = given["path"] = str(given["path"])
        made = is_made(path)
        known = {f.name for f in fields(cls)} - ({"options", "images"} if made else {"options"})
        extra = {k: given.pop(k) for k in list(given) if k not in known}
        if extra and not made:
            name = next(iter(extra))
            raise SampleError(f"data: {name!r} is no option of {path!r}: {nearest(name, known)}")
        if "columns" in given:
            given["columns"] = parse_columns(given["columns"], f"data: columns of {path!r}")
        spec = cls(**given, options=extra)
        spec._check()
        return spec

    def _check(self) -> None:
        if self.n is not None and (type(self.n) is not int or self.n < 1):
            raise SampleError(f"data: n={self.n!r} of {self.path!r}: give a positive whole number")
        if self.seed is not None and (type(self.seed) is not int or self.seed < 0):
            raise SampleError(f"data: seed={self.seed!r} of {self.path!r}: give a whole number, 0 or more")
        for name in ("split", "schema", "images", "name"):
            if not isinstance(getattr(self, name), str | None):
                raise SampleError(f"data: {name}={getattr(self, name)!r} of {self.path!r}: give a text")
        if is_made(self.path):
            self.refuse("its samples are made, not read", "columns", "schema", "name")
            self.refuse(f"write {self.path.partition(':')[0]}:{self.split}", "split")
            if "seen" in self.options:
                raise SampleError(
                    f"data: 'seen' of {self.path!r} is fixed: the marks vanish only in pictures of the checkpoints' "
                    "own budget; other worlds are made in Python, with mgpo_core.haystack.make"
                )
        else:
            self.refuse("it is for haystack alone", "seed")

    def refuse(self, why: str, *names: str) -> None:
        """Raise SampleError for the first of these options that was given."""
        for name in names:
            if getattr(self, name) not in (None, {}):
                raise SampleError(f"data: {name!r} is no option of {self.path!r}: {why}")


def is_made(path: str) -> bool:
    """Whether the samples of a path are made instead of read."""
    return path.startswith((HAYSTACK, HAYSTACK_MULTI))


def _given(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """The options as given, null ones left out."""
    if not isinstance(value, str):
        return {k: v for k, v in value.items() if v is not None}
    path, _, query = value.partition("?")
    # of haystack `images` is a number: how many
    texts = [name for name in TEXTS if name != "images"] if is_made(path) else TEXTS
    given = {k: v if k in texts else _scalar(v) for k, v in parse_qsl(query, keep_blank_values=True)}
    return {**given, "path": path}


def parse_columns(value: Any, where: str) -> dict[str, str]:
    """`our field = your column` from a mapping, or from the text `question=prompt,image=picture`."""
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(ours.strip() and theirs.strip() for ours, _, theirs in pairs):
            raise SampleError(f"{where}: {value!r} maps nothing: {COLUMNS_SYNTAX}")
        return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}
    if not isinstance(value, Mapping) or not all(isinstance(theirs, str) for theirs in value.values()):
        raise SampleError(f"{where}: {value!r} is no mapping of names: {COLUMNS_SYNTAX}")
    return dict(value)


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
