"""Benchmark rows read from their columns: question, choices and images, as the benchmark's makers wrote them.

The stock tasks of lmms-eval put all of it into one prompt, and not always rightly (`vstar_doc_to_text` of 0.7.3 drops
choices with parentheses in them and shifts the letters). A row whose columns are known is read here instead, by the
stock tasks and by our own; any other row is read from its task's prompt.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mgpo_core import Box
from mgpo_core.errors import ImageError, SampleError
from mgpo_core.images.load import ImageSource
from mgpo_core.images.source import decode_base64, from_uri, is_uri
from mgpo_core.samples.choice_columns import lettered_choices
from mgpo_core.samples.questions import split_question, without_letters
from mgpo_core.samples.repeated_questions import question_key
from mgpo_eval.tasks.haystack_rows import answer_of_set, boxes_in, images_of_set, images_of_words

__all__ = ["READERS", "Reader", "find_reader"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reader:
    """How the rows of one benchmark are read."""

    name: str
    columns: frozenset[str]
    """Columns by which such rows are known."""
    question: Callable[[Row], tuple[str, tuple[str, ...]]]
    """The question, and its choices without letters."""
    answer: Callable[[Row], str]
    """The letter of the right choice, or the box that is asked for; for scoring, never for the model."""
    categories: Callable[[Row], tuple[str, ...]]
    """The categories that a row belongs to, the coarsest first."""
    images: Callable[[Row], list[ImageSource]]
    """The row's images, not decoded yet."""
    image_columns: tuple[str, ...] = ()
    """The columns that hold them, which need not be read for the rest."""
    count: Callable[[Row], int] = lambda row: 1
    """How many images a row has."""
    boxes: Callable[[Row], tuple[Box, ...]] = lambda row: ()
    """True boxes in pixels of the originals, where they are known."""
    regions: Callable[[Row], tuple[Box, ...]] = lambda row: ()
    """The boxes that the question speaks of, one for each `<region>` in it, in pixels of the originals."""
    cluster: Callable[[Row], str | None] = lambda row: None
    """Names the question, the same for every row that asks it; None where each row asks its own."""
    asks_for_box: bool = False
    """Whether the answer is a box in one of the images, not words."""


def find_reader(columns: Iterable[str]) -> Reader | None:
    """The reader of rows with these columns; None where they are no benchmark's that is known."""
    have = frozenset(columns)
    return next((reader for reader in READERS if reader.columns <= have), None)


def _image(column: str) -> Callable[[Row], list[ImageSource]]:
    """Reads one image out of a column: base64 text, or an image of `datasets`, decoded or not."""

    def read(row: Row) -> list[ImageSource]:
        value = row[column]
        if isinstance(value, str):
            try:
                return [from_uri(value) if is_uri(value) else decode_base64(value)]
            except ImageError as error:
                raise SampleError(
                    f"column {column!r} holds no base64 image ({error}); download the data set again"
                ) from error
        if value is None:
            raise SampleError(f"column {column!r} holds no image; download the data set again")
        return [value]

    return read


def _mme_question(row: Row) -> tuple[str, tuple[str, ...]]:
    return str(row["question"]).strip(), without_letters(row["multi-choice options"])


def _mme_categories(row: Row) -> tuple[str, ...]:
    kind = "Perception" if "perception" in str(row["category"]).lower() else "Reasoning"
    return kind, f"{kind}/{str(row['category']).split('/')[-1]}", str(row["l2-category"])


def _hr_question(row: Row) -> tuple[str, tuple[str, ...]]:
    cells = {letter: row.get(letter) for letter in string.ascii_uppercase}
    return str(row["question"]).strip(), without_letters(lettered_choices(cells))


def _hr_cluster(row: Row) -> str:
    """The question and its image: the benchmark asks each in four rotations of its choices."""
    question, choices = _hr_question(row)
    image = row.get("image")
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (str, bytes)):
        return question_key(question, [image])
    return question_key(question, [], choices)  # a copy whose images lmms-eval takes away before it scores


READERS: tuple[Reader, ...] = (
    Reader(
        "vstar",
        frozenset({"image", "text", "category", "label", "question_id"}),
        question=lambda row: split_question(str(row["text"])),
        answer=lambda row: str(row["label"]).strip().upper(),
        categories=lambda row: (str(row["category"]),),
        images=_image("image"),
        image_columns=("image",),
    ),
    Reader(
        "mme-realworld",
        frozenset({"bytes", "question", "multi-choice options", "answer", "category", "l2-category"}),
        question=_mme_question,
        answer=lambda row: str(row["answer"]).strip().upper(),
        categories=_mme_categories,
        images=_image("bytes"),
        image_columns=("bytes",),
    ),
    Reader(
        "hr-bench",
        frozenset({"image", "question", "A", "B", "answer", "category", "cycle_category"}),
        question=_hr_question,
        answer=lambda row: str(row["answer"]).strip().upper(),
        categories=lambda row: (str(row["category"]),),
        images=_image("image"),
        image_columns=("image",),
        cluster=_hr_cluster,
    ),
    Reader(
        "haystack",
        frozenset({"haystack", "n", "seed", "images", "index", "question", "choices", "answer", "boxes"}),
        question=lambda row: (str(row["question"]), tuple(row["choices"])),
        answer=lambda row: str(row["answer"]),
        categories=lambda row: (str(row["category"]),),
        images=images_of_words,
        count=lambda row: int(row["images"]),
        boxes=lambda row: boxes_in(row["boxes"]),
    ),
    Reader(
        "haystack-multi",
        frozenset({"haystack_multi", "n", "seed", "images", "index", "question", "regions", "boxes", "sizes"}),
        question=lambda row: (str(row["question"]), ()),
        answer=answer_of_set,
        categories=lambda row: (str(row["category"]),),
        images=images_of_set,
        count=lambda row: len(row["sizes"]),
        boxes=lambda row: boxes_in(row["boxes"]),
        regions=lambda row: boxes_in(row["regions"]),
        asks_for_box=True,
    ),
)
