"""Boxes of a row, in the scale and format that the data spec or the layout declares: never guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from mgpo_core import Box
from mgpo_core.boxes.layouts import Layout, named_layout
from mgpo_core.boxes.regions import WorkedSolution
from mgpo_core.errors import SampleError
from mgpo_core.messages.shown import show
from mgpo_train.config.data_spec import BoxFormat
from mgpo_train.data.formats.box_answer import boxes_of

__all__ = ["BoxNumbers", "read_boxes", "read_solution"]

_WHOLE = {"pixels": None, "0-1": 1.0, "0-1000": 1000.0}
"""What a box's numbers are shares of (`data_spec.BoxScale`); None: pixels of the original, after EXIF rotation."""
_SHARES = tuple(scale for scale, whole in _WHOLE.items() if whole is not None)
_KEYS = ("bbox_2d", "box", "bbox_xywh")
_OPTIONS = "box_scale says what its numbers are (pixels, 0-1, 0-1000), box_format whether xyxy or xywh"

_ROUNDING = 1 + 1e-9
"""So far beyond its limit a sum may be by rounding, as 0.7 + 0.3 of x and width."""
_TWO_PIXELS = 2
"""Boxes within the first two pixels are shares, of which some are rounded to more than 1."""

Bad = Callable[[str], SampleError]
"""Makes the error that names row and column out of what is wrong."""


@dataclass(frozen=True)
class BoxNumbers:
    """What is declared about the numbers of boxes; None: nothing, and then they are read as pixels, x1 y1 x2 y2."""

    scale: str | None = None
    format: str | None = None

    def declared(self, layout_scale: str | None, bad: Callable[[str, str], SampleError]) -> BoxNumbers:
        """With what the layout of the row declares, which must not contradict the data spec.

        Pixels that only the layout declares are checked as undeclared ones are: files claim them by default.
        """
        if layout_scale is None:
            return self
        if self.scale not in (None, layout_scale):
            raise bad("boxes", f"holds boxes in {layout_scale}, its layout says: leave out box_scale={self.scale}")
        return self if layout_scale == "pixels" else replace(self, scale=layout_scale)


def read_boxes(
    value: Any, sizes: Sequence[tuple[int, int]], numbers: BoxNumbers, bad: Bad, *, field: str = "boxes"
) -> tuple[Box, ...]:
    """Boxes in pixels of the originals, whose (width, height) are given; raises what `bad` makes."""
    if isinstance(value, str) and value.strip():
        value = _parsed(value, bad)
    if value is None or value == "" or (isinstance(value, list | tuple) and not value):
        return ()
    if _four(value) is not None or (isinstance(value, Mapping) and any(key in value for key in _KEYS)):
        value = [value]
    if not isinstance(value, list | tuple):
        raise bad(f"is {show(value)}: give [[x1, y1, x2, y2], ...], or leave the column out with columns={field}=")
    return tuple(_box(entry, sizes, numbers, bad) for entry in value)


def _parsed(text: str, bad: Bad) -> Any:
    """The boxes that a text writes down, in any form that an answer may have; the text itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        try:
            return boxes_of(text) or text
        except SampleError as error:
            raise bad(str(error)) from error


def _four(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in value):
        return None
    try:
        numbers = tuple(map(float, value))
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _box(entry: Any, sizes: Sequence[tuple[int, int]], declared: BoxNumbers, bad: Bad) -> Box:
    image: Any = 0
    value, form = entry, declared.format
    if isinstance(entry, Mapping):
        image = entry.get("image") if entry.get("image") is not None else 0
        keys = [key for key in _KEYS if entry.get(key) is not None]
        value = entry[keys[0]] if len(keys) == 1 else None
        form = "xywh" if keys == ["bbox_xywh"] else form
        form = _stated_format(entry, declared, bad) or form
    numbers = _four(value)
    if numbers is None:
        raise bad(f"holds {show(entry)}: give [x1, y1, x2, y2] in pixels of the original")
    if isinstance(image, bool) or not isinstance(image, int) or not 0 <= image < len(sizes):
        raise bad(f"names image {show(image)} of {len(sizes)} (counted from 0)")
    width, height = sizes[image]
    x1, y1, x2, y2 = numbers
    if form == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    if declared.scale is None and (max(map(abs, numbers)) < _TWO_PIXELS or 0 < x2 - x1 < 1 or 0 < y2 - y1 < 1):
        raise bad(f"holds {show(entry)}, less than a pixel as pixels: {_OPTIONS}")
    whole = _WHOLE[declared.scale or "pixels"]
    limits = (width, height) if whole is None else (whole, whole)
    far = limits[0] * _ROUNDING, limits[1] * _ROUNDING
    if not (0 <= x1 < x2 <= far[0] and 0 <= y1 < y2 <= far[1]):
        where = f"the {width}x{height} original" if whole is None else f"{declared.scale}, its box_scale"
        raise bad(f"holds {show(entry)}, which does not lie in {where}: {_OPTIONS}")
    box = Box(x1, y1, x2, y2, image).clipped(*limits)
    return box if whole is None else box.scaled(width / whole, height / whole).clipped(width, height)


def _stated_format(entry: Mapping[str, Any], declared: BoxNumbers, bad: Bad) -> str | None:
    """xyxy or xywh where an entry states it; raises what `bad` makes for another layout, or for an undeclared scale."""
    stated = named_layout(entry, scale=declared.scale)
    if stated is None or stated.name.lower() in get_args(BoxFormat):
        return None if stated is None else stated.name.lower()
    scale = next((scale for scale in _SHARES if named_layout(entry, scale=scale) is not Layout.OTHER), None)
    if scale is None:
        hint = f"that is not read: give [x1, y1, x2, y2], or [x, y, width, height]; {_OPTIONS}"
    elif declared.scale is None:
        hint = f"that is not declared: say box_scale={scale}"
    else:
        hint = f"other than box_scale={declared.scale}: it says {scale}, so change one of them"
    raise bad(f"holds {show(entry)}, which states a format or scale {hint}")


def read_solution(value: Any, sizes: Sequence[tuple[int, int]], numbers: BoxNumbers, bad: Bad) -> WorkedSolution | None:
    """What `mgpo-train build-reasoning-data` writes: reasoning, regions, box and label."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("reasoning"), str):
        raise bad(
            f"is {show(value)}: give reasoning, regions, box and label, or leave the column out with columns=solution="
        )
    boxes = read_boxes(value.get("box") and [value["box"]], sizes, numbers, bad)
    if not boxes:
        raise bad(f"is {show(value)}: it has no box")
    label = value.get("label") or ""
    if not isinstance(label, str):
        raise bad(f"has the label {show(label)}: give a text")
    regions = read_boxes(value.get("regions"), sizes, numbers, bad)
    try:
        f"{value['reasoning']}{label}".encode()
        return WorkedSolution(value["reasoning"], boxes[0], label, regions)
    except UnicodeEncodeError as error:
        raise bad(f"is {show(value)}, with half a character in it: write the text again") from error
    except SampleError as error:
        raise bad(f"cannot be: {error}") from error
