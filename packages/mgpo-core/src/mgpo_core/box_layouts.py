"""What four numbers under a key mean: the corners of a box, or another layout that the key or a format beside it names.

Pure arithmetic on values that were read already; nothing here raises.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Corners", "Layout", "box_key", "corners", "is_no_box", "named_layout"]

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2: finite, in the unit that they were written in."""


class Layout(enum.Enum):
    """The order in which a box's numbers stand."""

    UNSAID = "x1, y1, x2, y2, unless a format says otherwise"
    XYXY = "x1, y1, x2, y2"
    XYWH = "x1, y1, width, height"
    CXCYWH = "centre, width, height"
    YXYX = "y1, x1, y2, x2"
    OTHER = "a layout or a scale that is not read"


_OWN = frozenset(("bbox2d", "bbox", "box", "boundingbox"))
_NAMES = (
    # the centre first: "cxywh" holds "xywh"
    (Layout.CXCYWH, ("cxcywh", "xcycwh", "cxywh")),
    (Layout.XYWH, ("xywh", "ltwh", "tlwh")),
    (Layout.XYXY, ("xyxy", "ltrb", "x1y1x2y2", "xminyminxmaxymax")),
    (Layout.YXYX, ("yxyx", "tlbr", "y1x1y2x2", "yminxminymaxxmax")),
)
_FORMATS = {"coco": Layout.XYWH, "pascalvoc": Layout.XYXY, "voc": Layout.XYXY, "yolo": Layout.OTHER}
_FORMAT_KEYS = re.compile(r"(?:bbox|box|bbox2d)?(?:format|mode|type|layout)")
# Gemini's box_2d is y1, x1, y2, x2 in thousandths; the others name a scale or a shape
_OTHER = re.compile(
    r"box2d|obb|(?=.*box).*(?:norm|relative|percent|pct|ratio|1000|3d|rotated|angle|poly|yolo).*|.*xyxyn|.*xywhn"
)
_NO_BOX = re.compile(r".*(?:point|polygon|poly|keypoint|size|shape|resolution|colou?r|rgba?|segmentation|quad).*")
_SCALARS = {
    frozenset(names): (names, layout)
    for names, layout in (
        (("x1", "y1", "x2", "y2"), Layout.XYXY),
        (("xmin", "ymin", "xmax", "ymax"), Layout.XYXY),
        (("left", "top", "right", "bottom"), Layout.XYXY),
        (("x", "y", "w", "h"), Layout.XYWH),
        (("x", "y", "width", "height"), Layout.XYWH),
        (("left", "top", "width", "height"), Layout.XYWH),
        (("cx", "cy", "w", "h"), Layout.CXCYWH),
        (("cx", "cy", "width", "height"), Layout.CXCYWH),
    )
}
_NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?"
_ONE = re.compile(rf"\s*{_NUMBER}\s*", re.ASCII)
_FOUR = re.compile(rf"[\s(\[]*{_NUMBER}(?:[\s,;()\[\]]+{_NUMBER}){{3}}[\s)\]]*", re.ASCII)
_LONGEST = 200  # characters of a text that may hold four numbers, or of a key


def box_key(key: str) -> Layout | None:
    """How the numbers under `key` are laid out; None for a key that holds no box."""
    name = _plain(key)
    if name in _OWN:
        return Layout.UNSAID
    if _OTHER.fullmatch(name):
        return Layout.OTHER
    return Layout.XYWH if "coco" in name and "box" in name else _layout(name)


def is_no_box(key: str) -> bool:
    """Whether a key says that its numbers are something else than a box: a point, a size, a colour."""
    return _NO_BOX.fullmatch(_plain(key)) is not None


def named_layout(entry: Mapping[str, Any]) -> Layout | None:
    """The layout that an entry states beside its box (`"bbox_format": "xywh"`); None where it states none."""
    for key, value in entry.items():
        name = _plain(key)
        if name in ("normalized", "normalised") and value is True:
            return Layout.OTHER
        if isinstance(value, str) and _FORMAT_KEYS.fullmatch(name):
            said = _plain(value)
            layout = _FORMATS.get(said) or (Layout.OTHER if _OTHER.fullmatch(said) else _layout(said))
            if layout is not None or "box" in name:
                return layout or Layout.OTHER
    return None


def corners(value: Any, layout: Layout = Layout.UNSAID) -> Corners | None:
    """The corners that a value holds: four numbers (or texts of numbers), two points, a text or a dict of four.

    None for anything else, and for numbers that are not finite.
    """
    if isinstance(value, Mapping):
        value, layout = _scalars(value) or (None, layout)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # [[x1, y1, x2, y2]]
    if isinstance(value, str):
        value = re.findall(_NUMBER, value) if len(value) <= _LONGEST and _FOUR.fullmatch(value) else None
    elif isinstance(value, list) and len(value) == 2 and all(isinstance(p, list) and len(p) == 2 for p in value):
        value = [*value[0], *value[1]]
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = [_number(part) for part in value]
    first, second, third, fourth = numbers
    if first is None or second is None or third is None or fourth is None:
        return None
    found = _arranged(first, second, third, fourth, layout)
    return found if all(map(math.isfinite, found)) else None


def _arranged(a: float, b: float, c: float, d: float, layout: Layout) -> Corners:
    if layout is Layout.XYWH:
        return a, b, a + c, b + d
    if layout is Layout.CXCYWH:
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return (b, a, d, c) if layout is Layout.YXYX else (a, b, c, d)


def _scalars(entry: Mapping[str, Any]) -> tuple[list[Any], Layout] | None:
    """(numbers, layout) of a dict that names each number: `{"x1": ..., "y1": ..., "x2": ..., "y2": ...}`."""
    if len(entry) > 16:
        return None
    by_name = {_plain(key): value for key, value in entry.items()}
    for names, (order, layout) in _SCALARS.items():
        if names <= by_name.keys():
            return [by_name[name] for name in order], layout
    return None


def _number(part: Any) -> float | None:
    if isinstance(part, str) and len(part) <= _LONGEST and _ONE.fullmatch(part):
        return float(part)
    if isinstance(part, bool) or not isinstance(part, (int, float)):
        return None
    try:
        return float(part)
    except OverflowError:
        return None


def _layout(name: str) -> Layout | None:
    name = re.sub(r"^b?box(?:es)?(?:2d)?", "", name)  # "bboxyxyx" is not "xyxy"
    return next((layout for layout, names in _NAMES if any(part in name for part in names)), None)


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower()) if len(key) <= _LONGEST else ""
