"""The words of a set: labels in singular and plural, and the values of attributes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cached_property, lru_cache

from mgpo_core.annotations import AnnotatedSet
from mgpo_train.trajectories.nouns import plural

__all__ = ["Lexicon", "folded", "lexicon_of"]

_COLOUR_KEYS = ("colour", "color")
_COLOURS = (
    "red", "green", "blue", "yellow", "purple", "black", "white", "grey", "gray", "brown", "orange", "pink", "violet",
    "cyan", "turquoise", "beige", "golden", "silver",
)  # fmt: skip
_NOTHING = r"(?!)"


def folded(text: str) -> str:
    """A label or a value as it is compared: without regard to case and to the width of spaces."""
    return " ".join(text.lower().split())


class Lexicon:
    """What labels and values may be found in a text; `labels` maps each form of a label to it."""

    def __init__(self, labels: Iterable[str], attributes: Iterable[tuple[str, str]]) -> None:
        singular = {folded(label): folded(label) for label in labels}
        self.plurals = {plural(label): label for label in singular if plural(label) not in singular}
        self.labels = singular | self.plurals
        self.values: dict[str, set[str]] = {}
        for key, value in attributes:
            for word in {folded(value), *(_COLOURS if folded(key) in _COLOUR_KEYS else ())}:
                self.values.setdefault(word, set()).add(folded(key))

    @cached_property
    def label_pattern(self) -> re.Pattern[str]:
        """Any form of any label, the longest first."""
        return _any_of(self.labels)

    @property
    def longest(self) -> int:
        """How many characters the longest form of a label has, with room for wide spaces."""
        return 2 * max(map(len, self.labels))

    @cached_property
    def value_pattern(self) -> re.Pattern[str]:
        """Any value of an attribute, the longest first."""
        return _any_of(self.values)

    @property
    def keys(self) -> set[str]:
        """The names of attributes."""
        return set().union(*self.values.values())


def _any_of(words: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    either = "|".join(map(_spaced, longest_first)) or _NOTHING
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


def _spaced(words: str) -> str:
    return r"\s+".join(re.escape(word) for word in words.split())


def lexicon_of(annotated: AnnotatedSet, vocabulary: Collection[str] = ()) -> Lexicon:
    """The words of a set, and further labels that its texts may use."""
    attributes = {(key, value) for item in annotated.objects for key, value in item.attributes.items()}
    return _lexicon(frozenset({item.label for item in annotated.objects} | set(vocabulary)), frozenset(attributes))


@lru_cache(maxsize=256)
def _lexicon(labels: frozenset[str], attributes: frozenset[tuple[str, str]]) -> Lexicon:
    return Lexicon(labels, attributes)
