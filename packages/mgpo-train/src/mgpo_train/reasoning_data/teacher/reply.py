"""A teacher's reply, which is JSON, as a trace: boxes in its reasoning become markers, numbers original pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mgpo_core.annotations import RELATIONS, AnnotatedSet
from mgpo_core.boxes import Box, CoordinateSpace
from mgpo_core.loose_json import find_values
from mgpo_core.regions import REGION, View, WorkedSolution
from mgpo_train.reasoning_data.trace import Claim, ObjectClaim, RelationClaim, Trace
from mgpo_train.reasoning_data.verifier import Problem, Reason
from mgpo_train.reasoning_data.verifier.prose import BOX

__all__ = ["ReplyError", "read_reply"]

_CLAIM_KEYS = {
    "holds": ("image", "holds", "count", "bbox_2d", "attributes"),
    "lacks": ("image", "lacks"),
    "relation": ("relation", "images", "objects"),
}
"""The keys of each kind of claim, by the key that tells the kinds apart."""


class ReplyError(ValueError):
    """A reply that cannot be read; `problem` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(reason, detail)


def read_reply(annotated: AnnotatedSet, text: str, view: View) -> Trace:
    """The trace that a reply states, unverified; `view` is what its numbers mean. Raises ReplyError."""
    found = [value.value for value in find_values(text)[0] if isinstance(value.value, dict) and not value.rescued]
    if len(found) != 1:
        raise ReplyError(Reason.REPLY_NOT_JSON, f"{len(found)} complete JSON objects instead of one: {text!r:.120}")
    entry = _Entry(found[0], "reply", view)
    claims = tuple(_claim(item, f"claims[{place}]", view) for place, item in enumerate(entry.list("claims")))
    reasoning, answer = entry.text("reasoning").strip(), _Entry(entry.get("answer"), "answer", view)
    if REGION in reasoning:
        raise ReplyError(Reason.RESERVED_TEXT, f"the reasoning holds {REGION}")
    boxes = [claim.box for claim in claims if isinstance(claim, ObjectClaim) and claim.box is not None]
    reasoning, regions = _with_markers(reasoning, [*boxes, *annotated.regions], view)
    return Trace(WorkedSolution(reasoning, answer.box(), answer.text("label"), regions), claims)


def _with_markers(text: str, known: Sequence[Box], view: View) -> tuple[str, tuple[Box, ...]]:
    """The text with a marker for each box that is one of the known ones; the others stay as they are."""
    regions: list[Box] = []

    def mark(found: re.Match[str]) -> str:
        numbers = [round(float(number)) for number in found.groups()]
        box = next((box for box in known if view.numbers(box) == numbers), None)
        if box is None:
            return found[0]
        regions.append(box)
        return REGION

    return BOX.sub(mark, text), tuple(regions)


def _claim(value: Any, name: str, view: View) -> Claim:
    entry = _Entry(value, name, view)
    kind = next((kind for kind in _CLAIM_KEYS if kind in entry.values), None)
    if kind is None:
        raise ReplyError(Reason.REPLY_MISSING_KEY, f"{name} has none of {', '.join(_CLAIM_KEYS)}: {value!r:.120}")
    for key in entry.values:
        if key not in _CLAIM_KEYS[kind]:
            raise ReplyError(Reason.REPLY_INVALID_VALUE, f"{name} has {key!r} beside {kind!r}: {value!r:.120}")
    if kind == "relation":
        if entry.text("relation") not in RELATIONS:
            raise entry.invalid("relation", f"one of {', '.join(RELATIONS)}")
        images = tuple(entry.image_number("images", number) for number in entry.list("images"))
        labels = entry.list("objects") if "objects" in entry.values else []
        if not all(isinstance(label, str) for label in labels):
            raise entry.invalid("objects", "a list of labels")
        return RelationClaim(entry.text("relation"), images, tuple(labels))
    return ObjectClaim(
        entry.image(),
        entry.text(kind),
        present=kind == "holds",
        count=entry.count(),
        box=entry.box() if "bbox_2d" in entry.values else None,
        attributes=entry.attributes(),
    )


class _Entry:
    """An object of the reply, whose keys are read one by one; a key that is null counts as left out."""

    def __init__(self, value: Any, name: str, view: View) -> None:
        if not isinstance(value, dict):
            raise ReplyError(Reason.REPLY_INVALID_VALUE, f"{name} is {value!r:.120}, not an object")
        self.values: Mapping[str, Any] = {key: part for key, part in value.items() if part is not None}
        self.name, self.view = name, view

    def get(self, key: str) -> Any:
        if key not in self.values:
            raise ReplyError(Reason.REPLY_MISSING_KEY, f"{self.name} has no {key!r}")
        return self.values[key]

    def invalid(self, key: str, wanted: str) -> ReplyError:
        return ReplyError(Reason.REPLY_INVALID_VALUE, f"{self.name}.{key} is {self.values[key]!r:.120}, not {wanted}")

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.invalid(key, "a text")
        return value

    def list(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.invalid(key, "a list")
        return value

    def count(self) -> int | None:
        value = self.values.get("count")
        if value is not None and type(value) is not int:
            raise self.invalid("count", "a whole number")
        return value

    def attributes(self) -> dict[str, str]:
        value = self.values.get("attributes", {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise self.invalid("attributes", "an object of texts")
        return value

    def image(self) -> int:
        """The image, from 0."""
        return self.image_number("image", self.get("image"))

    def image_number(self, key: str, number: Any) -> int:
        """An image number of the reply, from 0."""
        if type(number) is not int:
            raise self.invalid(key, "the number of an image")
        if not 1 <= number <= len(self.view.input_sizes):
            raise ReplyError(Reason.NO_SUCH_IMAGE, f"{self.name}.{key}: image {number} of {len(self.view.input_sizes)}")
        return number - 1

    def box(self) -> Box:
        """The box of the object's image, in pixels of the original."""
        image, value = self.image(), self.list("bbox_2d")
        if len(value) != 4 or not all(type(n) in (int, float) and math.isfinite(n) for n in value):
            raise self.invalid("bbox_2d", "four numbers")
        size = self.view.input_sizes[image]
        width, height = size if self.view.space is CoordinateSpace.ABSOLUTE else (1000, 1000)
        x1, y1, x2, y2 = map(float, value)
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise ReplyError(Reason.INVALID_BOX, f"{self.name}.bbox_2d {value} is reversed or outside its image")
        return self.view.space.to_original(Box(x1, y1, x2, y2, image), size, self.view.original_sizes[image])
