"""One row of a data set -> one `Sample`, or a `SampleError` that names the row and the column."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mgpo_core import Box, Sample
from mgpo_core.answers import choice_letter, resolve_choice
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.file_identity import digest_bytes
from mgpo_core.pillow_limit import pillow_limit_lifted
from mgpo_core.questions import split_question, without_letters
from mgpo_core.regions import Solution
from mgpo_core.sample import MAX_PIXELS, load_image
from mgpo_train.options import nearest

FIELDS = ("question", "image", "images", "choices", "answer", "boxes", "id", "regions", "solution")

SCHEMAS: dict[str, dict[str, tuple[str, ...]]] = {
    # for each of our fields the columns that may hold it, first found wins; a dot steps into a nested column
    "plain": {name: (name,) for name in FIELDS},
    "mme-realworld": {
        "question": ("question", "Text"),
        "image": ("image", "bytes", "images", "image_path", "Image"),
        "choices": ("multi-choice options", "choices", "Answer choices"),
        "answer": ("answer", "Ground truth", "ground_truth", "solution", "reward_model.ground_truth"),
        "id": ("index", "Question_id", "question_id", "id"),
    },
    "vstar": {
        "question": ("text",),
        "image": ("image",),
        "choices": ("text",),
        "answer": ("label",),
        "id": ("question_id",),
    },
}


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ORIENTATION = 0x0112
_LAST_BYTES = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
"""What a complete file of the format has at its end."""


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds which of our fields."""

    of: Mapping[str, str]

    @classmethod
    def resolve(
        cls,
        available: Sequence[str],
        schema: str,
        mapping: Mapping[str, str],
        source: str,
        *,
        truth: str = "answer",
    ) -> Columns:
        """Match fields with columns; raises SampleError when a needed one is missing or a mapped one does not exist.

        `truth` is the field that rewards compare with: `answer`, or `boxes` where the answer is a box.
        """
        if schema not in SCHEMAS:
            raise SampleError(f"{source}: schema={schema!r}: {nearest(schema, SCHEMAS)}")
        unknown = [name for name in mapping if name not in FIELDS]
        if unknown:
            raise SampleError(
                f"{source}: columns: {unknown[0]!r} is not one of our fields: {nearest(unknown[0], FIELDS)}"
            )
        found = {}
        for name in FIELDS:
            candidates = (mapping[name],) if name in mapping else SCHEMAS[schema].get(name, ())
            column = next((c for c in candidates if c.split(".")[0] in available), None)
            if name in mapping and column is None:
                raise SampleError(
                    f"{source}: columns maps {name!r} to {mapping[name]!r}, which the data does not have "
                    f"(it has {', '.join(available)}): {nearest(mapping[name], available)}"
                )
            if column is not None:
                found[name] = column
        for name in ("question", truth):
            if name not in found:
                raise SampleError(_missing(source, name, available))
        if "image" not in found and "images" not in found:
            raise SampleError(_missing(source, "image", available))
        return cls(found)

    def get(self, row: Mapping[str, Any], name: str) -> Any:
        """The row's value of one of our fields; None when the table has no such column."""
        column = self.of.get(name)
        if column is None:
            return None
        if column in row:
            return row[column]
        value: Any = row
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def _missing(source: str, name: str, available: Sequence[str]) -> str:
    return (
        f"{source}: no column holds the {name} (columns: {', '.join(available) or 'none'}): "
        f"rename it, or map it with columns={{{name!r}: 'YOUR COLUMN'}}"
    )


@dataclass(frozen=True)
class RowImage:
    """An image that stays in its table until it is needed: calling it fetches and decodes the cell."""

    fetch: Callable[[], Any]
    name: str
    digest: str | None = None
    """Of its bytes, taken when the row was checked: they are not read again to tell whether they were changed."""

    def __call__(self) -> Image.Image:
        return load_image(as_source(self.fetch(), None), name=self.name)


def digest_of(source: Any) -> str | None:
    """A digest of an image's bytes that is cheap for large ones; None for what is not bytes."""
    return digest_bytes(bytes(source)) if isinstance(source, bytes | bytearray | memoryview) else None


