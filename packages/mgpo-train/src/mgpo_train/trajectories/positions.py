"""Where in its image a box lies, in words: said by thirds of the image, and held against a claim with some room."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mgpo_core.boxes import Box, Size

__all__ = ["POSITION", "Position", "position_words", "read_position"]

_SIDE, _MIDDLE, _CORNER = 0.55, (0.2, 0.8), 0.4
"""Up to which share of the image its centre may lie for a box to be at a side, in the middle, in a corner."""

_LOW, _MID, _HIGH = "low", "mid", "high"
_SIDES = {
    "upper": _LOW, "top": _LOW, "left": _LOW, "lower": _HIGH, "bottom": _HIGH, "right": _HIGH,
    "middle": _MID, "mid": _MID, "centre": _MID, "center": _MID, "central": _MID,
}  # fmt: skip
_VERTICAL, _HORIZONTAL = ("upper", "top", "lower", "bottom"), ("left", "right")
_NOUN = r"(?:corner|half|side|part|area|region|edge|end|third|quarter|portion)"
_PLACED = r"(?:in|at|on|near|toward|towards|to)\s+(?:the|its)\s+(?:very\s+|far\s+|extreme\s+)?"
_ORDINARY = r"(?:image|picture|photo|photograph|frame)"
_OF_IMAGE = (
    rf"(?!\s+of\s+(?!(?:the\s+|this\s+|that\s+)?(?:whole\s+|entire\s+|\w+(?:st|nd|rd|th)\s+|last\s+)?{_ORDINARY}|it\b))"
)
_TWO = (
    r"(?:upper|top|lower|bottom|middle|mid|centre|center)[\s-](?:left|right|middle|centre|center)(?:-hand)?"
    rf"(?:\s+{_NOUN})?"
)
_ONE = (
    rf"(?:upper|lower|top|bottom|left|right|middle|central|centre|center)(?:-hand)?"
    rf"(?:\s+{_NOUN}\b|(?=\s*[.,;:)!]|\s*$|\s+(?:of|and|but|with|at|in|where|while|there)\b))"
)
POSITION = rf"(?:{_PLACED})?{_TWO}(?!\w){_OF_IMAGE}|{_PLACED}{_ONE}(?!\w){_OF_IMAGE}"
"""Where something lies in an image, as a pattern of `re` (without regard to case); not "left of the table"."""

_WORDS = {
    (_LOW, _LOW): ("in the upper left", "at the top left"),
    (_MID, _LOW): ("in the upper middle", "at the top centre"),
    (_HIGH, _LOW): ("in the upper right", "at the top right"),
    (_LOW, _MID): ("in the middle left", "on the left side"),
    (_MID, _MID): ("in the centre", "in the middle"),
    (_HIGH, _MID): ("in the middle right", "on the right side"),
    (_LOW, _HIGH): ("in the lower left", "at the bottom left"),
    (_MID, _HIGH): ("in the lower middle", "at the bottom centre"),
    (_HIGH, _HIGH): ("in the lower right", "at the bottom right"),
}


@dataclass(frozen=True)
class Position:
    """A claim of where something lies: its side across and down the image (None: not said)."""

    across: str | None
    down: str | None
    corner: bool = False

    def holds(self, box: Box, size: Size) -> bool:
        """Whether a box on an image of this size may be said to lie there."""
        x, y = (centre / side for centre, side in zip(box.center, size, strict=True))
        return _fits(self.across, x, self.corner) and _fits(self.down, y, self.corner)


def _fits(side: str | None, share: float, corner: bool) -> bool:
    if side is None:
        return True
    if side == _MID:
        return _MIDDLE[0] <= share <= _MIDDLE[1]
    return (share if side == _LOW else 1 - share) <= (_CORNER if corner else _SIDE)


def position_words(box: Box, size: Size) -> tuple[str, ...]:
    """Ways to say where the centre of a box lies, by thirds of its image."""
    across, down = (_third(centre / side) for centre, side in zip(box.center, size, strict=True))
    return _WORDS[across, down]


def _third(share: float) -> str:
    return _LOW if share < 1 / 3 else _HIGH if share > 2 / 3 else _MID


def read_position(words: str) -> Position:
    """The claim of a text that `POSITION` matches."""
    found = [word for word in re.findall(r"[a-z]+", words.lower()) if word in _SIDES]
    across = next((_SIDES[word] for word in found if word in _HORIZONTAL), None)
    down = next((_SIDES[word] for word in found if word in _VERTICAL), None)
    middles = any(_SIDES[word] == _MID for word in found)
    if middles and (len(found) > 1 or across is down is None):
        across, down = across or _MID, down or _MID
    return Position(across, down, corner="corner" in words.lower())
