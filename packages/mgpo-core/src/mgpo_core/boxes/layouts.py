"""What four numbers under a key mean: the corners of a box, or another layout that the key or a format beside it names.

Pure arithmetic on values that were read already; nothing here raises.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Corners", "Layout", "box_key", "corners", "holds_several", "is_no_box", "named_layout"]

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
_SEVERAL = frozenset(("bboxes2d", "bboxes", "boxes", "boundingboxes"))
_BOX = r"(?:bounding|bnd|b)?box(?:es)?"
# Gemini's box_2d is y1, x1, y2, x2 in thousandths; the others name a shape, or where the centre is
_OTHER = re.compile(r"box2d|obb|(?=.*box).*(?:3d|rotated|angle|poly|yolo).*|(?=.*box)(?!.*[xy]).*cent(?:er|re).*")
_NO_BOX = re.compile(r".*(?:point|polygon|poly|keypoint|size|shape|resolution|colou?r|rgba?|segmentation|quad).*")

# What is said of a box: words that name its numbers one by one, `x_min, y_min, width, height` or `xywh`.
_LEFT, _TOP = "min|left|(?:top|upper)left|lefttop|tl|lt", "min|top|(?:top|upper)left|lefttop|tl|lt"
_RIGHT = "max|right|(?:bottom|lower)right|rightbottom|br|rb"
_BOTTOM = "max|bottom|(?:bottom|lower)right|rightbottom|br|rb"
_MIDDLE = "cent(?:er|re)|ctr|mid"
_NUMBER_NAMES = re.compile(
    "|".join(
        f"(?P<{group}>{names})"
        for group, names in {
            "E": f"(?:{_MIDDLE}|c)x|x(?:{_MIDDLE}|c)",
            "F": f"(?:{_MIDDLE}|c)y|y(?:{_MIDDLE}|c)",
            "A": f"(?:{_LEFT})x|x(?:{_LEFT})",
            "B": f"(?:{_TOP})y|y(?:{_TOP})",
            "C": f"(?:{_RIGHT})x|x(?:{_RIGHT})",
            "D": f"(?:{_BOTTOM})y|y(?:{_BOTTOM})",
            "M": _MIDDLE,
            "W": "width|w",
            "H": "height|h",
            "L": "left",
            "T": "top",
            "R": "right",
            "O": "bottom",
            "X": "x",
            "Y": "y",
        }.items()
    )
)
"""Each name by a letter: A to D are x1, y1, x2, y2; E and F the centre's x and y; L, T, R, O the sides."""
_SPELT = re.compile(
    rf"(?:c[xy]|[xy]c(?!ent|tr)|x|y|min|max|{_MIDDLE}|w(?:idth)?|h(?:eight)?|left|top|right|bottom|upper|lower"
    r"|tl|br|lt|rb)++"
)
_SPELT_AND_MORE = re.compile(r"[xywhc]{4,}[a-z0-9]{1,9}")  # xyxyn, xywha
_ORDERS = (
    (Layout.XYXY, re.compile("XYXY|ABCD|LTRO|XYCD")),
    (Layout.CXCYWH, re.compile("(?:EF|EY|XF)WH|M?XYWHM?(?<=M)|MXYWH")),
    (Layout.XYWH, re.compile("(?:XY|AB|LT)WH")),
    (Layout.YXYX, re.compile("YXYX|BADC")),
)
_WORDS = {
    "ltrb": Layout.XYXY, "ltwh": Layout.XYWH, "tlwh": Layout.XYWH,
    "tlbr": Layout.OTHER,  # top, left, bottom, right to some, top-left and bottom-right to others
}  # fmt: skip
_FORMATS = {
    "coco": Layout.XYWH, "pascalvoc": Layout.XYXY, "voc": Layout.XYXY, "yolo": Layout.OTHER,
    "albumentations": Layout.OTHER, "obb": Layout.OTHER,
}  # fmt: skip
_SAYS_NOTHING = re.compile(rf"{_BOX}(?:[\W_]?2d)?|abs(?:olute)?|pixels?|px")
_DETECTRON = (Layout.XYXY, Layout.XYWH)  # its BoxMode 0 and 1