def read_row(
    row: Mapping[str, Any],
    columns: Columns,
    *,
    name: str,
    folder: Path | None,
    row_id: str,
    full: bool = False,
    truth: str = "answer",
) -> Sample:
    """Check every field of a row and build its sample; paths are relative to `folder`; raises SampleError.

    Pictures are checked by `check_image`, which decodes them all when `full`. `truth`: as in `Columns.resolve`.
    """
    question = columns.get(row, "question")
    if not isinstance(question, str) or not question.strip():
        raise _bad(name, columns, "question", f"is {_show(question)}: give a non-empty text")
    choices = _choices(columns.get(row, "choices"), name, columns)
    if columns.of.get("choices") == columns.of["question"]:
        question = split_question(question)[0]
    answer = _answer(columns.get(row, "answer"), choices, name, columns, optional=truth != "answer")
    field, images = _images(row, columns, name, folder)
    sizes = [_verify(source, name, columns, field, full=full) for source in images]
    used = {column.split(".")[0] for column in columns.of.values()}
    extra = {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float | bool) and k != "bytes"}
    identity = columns.get(row, "id")
    boxes = _boxes(columns.get(row, "boxes"), sizes, name, columns)
    if truth == "boxes" and not boxes:
        raise _bad(name, columns, "boxes", "holds no true box: the answer is to be one")
    return Sample(
        question=question.replace("<image>", "").strip(),
        images=tuple(images),
        answer=answer,
        choices=choices,
        boxes=boxes,
        regions=_boxes(columns.get(row, "regions"), sizes, name, columns, "regions"),
        solution=_solution(columns.get(row, "solution"), sizes, name, columns),
        id=row_id if identity is None else str(identity),
        metadata=extra,
    )


def as_source(value: Any, folder: Path | None) -> Any:
    """A cell as something `mgpo_core.load_image` takes: decoded base64 text, a path under `folder`, bytes."""
    if isinstance(value, Mapping):
        return value["bytes"] if value.get("bytes") is not None else as_source(value.get("path"), folder)
    if isinstance(value, str):
        # base64 has no dots, paths to pictures do; a base64 picture is never shorter than this
        if len(value) > 100 and "." not in value[-10:] and re.fullmatch(r"[A-Za-z0-9+/=\s]{100}", value[:100]):
            return base64.b64decode(value, validate=False)
        return str(folder / value) if folder is not None and not os.path.isabs(value) else value
    return value


def image_cells(row: Mapping[str, Any], columns: Columns) -> tuple[str, list[Any]]:
    """(our field, its cells): `images`, or `image` where the row has no list of several."""
    value = columns.get(row, "images")
    field = "image" if value is None or value == [] or value == "" else "images"
    if field == "image" and "image" in columns.of:
        value = columns.get(row, "image")
    elif "images" in columns.of:
        field = "images"
    return field, list(value) if isinstance(value, list | tuple) else [value]


def _images(row: Mapping[str, Any], columns: Columns, name: str, folder: Path | None) -> tuple[str, list[Any]]:
    """(our field, sources of its images)."""
    field, values = image_cells(row, columns)
    if not values or any(v is None or v == "" for v in values):
        raise _bad(name, columns, field, f"is {_show(values[0] if len(values) == 1 else values)}: give an image")
    for value in values:
        place = value.get("path") if isinstance(value, Mapping) and value.get("bytes") is None else value
        if isinstance(place, str) and _ADDRESS.match(place):
            raise _bad(name, columns, field, f"is the address {_show(place)}: download it first and give its path")
    try:
        return field, [as_source(v, folder) for v in values]
    except (binascii.Error, ValueError) as error:
        raise _bad(name, columns, field, f"is not base64: {error}") from error


def _verify(source: Any, name: str, columns: Columns, field: str, *, full: bool) -> tuple[int, int]:
    """Size in pixels (width, height) of a readable picture; raises SampleError for any other."""
    if isinstance(source, Image.Image):
        return source.size
    if not isinstance(source, str | bytes | os.PathLike):
        raise _bad(name, columns, field, f"is a {type(source).__name__}: give a path, bytes or a picture")
    try:
        return check_image(source, full=full)
    except FileNotFoundError as error:
        raise _bad(name, columns, field, f"names a file that does not exist: {source!r}") from error
    except (ImageError, UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        shown = repr(str(source)) if not isinstance(source, bytes) else f"{len(source)} bytes"
        raise _bad(name, columns, field, f"({shown}) is not a readable picture: {error}") from error


def check_image(source: str | bytes | os.PathLike[str], *, full: bool = False) -> tuple[int, int]:
    """(width, height) of a picture after EXIF rotation; raises ImageError if it is cut short, too large or moving.

    Cheap for JPEG and PNG: a header and the last bytes are read. `full`, and any other format, decodes the picture.
    """
    # Pillow's own limit is lifted because ours, which is stated in the message, stands in its place
    with pillow_limit_lifted(None):
        picture = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    with picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"its {width}x{height} pixels are over the limit of {MAX_PIXELS:,}; scale it down")
        kind = picture.format or ""
        if getattr(picture, "is_animated", False) and kind != "MPO":
            raise ImageError("it is an animation or has several pages; save the one you mean")
        # the base class's method: PNG's own decodes the whole picture to look behind it
        turned = Image.Image.getexif(picture).get(_ORIENTATION) in (5, 6, 7, 8)
    end = _LAST_BYTES.get(kind)
    if end is not None and end not in (source[-65_536:] if isinstance(source, bytes) else _tail(source)):
        raise ImageError(f"the {kind} file is cut short; copy it again")
    if full or end is None:
        load_image(source)
    return (height, width) if turned else (width, height)


