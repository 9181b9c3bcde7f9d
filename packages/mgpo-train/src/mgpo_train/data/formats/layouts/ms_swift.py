"""ms-swift: messages, images, objects (boxes for `<bbox>` and names for `<ref-object>`), solution.

LLaMA-Factory's files of messages have the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mgpo_core.boxes.regions import REGION
from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_train.data.formats.conversation import is_conversation, read_conversation
from mgpo_train.data.formats.conversation_fields import conversation_fields
from mgpo_train.data.formats.layout import Fields, Layout, Row

_REF, _BOX = "<ref-object>", "<bbox>"
_SCALES = {"real": "pixels", "norm1": "0-1"}
"""ms-swift's `bbox_type`; real are pixels of the original."""


def _fits(row: Row) -> bool:
    return is_conversation(row.get("messages"))


def _read(row: Row) -> Fields:
    said = read_conversation(row.get("messages"), "messages")
    fields = conversation_fields(row, "messages", said)
    objects = row.get("objects")
    asked, answered = said.question, said.answer or ""
    if objects in (None, {}, []) and not any(mark in text for mark in (_REF, _BOX) for text in (asked, answered)):
        return fields
    if not isinstance(objects, Mapping):
        raise SampleError(f"column 'objects' is {show(objects)}: give ref and bbox for the marks in the messages")
    boxes, scale = _boxes(objects)
    question, answer = _named(asked, answered, objects.get("ref") or [])
    regions, rest = boxes[: question.count(_BOX)], boxes[question.count(_BOX) :]
    if len(regions) < question.count(_BOX) or (_BOX in answer and answer.count(_BOX) != len(rest)):
        marks = question.count(_BOX) + answer.count(_BOX)
        raise SampleError(
            f"column 'objects' has {len(boxes)} boxes for {marks} {_BOX} in the messages: give one for each"
        )
    values, columns = dict(fields.values), dict(fields.columns)
    values["question"] = question.replace(_BOX, REGION)
    if columns["answer"] == "messages":
        values["answer"] = None if _BOX in answer else answer or None
        columns["answer"] = "objects" if _BOX in answer else "messages"
    if regions:
        values["regions"], columns["regions"] = regions, "objects"
    if rest:
        values["boxes"], columns["boxes"] = rest, "objects"
    return replace(fields, values=values, columns=columns | {"objects": "objects"}, box_scale=scale)


def _boxes(objects: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str | None]:
    """(boxes with their images, their scale where it is stated)."""
    kind = objects.get("bbox_type") or None
    if kind is not None and (not isinstance(kind, str) or kind not in _SCALES):
        raise SampleError(f"column 'objects' has bbox_type={show(kind)}: use real or norm1")
    boxes, images = objects.get("bbox") or [], objects.get("image_id")
    if not isinstance(boxes, list):
        raise SampleError(f"column 'objects' has bbox={show(boxes)}: give a list of [x1, y1, x2, y2]")
    images = [0] * len(boxes) if images is None else images
    if not isinstance(images, list) or len(images) != len(boxes):
        raise SampleError(f"column 'objects' has image_id={show(images)} for {len(boxes)} boxes: give one for each")
    return [{"box": box, "image": image} for box, image in zip(boxes, images, strict=True)], _SCALES.get(kind or "")


def _named(asked: str, answered: str, names: Any) -> tuple[str, str]:
    """Both texts with the names of the objects in place of their marks."""
    marks = asked.count(_REF) + answered.count(_REF)
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or (marks and marks != len(names))
    ):
        raise SampleError(
            f"column 'objects' has ref={show(names)} for {marks} {_REF} in the messages: give one for each"
        )
    for name in names if marks else ():
        if _REF in asked:
            asked = asked.replace(_REF, name, 1)
        else:
            answered = answered.replace(_REF, name, 1)
    return asked, answered


LAYOUT = Layout("ms-swift", _fits, _read)
