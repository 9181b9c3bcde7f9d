"""A teacher's reply, which is JSON, as a trace: boxes in its reasoning become markers, numbers original pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mgpo_core.boxes.loose_json import find_values
from mgpo_core.boxes.parse import Box, CoordinateSpace
from mgpo_core.boxes.regions import REGION, View, WorkedSolution
from mgpo_core.samples.annotations import RELATIONS, AnnotatedSet
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
    reply = _Entry(found[0], "reply", view)
    claims = tuple(_claim(_Entry(item, f"claims[{n}]", view)) for n, item in enumerate(reply.get("claims", list)))
    reasoning, answer = reply.get("reasoning", str).strip(), _Entry(reply.get("answer", dict), "answer", view)
    if REGION in reasoning:
        raise ReplyError(Reason.RESERVED_TEXT, f"the reasoning holds {REGION}")
    boxes = [claim.box for claim in claims if isinstance(claim, ObjectClaim) and claim.box is not None]
    reasoning, regions = _with_markers(reasoning, [*boxes, *annotated.regions], view)
    return Trace(WorkedSolution(reasoning, answer.box(), answer.get("label", str), regions), claims)


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


def _claim(entry: _Entry) -> Claim:
    kind = next((kind for kind in _CLAIM_KEYS if kind in entry.values), None)
    if kind is None:
        raise ReplyError(Reason.REPLY_MISSING_KEY, f"{entry.name} has none of {', '.join(_CLAIM_KEYS)}")
    for key in entry.values:
        if key not in _CLAIM_KEYS[kind]:
            raise ReplyError(Reason.REPLY_INVALID_VALUE, f"{entry.name} has {key!r} beside {kind!r}")
    if kind == "relation":
        images = tuple(entry.image(number) for number in entry.get("images", list))
        labels = entry.get("objects", list, [])
        if entry.get("relation", str) not in RELATIONS or not all(isinstance(label, str) for label in labels):
            raise entry.invalid(f"a relation ({', '.join(RELATIONS)}) and labels")
        return RelationClaim(entry.get("relation", str), images, tuple(labels))
    attributes = entry.get("attributes", dict, {})
    if not all(isinstance(text, str) for text in attributes.values()):
        raise entry.invalid("attributes that are texts")
    return ObjectClaim(
        entry.image(),
        entry.get(kind, str),
        present=kind == "holds",
        count=entry.get("count", int) if "count" in entry.values else None,
        box=entry.box() if "bbox_2d" in entry.values else None,
        attributes=attributes,
    )


class _Entry:
    """An object of the reply, whose keys are read one by one; a key that is null counts as left out."""

    def __init__(self, value: Any, name: str, view: View) -> None:
        if not isinstance(value, dict):
            raise ReplyError(Reason.REPLY_INVALID_VALUE, f"{name} is {value!r:.120}, not an object")
        self.name, self.view = name, view
        self.values: Mapping[str, Any] = {key: part for key, part in value.items() if part is not None}

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """The value of a key, which has to be of this type."""
        value = self.values.get(key, default)
        if value is None:
            raise ReplyError(Reason.REPLY_MISSING_KEY, f"{self.name} has no {key!r}")
        if type(value) is not kind:
            raise self.invalid(f"{key!r} of type {kind.__name__}")
        return value

    def invalid(self, wanted: str) -> ReplyError:
        return ReplyError(Reason.REPLY_INVALID_VALUE, f"{self.name} is {self.values!r:.120}: it needs {wanted}")

    def image(self, number: Any = None) -> int:
        """The entry's image, or the one of a list with this number, from 0."""
        number = self.get("image", int) if number is None else number
        if type(number) is not int:
            raise self.invalid("whole numbers as images")
        if not 1 <= number <= len(self.view.input_sizes):
            raise ReplyError(Reason.NO_SUCH_IMAGE, f"{self.name}: image {number} of {len(self.view.input_sizes)}")
        return number - 1

    def box(self) -> Box:
        """The box, in pixels of the original of its image."""
        image, value = self.image(), self.get("bbox_2d", list)
        if len(value) != 4 or not all(type(n) in (int, float) and math.isfinite(n) for n in value):
            raise self.invalid("four numbers as 'bbox_2d'")
        size = self.view.input_sizes[image]
        width, height = size if self.view.space is CoordinateSpace.ABSOLUTE else (1000, 1000)
        x1, y1, x2, y2 = map(float, value)
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise ReplyError(Reason.INVALID_BOX, f"{self.name}: {value} is reversed or reaches out of its image")
        return self.view.space.to_original(Box(x1, y1, x2, y2, image), size, self.view.original_sizes[image])