_OF_BOX = rf"(?:{_BOX}|2d|coord(?:inate)?s?)*"
_FORMAT_KEY = re.compile(
    rf"{_OF_BOX}(?:format|mode|type|layout|order|ordering|convention|notation|system|space)|coordinates|coords"
)
_SCALE_KEY = re.compile(
    rf"(?:is|are|use|uses)?{_OF_BOX}(?:normali[sz]ed|norm|relative|rel|percent(?:age)?s?|fractional){_OF_BOX}"
)
_UNIT_KEY = re.compile(rf"{_OF_BOX}(?:units?|scale)|{_OF_BOX}coord(?:inate)?s?range")
_RANGE = re.compile(r"(?<![\d.])0(?:\.0)?\s*(?:-|–|—|\.\.+|,|:|to)\s*(\d{1,9})(?:\.0)?(?!\d)")
_SCALES = (
    ("0-1000", re.compile(r"(?<!\d)(?:1000|999)(?!\d)|thousand|per ?mill")),
    ("percent", re.compile(r"percent|pct|%")),
    (
        "0-1",
        re.compile(
            r"(?<!un)(?<!de)(?<!not )(?<!non )norm(?!al(?!i))|relativ|(?<![a-z])rel(?![a-z])|fraction|(?<![a-z])ratio"
        ),
    ),
)
_FALSE = frozenset(("false", "no", "none", "null", "0", "off", "n", "f"))

_BY_NAME = (
    ("ABCD", Layout.XYXY), ("LTRO", Layout.XYXY), ("XYCD", Layout.XYXY),
    ("EFWH", Layout.CXCYWH), ("XYWH", Layout.XYWH), ("ABWH", Layout.XYWH), ("LTWH", Layout.XYWH),
)  # fmt: skip
_CORNER_KEYS = (
    re.compile(r"(?:(?:top|upper)left|left(?:top|upper)|tl|lt)(?:corner|point)?"),
    re.compile(r"(?:(?:bottom|lower)right|right(?:bottom|lower)|br|rb)(?:corner|point)?"),
)
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
    of_box = "box" in name
    layout = _order(key, formats=of_box)
    return Layout.OTHER if (of_box or layout is not None) and _scale(key) is not None else layout


def holds_several(key: str) -> bool:
    """Whether a key holds boxes in a list: `boxes`, `bboxes`."""
    return _plain(key) in _SEVERAL


def is_no_box(key: str) -> bool:
    """Whether a key says that its numbers are something else than a box: a point, a size, a colour."""
    return _NO_BOX.fullmatch(_plain(key)) is not None


def named_layout(entry: Mapping[str, Any], *, scale: str | None = None) -> Layout | None:
    """The layout that an entry states beside its box (`"bbox_format": "xywh"`); None where it states none.

    OTHER where what it states is not read, where it contradicts itself, and where it states a scale
    (`"normalized": true`, `"mode": "XYXY_REL"`, `"scale": "0-1000"`) other than `scale` ("0-1", "0-1000").
    """
    stated: set[Layout] = set()
    for key, value in entry.items():
        name = _plain(key)
        found = _stated_scale(name, value)
        if found is not None and found != scale:
            return Layout.OTHER
        layout = _stated_order(name, value)
        if layout is not None:
            stated.add(layout)
    return None if not stated else stated.pop() if len(stated) == 1 else Layout.OTHER


def _stated_scale(name: str, value: Any) -> str | None:
    """The scale that a key of an entry and its value state: "0-1", "0-1000", "percent" or another text."""
    if isinstance(value, list) and len(value) == 2:
        low, high = map(_number, value)
        value = f"{low:g}-{high:g}" if low is not None and high is not None else None
    said = value if isinstance(value, str) else "1000" if value in (999, 1000) else ""
    if _SCALE_KEY.fullmatch(name) and isinstance(value, (str, int, float)):
        return _scale(said) or _scale(name) if value and _plain(said) not in _FALSE else None
    if _UNIT_KEY.fullmatch(name) or (_FORMAT_KEY.fullmatch(name) and (name != "type" or _order(said) is not None)):
        return _scale(said)
    return None


def _stated_order(name: str, value: Any) -> Layout | None:
    if not _FORMAT_KEY.fullmatch(name):
        return None
    of_box = "box" in name
    if of_box and name.endswith("mode") and isinstance(value, int) and not isinstance(value, bool):
        return _DETECTRON[value] if 0 <= value < len(_DETECTRON) else Layout.OTHER
    if not isinstance(value, str):
        return None
    layout = _order(value) if len(value) <= _LONGEST else None
    if layout is None and of_box and re.search(r"\w", _SAYS_NOTHING.sub("", value[:_LONGEST].lower())):
        return Layout.OTHER if _scale(value) is None else None  # a scale is read as one
    return layout


