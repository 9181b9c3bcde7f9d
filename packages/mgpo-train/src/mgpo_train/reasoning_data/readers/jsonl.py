"""Annotated sets from JSONL, one to a line, in this project's own schema (docs/reasoning-data.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mgpo_core.boxes.parse import Box
from mgpo_core.boxes.regions import REGION
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.messages.shown import show
from mgpo_core.messages.suggest import nearest
from mgpo_core.samples.annotations import RELATIONS, AnnotatedObject, AnnotatedSet, Relation
from mgpo_core.templates.multi_image import THINK
from mgpo_train.data.json_rows import parse_row, read_text
from mgpo_train.data.rows import check_image
from mgpo_train.reasoning_data.readers.annotations import Annotations

__all__ = ["FIELDS", "read_jsonl"]

FIELDS = ("id", "question", "images", "objects", "relations", "target", "task", "regions")
_OBJECT_FIELDS = ("image", "label", "bbox", "attributes")
_RELATION_FIELDS = ("kind", "images", "objects")
_REGION_FIELDS = ("image", "bbox")
_RESERVED = (*THINK, REGION, "\n")


class BadRecordError(SampleError):
    """A line that is not an annotated set; `field` is what is wrong with it."""

    def __init__(self, name: str, field: str, message: str) -> None:
        super().__init__(f"{name}, field {field!r} {message}")
        self.field = field.partition("[")[0]


def read_jsonl(path: Path, folder: Path, *, n: int | None, skip: bool) -> Annotations:
    """Every set of a file; image paths are relative to `folder`. Raises SampleError at the first bad line.

    With `skip`, bad lines are left out and counted by the field that is wrong.
    """
    found = Annotations(str(path), [])
    for number, line in _lines(path):
        if n is not None and len(found.sets) == n:
            break
        name = f"{path.name}, line {number}"
        try:
            found.sets.append(_Record(name, parse_row(line, name), folder).read(number))
        except SampleError as error:
            if not skip:
                raise
            found.left_out[f"bad_{getattr(error, 'field', 'record')}"] += 1
            found.messages.append(str(error))
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # split at newlines alone: JSON texts may hold the other characters that str.splitlines() splits at
    lines = enumerate(read_text(path).split("\n"), start=1)
    return ((number, line) for number, line in lines if line.strip())


class _Record:
    """Reads one line as an annotated set; `name` is the line's name in errors."""

    def __init__(self, name: str, record: Mapping[str, Any], folder: Path) -> None:
        self.name, self.record, self.folder = name, record, folder

    def read(self, number: int) -> AnnotatedSet:
        """The annotated set; its id is by default the number of the line."""
        self._known(self.record, "", FIELDS)
        images = self._list("images", self.record.get("images"), self._path)
        sizes = [self._size(f"images[{place}]", path) for place, path in enumerate(images)]
        objects = self._list("objects", self.record.get("objects"), self._object)
        target = self._whole("target", self.record.get("target"), 0, len(objects) - 1)
        relations = self._list("relations", self.record.get("relations") or [], self._relation, least=0)
        regions = self._list("regions", self.record.get("regions") or [], self._region, least=0)
        try:
            return AnnotatedSet(
                id=self._id(number),
                question=self._text("question", self.record.get("question")),
                images=tuple(map(str, images)),
                objects=tuple(objects),
                target=target,
                relations=tuple(relations),
                task=self._task(),
                regions=tuple(regions),
                sizes=tuple(sizes),
            )
        except BadRecordError:
            raise
        except SampleError as error:
            raise SampleError(f"{self.name}: {error}; boxes are pixels of the original, after EXIF rotation") from error

    def _id(self, number: int) -> str:
        identity = self.record.get("id", number)
        if not isinstance(identity, str | int) or isinstance(identity, bool) or identity == "":
            raise self._bad("id", identity, "give a text or a number, or leave it out")
        return str(identity)

    def _task(self) -> str:
        task = self.record.get("task") or ""
        if not isinstance(task, str):
            raise self._bad("task", task, "give a text")
        return task

    def _bad(self, field: str, value: Any, remedy: str) -> BadRecordError:
        """The error that names the field, its value (cut short unless it is a path), and the remedy."""
        shown = show(str(value), 200) if isinstance(value, Path) else show(value)
        return BadRecordError(self.name, field, f"is {shown}: {remedy}")

    def _known(self, record: Mapping[str, Any], field: str, known: tuple[str, ...]) -> None:
        for key in record:
            if key not in known:
                raise BadRecordError(self.name, f"{field}{key}", f"is unknown: {nearest(key, known)}")

    def _list(self, field: str, value: Any, read: Callable[[str, Any], Any], *, least: int = 1) -> list[Any]:
        if not isinstance(value, list) or len(value) < least:
            raise self._bad(field, value, "give a list" + (", not empty" if least else ""))
        return [read(f"{field}[{place}]", entry) for place, entry in enumerate(value)]

    def _mapping(self, field: str, value: Any, known: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self._bad(field, value, f"give an object with {', '.join(known)}")
        self._known(value, f"{field}.", known)
        return value

    def _text(self, field: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self._bad(field, value, "give a text that is not empty")
        return value

    def _word(self, field: str, value: Any) -> str:
        text = self._text(field, value).strip()
        if any(mark in text for mark in _RESERVED):
            raise self._bad(field, value, f"give it in one line, without {', '.join(_RESERVED[:-1])}")
        return text

    def _whole(self, field: str, value: Any, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self._bad(field, value, f"give a whole number from {low} to {high}")
        return value

    def _path(self, field: str, value: Any) -> Path:
        return self.folder / self._text(field, value)

    def _size(self, field: str, path: Path) -> tuple[int, int]:
        try:
            return check_image(str(path))
        except FileNotFoundError as error:
            remedy = "there is no such file; give its path relative to the file, or to --images"
            raise self._bad(field, path, remedy) from error
        except (ImageError, OSError, ValueError, SyntaxError) as error:
            raise self._bad(field, path, f"it is not a readable image ({error}); replace it") from error

    def _image(self, field: str, value: Any) -> int:
        return self._whole(field, value, 1, len(self.record["images"])) - 1

    def _box(self, field: str, value: Mapping[str, Any]) -> Box:
        image, bbox = self._image(f"{field}.image", value.get("image")), value.get("bbox")
        numbers = [float(n) for n in bbox if type(n) in (int, float)] if isinstance(bbox, list) else []
        if len(numbers) != 4 or len(bbox) != 4 or not all(map(math.isfinite, numbers)):  # type: ignore[arg-type]
            raise self._bad(f"{field}.bbox", bbox, "give [x1, y1, x2, y2] in pixels of the original")
        x1, y1, x2, y2 = numbers
        return Box(x1, y1, x2, y2, image)

    def _region(self, field: str, value: Any) -> Box:
        return self._box(field, self._mapping(field, value, _REGION_FIELDS))

    def _object(self, field: str, value: Any) -> AnnotatedObject:
        entry = self._mapping(field, value, _OBJECT_FIELDS)
        attributes = entry.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise self._bad(f"{field}.attributes", attributes, 'give an object of texts, as in {"colour": "red"}')
        said = {key: self._word(f"{field}.attributes.{key}", text) for key, text in attributes.items()}
        return AnnotatedObject(self._word(f"{field}.label", entry.get("label")), self._box(field, entry), said)

    def _relation(self, field: str, value: Any) -> Relation:
        entry = self._mapping(field, value, _RELATION_FIELDS)
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in RELATIONS:
            raise self._bad(f"{field}.kind", kind, nearest(str(kind), RELATIONS))
        images = self._list(f"{field}.images", entry.get("images"), self._image)
        last = len(self.record["objects"]) - 1
        objects = self._list(
            f"{field}.objects",
            entry.get("objects") or [],
            lambda where, place: self._whole(where, place, 0, last),
            least=0,
        )
        return Relation(kind, tuple(images), tuple(objects))