def _tail(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 65_536))
        return file.read()


def _choices(value: Any, name: str, columns: Columns) -> tuple[str, ...]:
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, str):  # a block of lines "(A) red\n(B) blue", with or without the question before it
        texts = split_question(f"?\n{value}")[1]
    elif isinstance(value, list | tuple) and all(isinstance(v, str | int | float) for v in value):
        texts = without_letters(value) if len(value) <= 26 else ()
    else:
        raise _bad(name, columns, "choices", f"is {_show(value)}: give a list of texts")
    if len(texts) < 2 or len(texts) > 26 or not all(texts):
        hint = "a line '(A) ...' for each choice" if isinstance(value, str) else "2 to 26 non-empty texts"
        raise _bad(name, columns, "choices", f"is {_show(value)}: give {hint}, or none for open answers")
    return texts


def _answer(value: Any, choices: tuple[str, ...], name: str, columns: Columns, *, optional: bool = False) -> str | None:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise _bad(name, columns, "answer", f"is {_show(value)}: give a text or a number")
    answer = str(value).strip()
    if not choices:
        return answer
    index = resolve_choice(answer, choices)
    if index is None:
        last = choice_letter(len(choices) - 1)
        raise _bad(name, columns, "answer", f"is {answer!r}: give one letter of A to {last}, or the text of a choice")
    return choice_letter(index)


def _boxes(
    value: Any, sizes: Sequence[tuple[int, int]], name: str, columns: Columns, field: str = "boxes"
) -> tuple[Box, ...]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return ()
    if isinstance(value, list | tuple) and len(value) == 4 and all(isinstance(v, int | float) for v in value):
        value = [value]
    boxes = []
    for entry in value if isinstance(value, list | tuple) else [value]:
        image = entry.get("image", 0) if isinstance(entry, Mapping) else 0
        numbers = entry.get("bbox_2d", entry.get("box")) if isinstance(entry, Mapping) else entry
        if not (
            isinstance(numbers, list | tuple) and len(numbers) == 4 and all(isinstance(v, int | float) for v in numbers)
        ):
            raise _bad(name, columns, field, f"holds {_show(entry)}: give [x1, y1, x2, y2] in pixels of the original")
        if not isinstance(image, int) or not 0 <= image < len(sizes):
            raise _bad(name, columns, field, f"names image {image!r} of {len(sizes)} (counted from 0)")
        x1, y1, x2, y2 = map(float, numbers)
        width, height = sizes[image]
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise _bad(
                name, columns, field, f"holds {_show(entry)}, which does not lie in the {width}x{height} original"
            )
        boxes.append(Box(x1, y1, x2, y2, image))
    return tuple(boxes)


def _solution(value: Any, sizes: Sequence[tuple[int, int]], name: str, columns: Columns) -> Solution | None:
    """What `mgpo-train build-trajectories` writes: reasoning, regions, box and label."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("reasoning"), str):
        raise _bad(name, columns, "solution", f"is {_show(value)}: give reasoning, regions, box and label")
    boxes = _boxes(value.get("box") and [value["box"]], sizes, name, columns, "solution")
    if not boxes:
        raise _bad(name, columns, "solution", f"is {_show(value)}: it has no box")
    regions = _boxes(value.get("regions"), sizes, name, columns, "solution")
    try:
        return Solution(value["reasoning"], boxes[0], str(value.get("label") or ""), regions)
    except SampleError as error:
        raise _bad(name, columns, "solution", f"cannot be: {error}") from error


def _bad(name: str, columns: Columns, field: str, message: str) -> SampleError:
    return SampleError(f"{name}, column {columns.of.get(field, field)!r} {message}")


def _show(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
