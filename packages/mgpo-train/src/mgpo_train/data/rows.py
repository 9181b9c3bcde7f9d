"""One row of a data set -> one `Sample`, or a `SampleError` that names the row and the column."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from mgpo_core import Sample
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.files.file_identity import digest_bytes
from mgpo_core.images.budget import check_shape
from mgpo_core.images.check import check_image
from mgpo_core.images.load import load_image
from mgpo_core.images.source import as_source
from mgpo_core.messages.shown import one_line, show
from mgpo_core.samples.choice_columns import (
    choice_list,
    choices_by_letter,
    is_missing,
    labelled_choices,
    lettered_choices,
    saved_value,
    unread_choices,
)
from mgpo_core.samples.grading import choice_letter, lone_letter, normalise, resolve_choice
from mgpo_core.samples.image_marks import resolve_marks
from mgpo_core.samples.questions import lettered_otherwise, split_question, without_letters
from mgpo_train.data.formats import Fields, Row
from mgpo_train.data.formats.box_answer import boxes_of
from mgpo_train.data.formats.conversation import is_conversation, is_list_as_text
from mgpo_train.data.formats.reading import Reading
from mgpo_train.data.formats.worked_answer import final_answer
from mgpo_train.data.row_boxes import read_boxes, read_solution

__all__ = ["RowImage", "check_image", "read_row", "row_images"]

_BOX_AS_ANSWER = "holds a box: use a template that answers with one, as method=mirg does"
_NO_CHOICES = "leave the column out with columns=choices="


@dataclass(frozen=True)
class RowImage:
    """An image that stays in its table until it is needed: calling it fetches and decodes the cell."""

    fetch: Callable[[], Any]
    name: str
    digest: str | None = None
    """Of its bytes, taken when the row was checked: they are not read again to tell whether they were changed."""

    def __call__(self) -> Image.Image:
        return load_image(self.fetch(), name=self.name)


def digest_of(source: Any) -> str | None:
    """A digest of an image's bytes that is cheap for large ones; None for what is not bytes."""
    return digest_bytes(bytes(source)) if isinstance(source, bytes | bytearray | memoryview) else None


def read_row(
    row: Row,
    reading: Reading,
    *,
    name: str,
    folder: Path | None,
    row_id: str,
    full: bool = False,
    checked: dict[str, tuple[int, int]] | None = None,
) -> Sample:
    """Check every field of a row and build its sample; paths are relative to `folder`; raises SampleError.

    Images are checked by `check_image`, which decodes them all when `full`; those of the paths in `checked` were, and
    have these sizes: it grows by the row's.
    """
    try:
        fields = _with_choices(reading.fields(row), row, reading)
    except SampleError as error:
        raise SampleError(f"{name}, {error}") from error
    return _Row(name, fields, reading, folder, full, {} if checked is None else checked).sample(row, row_id)


def row_images(fields: Fields) -> tuple[str, list[Any]]:
    """(our field, its cells): `images`, or `image` where the row has no list of several."""
    value = fields.values.get("images")
    field = "image" if value is None or value == [] or value == "" else "images"
    if field == "image" and "image" in fields.columns:
        value = fields.values.get("image")
    elif "images" in fields.columns:
        field = "images"
    return field, list(value) if isinstance(value, list | tuple) else [value]


