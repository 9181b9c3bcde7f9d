"""Answers that are boxes, in the forms that models and data sets write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from mgpo_core.boxes.layouts import Layout, box_key, corners, named_layout
from mgpo_core.boxes.parse import Rejection, parse_boxes
from mgpo_core.boxes.plain_text import marked_boxes
from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_train.data.formats.worked_answer import said_last

__all__ = ["boxes_of"]

_NAMED = re.compile(r"<ref>[^<>]{0,300}</ref>|<\|object_ref_start\|>[^<>]{0,300}<\|object_ref_end\|>")
_FENCE = re.compile(r"\s*```(?:json)?(.*)```\s*", re.DOTALL)
_BETWEEN = " \t\r\n.,;:"


def boxes_of(answer: Any) -> list[Any] | None:
    """The boxes of an answer that is nothing but boxes, with their names at most, as `row_boxes.read_boxes` takes them;
    None for any other.

    As numbers or in JSON, as `[x1, y1, x2, y2]`, as two points, or between box tokens. Raises SampleError for boxes in
    a layout that is not read.
    """
    if isinstance(answer, list | dict):
        return _of_value(answer)
    if not isinstance(answer, str) or not any(sign in answer for sign in "[({<"):
        return None
    try:
        text = said_last(answer)[0]
    except SampleError:
        return None  # it is no answer at all, which is found when it is read as one
    if found := _marked(text):
        return found
    fenced = _FENCE.fullmatch(text)
    plain = fenced[1].strip() if fenced else text.strip()
    try:
        value = json.loads(plain)
    except (ValueError, RecursionError):
        four = corners(plain) if plain[:1] in ("[", "(") else None
        return None if four is None else [list(four)]
    return _of_value(value)


def _of_value(value: Any) -> list[Any] | None:
    if not isinstance(value, list | Mapping):
        return None
    parts = value if isinstance(value, list) else []
    if (four := _four(value)) is not None:
        return [four]
    fours = [_four(part) for part in parts]
    if fours and all(four is not None for four in fours):
        return [four for four in fours if four is not None]
    try:
        found = parse_boxes(json.dumps(value))
    except (ValueError, TypeError, RecursionError):
        return None
    if found.error == Rejection.OTHER_LAYOUT:
        raise SampleError(f"holds {show(value)}, a box in a layout or scale that is not read: give [x1, y1, x2, y2]")
    said = {"format": "xyxy"} if _states_layout(value) else {}  # which parse_boxes has read
    return [{"box": list(box.as_tuple()), "image": box.image, **said} for box in found.boxes] or None


def _states_layout(value: Any) -> bool:
    if isinstance(value, Mapping):
        stated = named_layout(value) is not None or any(box_key(str(key)) not in (None, Layout.UNSAID) for key in value)
        return stated or any(map(_states_layout, value.values()))
    return isinstance(value, list) and any(map(_states_layout, value))


def _four(value: Any) -> list[float] | None:
    numbers = isinstance(value, list) and all(type(number) in (int, float) for number in value)
    four = corners(value) if numbers and len(value) == 4 else None
    return None if four is None else list(four)


def _marked(text: str) -> list[Any] | None:
    """The boxes between box tokens, where nothing else is said."""
    blocks = marked_boxes(text)
    if not blocks:
        return None
    rest, at = "", 0
    for block in blocks:
        rest, at = rest + text[at : block.start], block.end
    if _NAMED.sub("", rest + text[at:]).strip(_BETWEEN):
        return None
    return [list(four) for block in blocks for four in block.boxes] or None
