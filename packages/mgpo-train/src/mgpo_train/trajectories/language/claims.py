"""Which objects a sentence says are in which images, and which it says are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mgpo_train.trajectories.language.image_mentions import ImageMention, Scope
from mgpo_train.trajectories.language.polarity import CONTRASTS, denied, denied_afterwards, ends_denied
from mgpo_train.trajectories.language.sentences import Sentence

__all__ = ["Claim", "is_alone", "place_of", "read_claims"]

_ALONE_BEFORE = re.compile(r"\b(?:only|solely|just|exclusively)(?: (?:in|on))?(?: the)? $")
_ALONE_AFTER = re.compile(r"I (?:alone\b|is the only\b|only(?= ,| \)|$))")
_AMONG = re.compile(r"\b(?:of|among|from) $")
_ASIDE = re.compile(
    r"\b(?:unlike|than|as|like|compared with|compared to)(?: (?:in|on|for|with))?(?: (?:the|a|an|that of))* $"
)
_CONFUSABLE = re.compile(
    r"\b(?:unlike|than|like|resembles|instead of|similar to|mistaken for|differs? (?:in|by))(?: (?:the|a|an|A))* $"
)
_PREDICATE = re.compile(r"I (?:holds?|has|have|shows?|contains?|lacks?|does|do|is|are|:)(?= |$)")
_NEW_SUBJECT = re.compile(r"L(?: and (?:the |an? )?L)* (?:is|are|lies|lie|appears|appear|sits|stands)\b[^,IL]* I\b")
_ALSO = re.compile(r"\b(?:too|also|as well|likewise|one|it|them)\b")
_HERE = re.compile(
    r"^(?:(?:and|but|so|also|in addition|besides) ,? ?)?(?:it|there|here|next to|beside)\b"
    r"|\bhere$|\bL (?:is|are)(?: \w+ly| also| not)* (?:visible|present|seen|shown|missing|absent|here|there)$"
)


@dataclass(frozen=True)
class Claim:
    """That each of the images holds a label, or does not; `images` are places from 0."""

    label: str
    images: tuple[int, ...]
    holds: bool
    joint: bool = False
    """Whether it speaks of images together (both, every, only), not of named ones."""
    each: bool = True
    """False: it only denies that all of the images hold the label."""


@dataclass
class _Part:
    """A stretch of a sentence in which every label goes with every image; `first` is its first token."""

    first: int
    images_first: bool
    images: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)


def read_claims(sentence: Sentence, count: int) -> list[Claim]:
    """The claims of a sentence about `count` images; none of a question or a plan."""
    return list(_claims(sentence, count)) if sentence.asserts else []


def _claims(sentence: Sentence, count: int) -> Iterator[Claim]:
    before: _Part | None = None
    parts = _parts(sentence)
    ends = [*(part.first for part in parts), len(sentence.tokens)][1:]
    for part, end in zip(parts, ends, strict=False):
        if part.labels and part.images:
            yield from _joined(sentence, part, count)
        elif part.images and before is not None:
            yield from _said_again(sentence, part, before, end, count)
        elif part.labels:
            yield from _without_image(sentence, part, before, count)
        before = part if part.labels or before is None else before


def _parts(sentence: Sentence) -> list[_Part]:
    parts: list[_Part] = []
    for index in sentence.of_kind("image", "label"):
        token = sentence.tokens[index]
        if token.kind == "image":
            if (
                token.value.scope is Scope.SOME
                or _ASIDE.search(sentence.before(index))
                or _is_universe(sentence, index)
            ):
                continue
            if not parts or (parts[-1].images_first and _is_complete(sentence, parts[-1])):
                parts.append(_Part(index, images_first=True))
            parts[-1].images.append(index)
        elif not _CONFUSABLE.search(sentence.before(index)):
            if not parts or _begins_anew(sentence, parts[-1], index):
                parts.append(_Part(index, images_first=False))
            parts[-1].labels.append(index)
    return parts


def _is_complete(sentence: Sentence, part: _Part) -> bool:
    return bool(part.labels) or bool(_PREDICATE.match(sentence.after(part.images[-1])))


def _begins_anew(sentence: Sentence, part: _Part, index: int) -> bool:
    if not part.images_first:
        return bool(part.images)
    return bool(part.labels) and bool(_NEW_SUBJECT.match(sentence.after(index)))


def place_of(sentence: Sentence, label: int) -> int | None:
    """The one image mention that a label goes with; None where there is none, or are several."""
    for part in _parts(sentence):
        if label in part.labels and len(part.images) == 1:
            return part.images[0]
    return None


def _is_universe(sentence: Sentence, index: int) -> bool:
    """Whether an image mention is what the sentence chooses from: "of images 1 to 3, only ..."."""
    rest = [token.letter for token in sentence.tokens[index + 1 :]]
    return bool(_AMONG.search(sentence.before(index))) and ("only" in rest or "alone" in rest)


def _joined(sentence: Sentence, part: _Part, count: int) -> Iterator[Claim]:
    states = denied(sentence)
    for label in part.labels:
        for image in part.images:
            if part.images_first:
                holds = not (states[label] or denied_afterwards(sentence, label))
                not_all = states[image]
            else:
                unless = any(token.letter in CONTRASTS for token in sentence.tokens[label:image])
                holds = not (states[image] or (states[label] and not unless))
                not_all = not holds and not states[label]
            yield from _claim(sentence, label, image, holds, not_all, count)


def _claim(sentence: Sentence, label: int, image: int, holds: bool, not_all: bool, count: int) -> Iterator[Claim]:
    mention: ImageMention = sentence.tokens[image].value
    word = sentence.tokens[label].value
    places = _places(sentence, mention, count)
    if mention.scope is Scope.ALL and not_all and not mention.negative:
        yield Claim(word, places, holds=False, joint=True, each=False)
        return
    if mention.scope is Scope.ANY and holds and not not_all:
        return  # "any image with a cup" claims nothing
    holds = (holds and not (mention.scope is Scope.ANY and not_all)) != mention.negative
    claim = Claim(word, places, holds, joint=mention.scope is not Scope.NAMED)
    yield claim
    if is_alone(sentence, image):
        rest = tuple(place for place in _universe(sentence, image, count) if place not in places)
        yield replace(claim, images=rest, holds=not holds, joint=True)


def _places(sentence: Sentence, mention: ImageMention, count: int) -> tuple[int, ...]:
    if mention.scope is Scope.NAMED:
        return tuple(place for place in mention.places if 0 <= place < count)
    if mention.scope is not Scope.OTHERS:
        return tuple(range(count))
    spoken_of = sentence.named or (() if sentence.image is None else (sentence.image,))
    return tuple(place for place in range(count) if place not in spoken_of) if spoken_of else ()


def is_alone(sentence: Sentence, index: int) -> bool:
    """Whether an image is said to be the only one."""
    return bool(_ALONE_BEFORE.search(sentence.before(index)) or _ALONE_AFTER.match(sentence.after(index)))


def _universe(sentence: Sentence, index: int, count: int) -> tuple[int, ...]:
    for other in sentence.of_kind("image"):
        if other < index and _is_universe(sentence, other):
            mention: ImageMention = sentence.tokens[other].value
            return () if mention.scope is Scope.OTHERS else _places(sentence, mention, count)
    return tuple(range(count))


def _said_again(sentence: Sentence, part: _Part, before: _Part, end: int, count: int) -> Iterator[Claim]:
    """What was said of labels before, of further images: "but not in image 2", "which image 1 lacks"."""
    said = max(before.labels + before.images) + 1
    words = " ".join(token.letter for token in sentence.tokens[part.first : end])
    also = bool(_ALSO.search(words))
    for image in part.images:
        behind = end if image == part.images[-1] else image + 1
        negative = ends_denied(sentence, said, image + 1) or ends_denied(sentence, image, behind)
        for label in before.labels if negative or also else ():
            yield from _claim(sentence, label, image, not negative, negative, count)


def _without_image(sentence: Sentence, part: _Part, before: _Part | None, count: int) -> Iterator[Claim]:
    """Labels beside others, of the same image; or of the image spoken of last: "there is also a cup"."""
    states = denied(sentence)
    for label in part.labels:
        holds = not (states[label] or denied_afterwards(sentence, label))
        if before is not None and before.images and holds:
            for image in before.images:
                yield from _claim(sentence, label, image, not denied(sentence)[image], False, count)
        elif before is None and sentence.image is not None and _HERE.search(sentence.skeleton):
            yield Claim(sentence.tokens[label].value, (sentence.image,), holds)
