"""English nouns: plurals, articles, small numbers and lists, for writing sentences and for reading them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NUMBERS", "ORDINALS", "counted", "joined", "plural", "with_article"]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""Small numbers as words, each at its own place."""
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

_IRREGULAR = {
    "child": "children", "foot": "feet", "goose": "geese", "knife": "knives", "leaf": "leaves", "loaf": "loaves",
    "man": "men", "mouse": "mice", "person": "people", "shelf": "shelves", "tooth": "teeth", "wife": "wives",
    "wolf": "wolves", "woman": "women", "half": "halves", "calf": "calves", "scarf": "scarves",
}  # fmt: skip
_UNCHANGED = ("sheep", "deer", "fish", "aircraft", "scissors", "skis", "jeans", "trousers", "glasses", "people")


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


def with_article(noun: str) -> str:
    """`a` or `an` and the noun; a plural stays as it is."""
    if noun.lower().rpartition(" ")[2] in _UNCHANGED:
        return noun
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def counted(noun: str, count: int) -> str:
    """So many of a noun: `a cup`, `two cups`."""
    if count == 1:
        return with_article(noun)
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {plural(noun)}"


def joined(parts: Sequence[str], last: str = "and") -> str:
    """A list in words: `a`, `a and b`, `a, b and c`."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {last} {parts[-1]}"
