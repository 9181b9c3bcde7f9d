"""How a sentence names images: by number, by place, or several together."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from mgpo_train.trajectories.nouns import NUMBERS, ORDINALS

__all__ = ["IMAGE", "ImageMention", "Scope", "read_images"]

_NOUN = r"(?:image|picture|photograph|photo|frame|pic)"
_NOUNS = rf"{_NOUN}s?"
_NUMBER = rf"(?:\d{{1,3}}|{'|'.join(NUMBERS[1:])})(?!\w|\.\d)"
_NUMBERED = rf"{_NOUN}\s+(?:number\s+|no\.\s*|\#\s*)?{_NUMBER}"
_UNNUMBERED = rf"(?!\w)(?!\s+{_NUMBER})"
_VERBS = r"(?:holds|has|shows|contains|is|does|lacks|depicts|includes|displays|features|adds|cannot|can|alone|only)"
_JOINED = rf"(?:\s*,?\s+(?:and|or|nor|&)\s+|\s*,\s*){_NUMBERED}(?!\s*:|\s+{_VERBS}\b)"
_LISTED = r"(?:\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or|nor|to|through|&)\s+|\s*[-–—]\s*)"
_LIST = rf"{_NOUN}s\s+\#?{_NUMBER}(?:{_LISTED}\#?{_NUMBER})*"
_ORDINAL = rf"(?:{'|'.join(ORDINALS)}|last|final|\d{{1,3}}(?:st|nd|rd|th))"
_ORDINALS = rf"{_ORDINAL}(?:(?:\s*,\s*|\s*,?\s+(?:and|or|nor)\s+)(?:the\s+)?{_ORDINAL})*\s+{_NOUNS}"
_FEW = rf"(?:{'|'.join(NUMBERS[2:])}|\d{{1,3}})"
_FIRST_FEW = rf"(?:first|last)\s+{_FEW}\s+{_NOUN}s"
_END = r"(?=\s*[.,;:)]|\s*$|\s+(?:and|but)\b)"
_ALL = (
    rf"(?:both|all)(?:\s+of)?(?:\s+(?:the|these))?(?:\s+{_FEW})?\s+{_NOUN}s|(?:both|all|each|every\s+one)\s+of\s+them"
    rf"|every(?:\s+single)?\s+{_NOUN}|each\s+(?:of\s+(?:the|these)(?:\s+{_FEW})?\s+)?{_NOUNS}"
    rf"|(?<=\bin\s)(?:both|all(?:\s+{_FEW})?|each|every\s+one){_END}"
)
_THE_IMAGES = rf"(?:the|these)(?:\s+other)?(?:\s+{_FEW})?\s+{_NOUN}s"
_NONE = rf"none\s+of\s+(?:{_THE_IMAGES}|them)|neither(?:\s+of\s+the)?\s+{_NOUNS}{_UNNUMBERED}|no\s+{_NOUN}{_UNNUMBERED}"
_OTHERS = (
    rf"(?:(?:the|any|every|each|all|no|both|none|neither)\s+)?(?:of\s+)?(?:the\s+)?"
    rf"(?:other|remaining)(?:\s+{_FEW})?\s+{_NOUNS}(?!\w)|(?:(?:none|any|all|each|both|neither)\s+of\s+)?the\s+others(?!\w)"
    rf"|no(?:where\s+|\s+image\s+)else|(?:anywhere\s+)?else(?:where)(?!\w)|anywhere\s+else"
)
_SOME = (
    rf"(?:one|some|two|most|many|which|what|other)\s+of\s+(?:the\s+others|{_THE_IMAGES})|which\s+{_NOUNS}{_UNNUMBERED}"
)
_ANY = rf"(?:any|either)(?:\s+of\s+(?:the|these))?(?:\s+{_FEW})?\s+{_NOUNS}(?!\w)|(?:any|either)\s+of\s+them"

IMAGE = (
    rf"(?P<some>{_SOME})|(?P<others>{_OTHERS})|(?P<none>{_NONE})|(?P<any>{_ANY})|(?P<all>{_ALL})"
    rf"|(?P<few>{_FIRST_FEW})|(?P<numbers>{_LIST}(?!\w)|{_NUMBERED}(?:{_JOINED})*)|(?P<ordinals>{_ORDINALS}(?!\w))"
)
"""A mention of images, as a pattern of `re` (without regard to case)."""
_IMAGE = re.compile(IMAGE, re.IGNORECASE)


class Scope(enum.Enum):
    """Which images a mention means."""

    NAMED = "named"
    ALL = "all"
    ANY = "any"
    OTHERS = "others"
    SOME = "some"


@dataclass(frozen=True)
class ImageMention:
    """Images as a sentence names them: their places (from 0) in the order named; empty unless they are named."""

    scope: Scope
    places: tuple[int, ...] = ()
    negative: bool = False
    """Whether it means none of them."""


def read_images(text: str, count: int) -> ImageMention:
    """What a text that `IMAGE` matches means among `count` images; a place may lie beyond them."""
    found = _IMAGE.fullmatch(text)
    kind = found.lastgroup if found else None
    words = text.lower().split()
    if kind in ("others", "none"):
        negative = words[0] in ("no", "none", "neither", "nowhere")
        return ImageMention(Scope.OTHERS if kind == "others" else Scope.ALL, negative=negative)
    if kind in ("any", "all", "some"):
        return ImageMention(Scope(kind))
    if kind == "few":
        few = _number(words[1])
        first = 0 if words[0] == "first" else count - few
        return ImageMention(Scope.NAMED, tuple(range(first, first + few)))
    return ImageMention(Scope.NAMED, _numbers(text) if kind == "numbers" else _ordinals(text, count))


def _numbers(text: str) -> tuple[int, ...]:
    places: list[int] = []
    upto = False
    for part in re.findall(rf"{_NUMBER}|to|through|[-–—]", text.lower()):
        if part in ("to", "through", "-", "–", "—"):
            upto = True
            continue
        place = _number(part) - 1
        places += range(places[-1] + 1, place + 1) if upto and places else [place]
        upto = False
    return tuple(places)


def _ordinals(text: str, count: int) -> tuple[int, ...]:
    places = []
    for part in re.findall(_ORDINAL, text.lower()):
        if part in ("last", "final"):
            places.append(count - 1)
        else:
            places.append(ORDINALS.index(part) if part in ORDINALS else int(part[:-2]) - 1)
    return tuple(places)


def _number(word: str) -> int:
    return NUMBERS.index(word) if word in NUMBERS else int(word)
