"""Rows out of JSON files: one object per line, one array, one object around an array, or objects one after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import one_line, show
from mgpo_train.data.formats.conversation import is_conversation

__all__ = ["NamedRow", "parse_row", "read_json_rows", "read_text"]

NamedRow = tuple[str, Callable[[], Mapping[str, Any]]]
"""What a row is called in errors, and a way to read it, which raises SampleError."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_TURNS = ("messages", "conversations", "prompt")
_OF_A_ROW = frozenset((
    *_TURNS, "question", "problem", "query", "instruction", "text", "image", "images", "image_path", "answer",
    "solution", "label", "ground truth", "ground_truth", "choices", "options", "answer choices", "objects", "boxes",
))  # fmt: skip
"""Columns of a row: an object with one of them is no wrapper around rows."""
_WRAPPERS = (
    "data", "annotations", "questions", "samples", "rows", "items", "examples", "instances", "records", "entries",
    "train", "val", "validation", "dev", "test",
)  # fmt: skip


def read_json_rows(path: Path) -> list[NamedRow]:
    """The rows of a .jsonl or .json file, to be parsed one at a time; raises SampleError for what is neither."""
    text = read_text(path)
    # split at newlines alone: JSON texts may hold the other characters that str.splitlines() splits at
    split = enumerate(text.split("\n"), start=1)
    # a byte order mark inside: files that were put together
    lines = [(number, plain) for number, line in split if (plain := line.lstrip("\ufeff")).strip()]
    if not lines:
        raise SampleError(f"{path} has no rows")
    first = lines[0][1]
    if len(lines) > 1 and isinstance(_try(first), dict):
        return _of_lines(path, lines)
    whole = _try(text)
    if isinstance(whole, dict):
        return _of_object(path, whole, lines)
    if isinstance(whole, list):
        return [_entry(path, number, value) for number, value in enumerate(whole)]
    objects = _objects(text) if first.lstrip().startswith("{") else None
    if objects is not None:
        return [_entry(path, number, value) for number, value in enumerate(objects)]
    if first.lstrip().startswith("[") and not any(isinstance(_try(line), dict) for _, line in lines):
        _parse(text, str(path))  # raises: an array that breaks off
    return _of_lines(path, lines)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; raises SampleError for any other encoding, with the remedy."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(f"{path} cannot be read: {one_line(error.strerror or error)}") from error
    for magic, kind in _COMPRESSED.items():
        if data.startswith(magic):
            raise SampleError(f"{path} is compressed ({kind}): unpack it first")
    if data.startswith(b"version https://git-lfs"):
        raise SampleError(f"{path} is a pointer of Git LFS, not the file itself: fetch it with git lfs pull")
    if data.startswith(b"PAR1"):
        raise SampleError(f"{path} is a parquet file: give it a name that ends in .parquet")
    if data.startswith(_UTF16) or b"\0" in data[:4]:
        raise SampleError(f"{path} is not UTF-8 text (UTF-16 or UTF-32, it seems): save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SampleError(f"{path} is not UTF-8 text ({one_line(error)}): save it as UTF-8") from error


def _of_lines(path: Path, lines: list[tuple[int, str]]) -> list[NamedRow]:
    names = [f"{path.name}, line {number}" for number, _ in lines]
    return [(name, partial(parse_row, line, name)) for name, (_, line) in zip(names, lines, strict=True)]


def _of_object(path: Path, whole: dict[str, Any], lines: list[tuple[int, str]]) -> list[NamedRow]:
    """The rows of a file that is one object: the list in it, or the object itself as the only row."""
    rows = _wrapped(whole)
    if rows is not None:
        return [_entry(path, number, entry) for number, entry in enumerate(rows)]
    values = list(whole.values())
    if values and all(isinstance(value, dict) for value in values):
        raise SampleError(
            f"{path} holds one object with a row under each key: write the rows as an array, [{{...}}, ...]"
        )
    tables = [key for key, value in whole.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len([key for key in tables if key not in _TURNS]) > 1 and not any(isinstance(value, str) for value in values):
        raise SampleError(f"{path} holds one object with several lists ({show(tables)}): write the rows as one array")
    lengths = {len(value) if isinstance(value, list) else -1 for value in values}
    if len(values) > 1 and len(lengths) == 1 and min(lengths) > 0 and not set(_TURNS) & set(whole):
        raise SampleError(f"{path} holds a list for each column: write an object for each row")
    return _of_lines(path, lines) if len(lines) == 1 else [_entry(path, 0, whole)]


def _wrapped(whole: dict[str, Any]) -> list[Any] | None:
    """The rows that an object holds beside nothing, or beside what is said of all of them; None for a row."""
    lists = {key: value for key, value in whole.items() if isinstance(value, list) and value}
    key, rows = next(iter(lists.items()), ("", []))
    if len(lists) != 1 or not all(isinstance(row, dict) for row in rows) or is_conversation(rows):
        return None
    if len(whole) == 1:
        return None if key in _TURNS else rows
    others = [value for name, value in whole.items() if name != key]
    if _OF_A_ROW & {name.lower() for name in whole}:
        return None
    return rows if key.lower() in _WRAPPERS or not any(isinstance(value, str) for value in others) else None


def _entry(path: Path, number: int, value: Any) -> NamedRow:
    name = f"{path.name}, entry {number + 1}"

    def read() -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise SampleError(f"{name} is {show(value)}: write an object for each row")
        return _unique(value, name)

    return name, read


def _objects(text: str) -> list[Any] | None:
    """Values that are written one after another, over several lines each; None where the text is something else."""
    found: list[Any] = []
    at = 0
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs.of)
    try:
        while True:
            while at < len(text) and text[at].isspace():
                at += 1
            if at == len(text):
                return found
            value, at = decoder.raw_decode(text, at)
            found.append(value)
    except (ValueError, RecursionError):
        return None


class _Pairs(dict[str, Any]):
    """An object that knows which of its keys was given twice."""

    twice: str | None = None

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """A plain dict, unless a key is given twice or a part of it was."""
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        seen: set[str] = set()
        marked = cls(found)
        marked.twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return marked


def _unique(value: Any, name: str) -> Any:
    """The value, with SampleError for a key that is given twice anywhere in it."""
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, _Pairs):
            raise SampleError(f"{name} gives the key {show(part.twice)} twice: leave one")
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return value


def _parse(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs.of)
    except RecursionError as error:
        raise SampleError(f"{name} is nested too deeply: write it flat") from error
    except ValueError as error:
        raise SampleError(f"{name} is not JSON: {one_line(error)}") from error


def _try(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs.of)
    except (ValueError, RecursionError):
        return None


def parse_row(line: str, name: str) -> Mapping[str, Any]:
    """The object on a line, which is called `name` in errors; raises SampleError."""
    try:
        row = _parse(line, name)
    except SampleError as error:
        raise SampleError(f"{error}; write one JSON object per line") from error
    if not isinstance(row, dict):
        raise SampleError(f"{name} is a {type(row).__name__}: write one JSON object per line")
    return _unique(row, name)
