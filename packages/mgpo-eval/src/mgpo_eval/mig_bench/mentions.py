"""Which images a text names: "the third image", "2nd picture", "4th image" (and "2th image"), "Image-2", "image 2"."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Mention", "find_mentions", "find_ordinal"]

_WORDS = (
    "first", "second", "third", "fourth", "fifth", "sixth",
    "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
)  # fmt: skip
_NOUN = r"(?:image|picture|photo|frame)"
_ORDINAL = rf"(?:(?P<word>{'|'.join(_WORDS)})|(?P<digits>\d{{1,2}})\s?(?:st|nd|rd|th))"
_MENTION = re.compile(
    rf"\b{_ORDINAL}[\s-]+{_NOUN}\b|\b{_NOUN}(?:\s*(?:\#|(?:number|no\.?)(?=[\s\d]))\s*|[\s_-]*)(?P<number>\d{{1,2}})\b",
    re.IGNORECASE,
)
_BARE_ORDINAL = re.compile(rf"\b{_ORDINAL}\b", re.IGNORECASE)


@dataclass(frozen=True)
class Mention:
    """`text[start:end]` names the `image`-th image, counted from 0 (-1 where the text says "image 0")."""

    start: int
    end: int
    image: int


def find_mentions(text: str) -> list[Mention]:
    """Every image that is named by its place, in the order written."""
    return [Mention(match.start(), match.end(), _place(match)) for match in _MENTION.finditer(text)]


def find_ordinal(text: str) -> int | None:
    """The place (0-based) that the first ordinal of a text names, "image" behind it or not; None without one."""
    match = _BARE_ORDINAL.search(text)
    return None if match is None else _place(match)


def _place(match: re.Match[str]) -> int:
    parts = match.groupdict()
    if parts["word"]:
        return _WORDS.index(parts["word"].lower())
    return int(parts["digits"] or parts["number"]) - 1
