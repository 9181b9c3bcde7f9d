"""The English that the varied writer needs: plurals, articles, small numbers, lists, and positions in an image."""

from __future__ import annotations

from collections.abc import Sequence

from mgpo_core.boxes.parse import Box, Size

__all__ = ["ORDINALS", "counted", "joined", "plural", "position_words"]

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_IRREGULAR = {
    "child": "children", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves", "loaf": "loaves",
    "man": "men", "mouse": "mice", "person": "people", "shelf": "shelves", "tooth": "teeth", "wife": "wives",
    "wolf": "wolves", "woman": "women", "half": "halves", "calf": "calves", "scarf": "scarves",
}  # fmt: skip
_UNCHANGED = ("sheep", "deer", "fish", "aircraft", "scissors", "skis", "jeans", "trousers", "glasses", "people")
_POSITIONS = (
    (("in the upper left", "at the top left"), ("in the upper middle", "at the top centre"),
     ("in the upper right", "at the top right")),
    (("in the middle left", "on the left side"), ("in the centre", "in the middle"),
     ("in the middle right", "on the right side")),
    (("in the lower left", "at the bottom left"), ("in the lower middle", "at the bottom centre"),
     ("in the lower right", "at the bottom right")),
)  # fmt: skip
"""By thirds of the image: down, then across."""


def plural(noun: str) -> str:
    """The plural of a noun phrase, whose last word is its head."""
    before, space, head = noun.rpartition(" ")
    return before + space + _plural_word(head)


def _plural_word(word: str) -> str:
    lower = word.lower()
    if lower in _UNCHANGED:
        return word
    if lower in _IRREGULAR:
        return word[0] + _IRREGULAR[lower][1:]
    if lower.endswith("man") and lower != "human":
        return word[:-2] + "en"
    if lower.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if lower.endswith("y") and lower[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def counted(noun: str, count: int) -> str:
    """A noun with its count: `a cup`, `two cups`; a plural such as `scissors` has no article."""
    if count > 1:
        return f"{_NUMBERS[count] if count < len(_NUMBERS) else count} {plural(noun)}"
    if noun.lower().rpartition(" ")[2] in _UNCHANGED:
        return noun
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def joined(parts: Sequence[str]) -> str:
    """A list in words: `a`, `a and b`, `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def position_words(box: Box, size: Size) -> tuple[str, ...]:
    """Ways to say in which third of its image, across and down, the centre of a box lies."""
    across, down = (
        0 if share < 1 / 3 else 2 if share > 2 / 3 else 1
        for share in (centre / side for centre, side in zip(box.center, size, strict=True))
    )
    return _POSITIONS[down][across]
