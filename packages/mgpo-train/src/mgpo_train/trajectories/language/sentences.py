"""A text as sentences of tokens: plain words, and mentions of images, labels, boxes, positions and attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mgpo_train.trajectories.language.image_mentions import IMAGE, read_images
from mgpo_train.trajectories.language.lexicon import Lexicon, folded
from mgpo_train.trajectories.positions import POSITION, read_position

__all__ = ["BOX", "Sentence", "Token", "read_sentences"]

_FLOAT = r"-?\d+(?:\.\d+)?"
BOX = rf"[\[(]\s*{_FLOAT}(?:\s*,\s*{_FLOAT}){{3}}\s*[\])]"
"""Four numbers in brackets."""

_BOX = re.compile(BOX)
_IMAGE, _POSITION = (re.compile(rf"\b(?:{pattern})", re.IGNORECASE) for pattern in (IMAGE, POSITION))
_WRAPPED = re.compile(r"\n[ \t]*[a-z]")
_WORD = re.compile(r"\w+(?:\.\d+)?(?:['’]\w+)?")
_LETTERS = {"image": "I", "label": "L", "box": "B", "position": "P", "attribute": "A"}
_ENDS = (".", "!", "?", ";", "\n")
_IGNORED = re.compile(r"[*_`\"“”#>]")
_INTENT = re.compile(
    r"\b(?:asks|asked to|look(?:ing)? for|search(?:ing)? for|needs? to|have to|wants? to|must|let us|let me"
    r"|whether|to find|to locate|to look|the task)\b"
)


@dataclass(frozen=True)
class Token:
    """A word, a punctuation mark, or a mention: `value` is what it means (None for an image there is not)."""

    kind: str
    text: str
    value: Any = None
    start: int = 0
    """Its place in the whole text."""

    @property
    def end(self) -> int:
        """Behind its last character."""
        return self.start + len(self.text)

    @property
    def letter(self) -> str:
        """A capital for a mention, else the word itself, without capitals."""
        return _LETTERS.get(self.kind, self.text.lower())


@dataclass(frozen=True)
class Sentence:
    """Tokens up to a full stop, a semicolon or a line's end, with what was spoken of before them."""

    tokens: tuple[Token, ...]
    asked: bool = False
    """Whether it is a question."""
    image: int | None = None
    """The image (from 0) that the text before spoke of last."""
    label: str | None = None
    """The label that the text before named last."""

    @cached_property
    def skeleton(self) -> str:
        """The sentence with a capital letter for each mention, as in `the L is in I .`; words have no capitals."""
        return " ".join(token.letter for token in self.tokens)

    @cached_property
    def starts(self) -> list[int]:
        """Where each token begins in the skeleton."""
        starts, at = [], 0
        for token in self.tokens:
            starts.append(at)
            at += len(token.letter) + 1
        return starts

    def before(self, index: int) -> str:
        """The skeleton up to a token."""
        return self.skeleton[: self.starts[index]]

    def after(self, index: int) -> str:
        """The skeleton from a token on."""
        return self.skeleton[self.starts[index] :]

    def of_kind(self, *kinds: str) -> list[int]:
        """Places of the tokens of these kinds."""
        return [index for index, token in enumerate(self.tokens) if token.kind in kinds]

    @cached_property
    def asserts(self) -> bool:
        """Whether it says how things are, and neither asks nor plans."""
        return not self.asked and not _INTENT.search(self.skeleton)

    @cached_property
    def named(self) -> tuple[int, ...]:
        """The images that it names, by number or place, in order, each once."""
        mentions = (self.tokens[index].value for index in self.of_kind("image"))
        return tuple(dict.fromkeys(place for mention in mentions for place in mention.places))

    def __str__(self) -> str:
        return " ".join(token.text for token in self.tokens)


def read_sentences(text: str, lexicon: Lexicon, count: int) -> list[Sentence]:
    """The sentences of a text about `count` images."""
    sentences: list[Sentence] = []
    image, label = None, None
    for tokens, asked in _split(_tokens(text, lexicon, count)):
        sentence = Sentence(tokens, asked, image, label)
        sentences.append(sentence)
        image, label = _spoken_of(sentence, image, label, count)
    return sentences


def _spoken_of(sentence: Sentence, image: int | None, label: str | None, count: int) -> tuple[int | None, str | None]:
    for token in sentence.tokens:
        if token.kind == "image" and len(token.value.places) == 1 and 0 <= token.value.places[0] < count:
            image = token.value.places[0]
        if token.kind == "label":
            label = token.value
    return image, label


def _split(tokens: Iterator[Token]) -> Iterator[tuple[tuple[Token, ...], bool]]:
    current: list[Token] = []
    for token in tokens:
        if token.kind == "end":
            if current:
                yield tuple(current), token.text == "?"
            current = []
        else:
            current.append(token)
    if current:
        yield tuple(current), False


def _tokens(text: str, lexicon: Lexicon, count: int) -> Iterator[Token]:
    start = 0
    while start < len(text):
        if text[start].isspace() and (text[start] != "\n" or _WRAPPED.match(text, start)):
            start += 1
            continue
        kind, words = _match(text, start, lexicon)
        if not _IGNORED.fullmatch(words):
            yield Token(kind, words.replace("’", "'"), _meaning(kind, words, lexicon, count), start)
        start += len(words)


def _match(text: str, start: int, lexicon: Lexicon) -> tuple[str, str]:
    """The kind and the words of what begins at a place; where several may, the first of this order."""
    patterns = {
        "box": _BOX,
        "image": _IMAGE,
        "label": lexicon.label_pattern,
        "position": _POSITION,
        "attribute": lexicon.value_pattern,
        "word": _WORD,
    }
    for kind, pattern in patterns.items():
        found = pattern.match(text, start)
        if found is not None and not (kind == "image" and _cuts_label(text, found, lexicon)):
            return kind, found[0]
    return "end" if text[start] in _ENDS else "mark", text[start]


def _cuts_label(text: str, image: re.Match[str], lexicon: Lexicon) -> bool:
    """Whether a mention of images ends inside a label, as in "no image frame"."""
    label = lexicon.label_pattern.search(text, image.start(), image.end() + lexicon.longest)
    return label is not None and label.start() < image.end() < label.end()


def _meaning(kind: str, words: str, lexicon: Lexicon, count: int) -> Any:
    match kind:
        case "image":
            return read_images(words, count)
        case "label":
            return lexicon.labels[folded(words)]
        case "position":
            return read_position(words)
        case "attribute":
            return folded(words)
        case "box":
            return tuple(float(number) for number in re.findall(_FLOAT, words))
