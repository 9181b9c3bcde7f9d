"""Our fields out of a conversation and the columns beside it, as the layouts of conversations share them."""

from __future__ import annotations

from typing import Any

from mgpo_core.errors import SampleError
from mgpo_core.samples.choice_columns import is_missing
from mgpo_train.data.formats.conversation import Conversation
from mgpo_train.data.formats.layout import CHOICES, IMAGES, Fields, Row, cell, first_of

__all__ = ["conversation_fields"]

_ANSWERS = ("solution", "answer", "ground_truth", "completion")


def conversation_fields(
    row: Row, column: str, said: Conversation, *, answers: tuple[str, ...] = _ANSWERS, ids: tuple[str, ...] = ("id",)
) -> Fields:
    """Question and images of a conversation, with choices, boxes and id of the row.

    The answer is the first of `answers` (columns) with a value, else what the assistant says.
    """
    values: dict[str, Any] = {"question": said.question}
    columns = {"question": column}
    for name, known in (("choices", CHOICES), ("boxes", ("boxes",)), ("id", ids)):
        found = first_of(row, known)
        if found is not None:
            values[name], columns[name] = cell(row, found), found
    images = next((name for name in IMAGES if row.get(name) not in (None, "", [])), None)
    if said.images and images is not None:
        raise SampleError(f"columns {column!r} and {images!r} both hold images: leave them in one")
    if said.images:
        values["images"], columns["images"] = said.images, column
    else:
        columns["images"] = images or "images"
        values["images"] = None if images is None else row[images]
    answer = next((name for name in answers if not is_missing(cell(row, name))), None)
    if answer is not None:
        values["answer"], columns["answer"] = cell(row, answer), answer
    else:
        values["answer"], columns["answer"] = said.answer, column
    return Fields(values, columns, splits=True)