def _order(text: str, *, formats: bool = True) -> Layout | None:
    """The layout that the words of a text name or spell out; None where they do not, OTHER for one that is not read."""
    if len(text) > _LONGEST:
        return None
    words = re.findall(r"[a-z0-9]+", _low_and_high(_SAYS_NOTHING.sub(" ", text.lower())))
    named = {word: _WORDS.get(word) or (_FORMATS.get(word) if formats else None) for word in words}
    found = [layout for layout in named.values() if layout is not None]
    if any(_SPELT_AND_MORE.fullmatch(word) and not _SPELT.fullmatch(word) for word in words):
        found.append(Layout.OTHER)
    spelt = _letters("".join(word for word in words if _SPELT.fullmatch(word)))
    if len(spelt) >= 4:
        found.append(next((layout for layout, order in _ORDERS if order.fullmatch(spelt)), Layout.OTHER))
    elif spelt == "M" and len(words) == 1 and formats:
        found.append(Layout.OTHER)  # "center" alone
    return None if not found else found[0] if len(set(found)) == 1 else Layout.OTHER


def _letters(spelt: str) -> str:
    return "".join(name.lastgroup or "" for name in _NUMBER_NAMES.finditer(spelt))


def _low_and_high(text: str) -> str:
    """`text` with x1 as xmin and x2 as xmax, where it counts from 0 x0 as xmin and x1 as xmax, and so for y."""
    first = 0 if re.search(r"[xy][\W_]?0", text) else 1
    for number, side in ((first, "min"), (first + 1, "max")):
        text = re.sub(rf"([xy])[\W_]?{number}(?!\d)", rf"\1{side}", text)
    return text


def _scale(text: str) -> str | None:
    """The scale that a text names, "0-1", "0-1000", "percent" or another range; None for pixels, or for nothing."""
    if len(text) > _LONGEST:
        return None
    text = _SAYS_NOTHING.sub(" ", text.lower()).replace("_", " ")
    found = next((name for name, words in _SCALES if words.search(text)), None)
    span = _RANGE.search(text)
    if span is None or found == "0-1000":
        return found
    return {"1": "0-1", "100": "percent"}.get(span[1], span[0])


def corners(value: Any, layout: Layout = Layout.UNSAID) -> Corners | None:
    """The corners that a value holds: four numbers (or texts of numbers), two points, a text or a dict of four.

    None for anything else, and for numbers that are not finite.
    """
    if isinstance(value, Mapping):
        value, layout = _by_name(value) or (None, layout)
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


def _by_name(entry: Mapping[str, Any]) -> tuple[list[Any], Layout] | None:
    """(numbers, layout) of a dict that names each number or both corners: `{"x1": ..., ...}`, `{"top_left": ...}`."""
    if not 2 <= len(entry) <= 16:
        return None
    names = _low_and_high("\n\n".join(map(_plain, entry))).split("\n\n")
    by_letter: dict[str, Any] = {}
    for name, value in zip(names, entry.values(), strict=True):
        found = _NUMBER_NAMES.fullmatch(name)
        if found is not None:
            by_letter.setdefault(found.lastgroup or "", value)
    for letters, layout in _BY_NAME:
        if by_letter.keys() >= set(letters):
            return [by_letter[letter] for letter in letters], layout
    ends = [
        next((_point(value) for key, value in entry.items() if corner.fullmatch(_plain(key))), None)
        for corner in _CORNER_KEYS
    ]
    return ([*ends[0], *ends[1]], Layout.XYXY) if ends[0] is not None and ends[1] is not None else None


def _point(value: Any) -> list[Any] | None:
    """[x, y] of a list of two or of a dict of x and y."""
    if isinstance(value, Mapping):
        value = [value.get("x"), value.get("y")]
    return value if isinstance(value, list) and len(value) == 2 else None


def _number(part: Any) -> float | None:
    if isinstance(part, str) and len(part) <= _LONGEST and _ONE.fullmatch(part):
        return float(part)
    if isinstance(part, bool) or not isinstance(part, (int, float)):
        return None
    try:
        return float(part)
    except OverflowError:
        return None


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower()) if len(key) <= _LONGEST else ""
