"""Samples of the haystack world as rows of a table; their images are drawn when they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from mgpo_core import Box, Sample, haystack
from mgpo_core.haystack.multi import make_sets
from mgpo_core.images.load import ImageSource
from mgpo_core.samples.annotations import AnnotatedSet

__all__ = [
    "answer_of_set",
    "boxes_in",
    "haystack_multi_rows",
    "haystack_rows",
    "images_of_set",
    "images_of_words",
]

Row = Mapping[str, Any]


@lru_cache(maxsize=4)
def _samples(split: str, n: int, seed: int, images: int) -> list[Sample]:
    return haystack.make(split, n, seed, images)


@lru_cache(maxsize=4)
def _sets(split: str, n: int, seed: int, images: int) -> list[AnnotatedSet]:
    return make_sets(split, n, seed, images)


def haystack_rows(split: str, n: int, seed: int, images: int) -> list[dict[str, Any]]:
    """Questions about stripes, whose answer is a letter."""
    origin = {"haystack": split, "n": n, "seed": seed, "images": images}
    return [
        {
            "index": index,
            "question": sample.question,
            "choices": list(sample.choices),
            "answer": sample.answer,
            "boxes": _plain(sample.boxes),
            "category": str(sample.metadata["shape"]),
            **origin,
        }
        for index, sample in enumerate(_samples(split, n, seed, images))
    ]


def haystack_multi_rows(split: str, n: int, seed: int, images: int) -> list[dict[str, Any]]:
    """Questions over several images, whose answer is a box in one of them; `sizes` are theirs, in pixels."""
    origin = {"haystack_multi": split, "n": n, "seed": seed, "images": images}
    return [
        {
            "index": index,
            "question": asked.question,
            "regions": _plain(asked.regions),
            "boxes": _plain([asked.answer.box]),
            "target_image": asked.answer.box.image,
            "label": asked.answer.label,
            "sizes": [list(size) for size in asked.sizes],
            "category": asked.task,
            **origin,
        }
        for index, asked in enumerate(_sets(split, n, seed, images))
    ]


def images_of_words(row: Row) -> list[ImageSource]:
    """The images of a row of `haystack_rows`."""
    return list(_samples(row["haystack"], row["n"], row["seed"], row["images"])[row["index"]].images)


def images_of_set(row: Row) -> list[ImageSource]:
    """The images of a row of `haystack_multi_rows`."""
    return list(_sets(row["haystack_multi"], row["n"], row["seed"], row["images"])[row["index"]].images)


def answer_of_set(row: Row) -> str:
    """The true box of a row of `haystack_multi_rows`, as answers are logged."""
    [box] = boxes_in(row["boxes"])
    return box.in_words()


def boxes_in(values: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    """Boxes out of a row's lists of x1, y1, x2, y2 and the image, in pixels of the originals."""
    return tuple(Box(x1, y1, x2, y2, int(image)) for x1, y1, x2, y2, image in values)


def _plain(boxes: Sequence[Box]) -> list[list[float]]:
    return [[*box.as_tuple(), float(box.image)] for box in boxes]