@dataclass(frozen=True)
class _Row:
    """One row on its way to a sample."""

    name: str
    fields: Fields
    reading: Reading
    folder: Path | None
    full: bool
    checked: dict[str, tuple[int, int]]

    def sample(self, row: Row, row_id: str) -> Sample:
        images, sizes = self._images()
        question, choices = self._question(len(images))
        ground_truth = self.reading.ground_truth
        numbers = self.reading.numbers.declared(self.fields.box_scale, self._bad)
        said = None if choices else self._boxes_as_answer()
        boxes = read_boxes(self._value("boxes"), sizes, numbers, partial(self._bad, "boxes"))
        boxes = boxes or read_boxes(said, sizes, numbers, partial(self._bad, "answer"))
        regions = read_boxes(self._value("regions"), sizes, numbers, partial(self._bad, "regions"), field="regions")
        if ground_truth == "boxes" and not boxes:
            raise self._no_box()
        if said and ground_truth != "boxes":
            raise self._bad("answer", _BOX_AS_ANSWER)
        answer = None if said else self._answer(choices, optional=ground_truth == "boxes")
        self._check_unread(row, answer, choices)
        solution = read_solution(self._value("solution"), sizes, numbers, partial(self._bad, "solution"))
        identity, metadata = self._id(row_id), self._metadata(row)
        try:
            return Sample(
                question=question,
                images=tuple(images),
                answer=answer,
                choices=choices,
                boxes=boxes,
                regions=regions,
                solution=solution,
                id=identity,
                metadata=metadata,
            )
        except SampleError as error:
            raise SampleError(f"{self.name}: {error}") from error

    def _value(self, field: str) -> Any:
        return self.fields.values.get(field)

    def _bad(self, field: str, message: str) -> SampleError:
        return SampleError(f"{self.name}, column {show(self.fields.columns.get(field, field))} {message}")

    def _text(self, field: str, text: str) -> str:
        """A text that can be written as UTF-8: JSON may hold halves of characters."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self._bad(field, f"is {show(text)}, with half a character in it: write the text again") from error
        return text

    def _question(self, images: int) -> tuple[str, tuple[str, ...]]:
        """(question, choices), without marks of images and without letters."""
        question = self._value("question")
        if is_conversation(question):
            raise self._bad("question", "is a list of messages, which is read where columns= does not name it")
        if not isinstance(question, str) or not question.strip():
            raise self._bad("question", f"is {show(question)}: give a non-empty text")
        if is_list_as_text(question):
            raise self._bad("question", f"is {show(question)}, a list written as text: give the list itself")
        together = self.fields.columns.get("choices") == self.fields.columns["question"]
        given = self._choices()
        texts = [self._text("question", question), *(given or self.fields.listed)]
        question, *unmarked = self._unmarked(texts, images)
        choices = tuple(self._text("choices", choice) for choice in unmarked)
        if together:
            question = split_question(question)[0]
        else:
            apart, listed = split_question(question)
            self._check_same(choices if given else (), self.fields.listed or listed)
            if self.fields.splits or (not choices and self._answers_one_of(listed)):
                question, choices = apart, choices or listed
        if not question.strip() or not all(choice.strip() for choice in choices):
            raise self._bad("question", "holds no words, or an empty choice, besides image marks: give a text")
        return question.strip(), choices

    def _unmarked(self, texts: Sequence[str], images: int) -> tuple[str, ...]:
        try:
            return resolve_marks(texts, images)
        except SampleError as error:
            raise self._bad("question", str(error)) from error

    def _choices(self) -> tuple[str, ...]:
        value = self._value("choices")
        if is_missing(value) or value == [] or value == {}:
            self._may_lack_choices()
            return ()
        value = saved_value(value)  # a list written as text, as MMMU has it
        value = labelled_choices(value) or value
        # a text is a block of lines "(A) red\n(B) blue", with or without the question before it
        texts = split_question(f"?\n{value}")[1] if isinstance(value, str) else self._given_choices(value)
        if len(texts) < 2 or len(texts) > 26 or not all(text.strip() for text in texts):
            hint = "a line '(A) ...' for each choice" if isinstance(value, str) else "2 to 26 non-empty texts"
            raise self._bad("choices", f"is {show(value)}: give {hint}, or none for open answers; or {_NO_CHOICES}")
        return tuple(texts)

    def _given_choices(self, value: Any) -> tuple[str, ...]:
        """Choices of a list, or of texts by letter, without their letters."""
        by_letter = choices_by_letter(value)
        try:
            given = lettered_choices(by_letter) if by_letter else value
        except SampleError as error:
            raise self._bad("choices", str(error)) from error
        if not isinstance(given, list | tuple) or not all(_is_text(entry) for entry in given):
            raise self._bad("choices", f"is {show(value)}: give a list of texts, or {_NO_CHOICES}")
        if lettered_otherwise(given):
            raise self._bad(
                "choices",
                f"is {show(list(given))}, lettered in another order than A, B, C, ... or without a text: sort them by "
                "letter, or write a letter of its own before each, '(A) ...'",
            )
        return without_letters(given) if len(given) <= 26 else ()

    def _boxes_as_answer(self) -> Any:
        try:
            return boxes_of(self._value("answer"))
        except SampleError as error:
            raise self._bad("answer", str(error)) from error

    def _no_box(self) -> SampleError:
        if "boxes" in self.fields.columns:
            return self._bad("boxes", "holds no true box: the answer is to be one")
        return self._bad(
            "answer", "is no box, and no column holds the boxes: map the one that does with columns=boxes=YOUR COLUMN"
        )

    def _may_lack_choices(self) -> None:
        layout = self.reading.layout
        known = [name for name in layout.candidates.get("choices", ()) if name in self.reading.available]
        if layout.always_choices and known and "choices" not in self.reading.mapping:
            raise self._bad("choices", f"holds no choices, which every row of {layout.name} has: give them")

    def _check_unread(self, row: Row, answer: str | None, choices: tuple[str, ...]) -> None:
        """Refuse a letter as the answer to an open question beside a column that seems to hold its choices."""
        letter = lone_letter(answer) if answer is not None else None
        if choices or letter is None or "choices" in self.reading.mapping:
            return
        read = set(self.fields.columns.values())
        names = unread_choices({k: v for k, v in row.items() if k not in read}, ord(letter) - ord("A") + 1)
        if names:
            one = len(names) == 1
            raise self._bad(
                "answer",
                f"is {show(answer)}, a letter, while {show(names[0] if one else names)} may hold the choices: "
                + (f"say so with columns=choices={one_line(names[0])}" if one else "put them into one column choices")
                + f", or, for an open question, {_NO_CHOICES}",
            )

    def _check_same(self, choices: tuple[str, ...], listed: tuple[str, ...]) -> None:
        """Refuse choices that are not those which the question lists: whose letter is the answer?"""
        if choices and listed and list(map(normalise, choices)) != list(map(normalise, listed)):
            raise self._bad(
                "choices",
                f"gives {show(list(choices))}, where the question lists {show(list(listed))}: make them the same, or "
                f"{_NO_CHOICES}",
            )

    def _answer(self, choices: tuple[str, ...], *, optional: bool) -> str | None:
        value = self._value("answer")
        if value is None and optional:
            return None
        columns = self.fields.columns
        if value is None and self._value("boxes") and columns.get("answer") == columns.get("boxes"):
            raise self._bad("answer", _BOX_AS_ANSWER)
        if value is None and columns.get("answer") == columns.get("question"):
            raise self._bad("answer", "has no answer in it: name the column that has with columns=answer=YOUR COLUMN")
        if not _is_text(value) or not str(value).strip():
            raise self._bad("answer", f"is {show(value)}: give a text or a number")
        try:
            answer = final_answer(self._text("answer", str(value)), may_explain=self.fields.splits)
        except ValueError as error:  # SampleError, or an integer of too many digits
            raise self._bad("answer", one_line(error)) from error
        if not choices:
            return answer
        if self._may_be_place(value, choices):
            raise self._bad(
                "answer", f"is the number {show(value)}: a choice's place or its text? give its letter (as text, 'A')"
            )
        index = resolve_choice(answer, choices)
        if index is None:
            last = choice_letter(len(choices) - 1)
            raise self._bad("answer", f"is {show(answer)}: give one letter of A to {last}, or the text of a choice")
        return choice_letter(index)

    def _answers_one_of(self, listed: tuple[str, ...]) -> bool:
        """Whether the answer is the letter of a choice that the question lists."""
        answer = self._value("answer")
        letter = lone_letter(answer) if isinstance(answer, str) else None
        return letter is not None and ord(letter) - ord("A") < len(listed)

    def _may_be_place(self, value: Any, choices: tuple[str, ...]) -> bool:
        """Whether an answer may count choices, from 0 or 1: a number where they are not all given as numbers."""
        given = self._value("choices")
        as_numbers = isinstance(given, list) and all(isinstance(choice, int | float) for choice in given)
        return isinstance(value, int | float) and 0 <= value <= len(choices) and not as_numbers

    def _images(self) -> tuple[list[Any], list[tuple[int, int]]]:
        """The sources of the row's images, and their sizes (width, height) in pixels."""
        field, values = row_images(self.fields)
        if not values or any(value is None or value == "" for value in values):
            raise self._bad(field, f"is {show(values[0] if len(values) == 1 else values)}: give an image")
        try:
            sources = [as_source(value, self.folder) for value in values]
        except ImageError as error:
            raise self._bad(field, str(error)) from error
        return sources, [self._size(source, field) for source in sources]

    def _size(self, source: Any, field: str) -> tuple[int, int]:
        shown = (
            show(source, 200)
            if isinstance(source, str)
            else f"{len(source)} bytes"
            if isinstance(source, bytes)
            else ""
        )
        try:
            if isinstance(source, Image.Image):
                check_shape(*source.size)
                return source.size
            if not isinstance(source, str | bytes):
                raise self._bad(field, f"is a {type(source).__name__}: give a path, bytes or an image")
            if isinstance(source, bytes):
                return check_image(source, full=self.full)
            if source not in self.checked:
                self.checked[source] = check_image(source, full=self.full)
            return self.checked[source]
        except FileNotFoundError as error:
            raise self._bad(field, f"names a file that does not exist: {shown}") from error
        except ImageError as error:
            raise self._bad(field, f"({shown}) is not a readable image: {error}") from error

    def _id(self, row_id: str) -> str:
        value = self._value("id")
        if value is None:
            return row_id
        if not _is_text(value):
            raise self._bad("id", f"is {show(value)}: give a text or a number, or unmap it with columns=id=")
        return self._text("id", str(value))

    def _metadata(self, row: Row) -> dict[str, Any]:
        """The other columns with plain values; NaN is how tables write that there is none."""
        used = {column.split(".")[0] for column in self.fields.columns.values()} | set(self.fields.columns.values())
        kept = {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float) and k != "bytes"}
        for key, value in kept.items():
            self._text(show(key), str(key))
            if isinstance(value, str):
                self._text(str(key), value)
        return {k: v for k, v in kept.items() if not isinstance(v, float) or math.isfinite(v)}


def _with_choices(fields: Fields, row: Row, reading: Reading) -> Fields:
    """The fields with choices from a column of another usual name, where the layout and the mapping found none."""
    found = fields.values.get("choices")
    if "choices" in reading.mapping or not (is_missing(found) or found in ([], (), {})):
        return fields
    read = {column.split(".")[0] for name, column in fields.columns.items() if name != "choices"}
    column = choice_list({name: value for name, value in row.items() if name not in read})
    if column is None:
        return fields
    return replace(
        fields,
        values={**fields.values, "choices": row[column]},
        columns={**fields.columns, "choices": column},
    )


def _is_text(value: Any) -> bool:
    """Whether a cell is a text or a number that can be written as one."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)
