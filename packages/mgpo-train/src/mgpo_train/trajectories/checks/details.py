"""What the reasoning says of single objects: where they lie, in words and in numbers, and what they are like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mgpo_core.annotations import AnnotatedObject
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.language.claims import place_of
from mgpo_train.trajectories.language.image_mentions import Scope
from mgpo_train.trajectories.language.lexicon import Lexicon, folded
from mgpo_train.trajectories.language.polarity import denied
from mgpo_train.trajectories.language.sentences import Sentence
from mgpo_train.trajectories.problems import Problem, Reason

__all__ = ["detail_images", "detail_labels", "detail_problems"]

_BEGINS = re.compile(r"(?:^|, |\band |\bbut |\bthere , )(?:(?:in|at|on|to) )?(?:the )?$")
_OF_IMAGE = re.compile(r"[A-Z](?: (?:of|in|on|from))(?: the)? I\b")
_SAID_OF_IT = re.compile(r"\bits?\b|^(?:and |so )?(?:this|that|the object|the answer|there|here|[BPA])\b")
_MODIFIES = re.compile(r"A(?: A)* L\b")
_PREDICATE = r"(?<!\w)(?:is|are|was|were|looks|appears|being|:|\(|of|coloured|colored"


def detail_problems(sentence: Sentence, facts: Facts, lexicon: Lexicon) -> Iterator[Problem]:
    """Positions, boxes and attributes that the annotations contradict."""
    if not sentence.asserts:
        return
    for index in sentence.of_kind("position"):
        yield from _position(sentence, index, facts)
    for index in sentence.of_kind("box"):
        yield from _box(sentence, index, facts)
    for index in sentence.of_kind("attribute"):
        yield from _attribute(sentence, index, facts, lexicon)


def _subject(sentence: Sentence, index: int) -> int | None:
    """The label that a detail is said of: the one before it, or the one behind it where it begins a clause."""
    before = [place for place in sentence.of_kind("label") if place < index]
    behind = [place for place in sentence.of_kind("label") if place > index]
    if behind and (not before or _BEGINS.search(sentence.before(index))):
        return behind[0]
    return before[-1] if before else None


def _labels(sentence: Sentence, subject: int | None) -> set[str]:
    """The label of a subject; without one in the sentence, the label of before, if that is spoken of still."""
    if subject is not None:
        return {sentence.tokens[subject].value}
    return {sentence.label} if sentence.label is not None and _SAID_OF_IT.search(sentence.skeleton) else set()


def detail_labels(sentence: Sentence, index: int) -> set[str]:
    """The label that a detail is said of, if that can be told."""
    return _labels(sentence, _subject(sentence, index))


def detail_images(sentence: Sentence, index: int, count: int) -> tuple[int, ...]:
    """The images (from 0) that a detail may be of: the one behind it, its subject's, the nearest, that of before."""
    subject = index if sentence.tokens[index].kind == "label" else _subject(sentence, index)
    mentions = sentence.of_kind("image")
    behind = [place for place in mentions if place > index]
    own = None if subject is None else place_of(sentence, subject)
    if behind and _OF_IMAGE.match(sentence.after(index)):
        mentions = behind
    elif own is not None:
        mentions = [own]
    else:
        mentions = [place for place in mentions if place < index][::-1] or behind
    if mentions:
        mention = sentence.tokens[mentions[0]].value
        named = tuple(place for place in mention.places if 0 <= place < count)
        return named if mention.scope is Scope.NAMED else tuple(range(count))
    return tuple(range(count)) if sentence.image is None else (sentence.image,)


def _position(sentence: Sentence, index: int, facts: Facts) -> Iterator[Problem]:
    token, sizes = sentence.tokens[index], facts.view.original_sizes
    images = detail_images(sentence, index, facts.count)
    items = facts.objects(detail_labels(sentence, index), images)
    right = any(token.value.holds(item.box, sizes[item.box.image]) for item in items)
    if items and right == denied(sentence)[index]:
        yield Problem(Reason.FALSE_POSITION, f"{items[0].label!r} is not {token.text!r}: {str(sentence)!r}")


def _box(sentence: Sentence, index: int, facts: Facts) -> Iterator[Problem]:
    token = sentence.tokens[index]
    images = detail_images(sentence, index, facts.count)
    if not any(_lies_inside(token.value, facts.extent(image)) for image in images):
        yield Problem(Reason.FALSE_BOX, f"{token.text} is no box inside its image: {str(sentence)!r}")
        return
    subjects = detail_labels(sentence, index)
    if not any(facts.is_box(token.value, box) for box in facts.boxes(subjects, images)):
        told = f"{token.text} is not where {' or '.join(sorted(subjects)) or 'any object'} is: {str(sentence)!r}"
        yield Problem(Reason.FALSE_BOX, told)


def _lies_inside(numbers: Sequence[float], extent: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = numbers
    return 0 <= x1 < x2 <= extent[0] and 0 <= y1 < y2 <= extent[1]


def _attribute(sentence: Sentence, index: int, facts: Facts, lexicon: Lexicon) -> Iterator[Problem]:
    value, modifies = sentence.tokens[index].value, _MODIFIES.match(sentence.after(index))
    if not modifies and not _is_predicate(sentence, index, lexicon):
        return
    behind = [place for place in sentence.of_kind("label") if place > index]
    subject = behind[0] if modifies else _subject(sentence, index)
    labels = _labels(sentence, subject)
    images = detail_images(sentence, index if subject is None else subject, facts.count)
    items = facts.objects(labels, images) if labels else []
    said = [_has(item, value, lexicon.values[value]) for item in items]
    if items and all(has is not None for has in said) and any(said) == denied(sentence)[index]:
        yield Problem(Reason.FALSE_ATTRIBUTE, f"{items[0].label!r} is not {value!r}: {str(sentence)!r}")


def _is_predicate(sentence: Sentence, index: int, lexicon: Lexicon) -> bool:
    keys = "|".join(map(re.escape, sorted(lexicon.keys)))
    before = rf"{_PREDICATE}|{keys})(?: (?:not|clearly|also|a|an))* (?:A (?:, |and )*)*$"
    behind = rf"A(?: (?:[,.;)]|and|in|with|but|one|as|{keys})(?!\w)|$)"
    return bool(re.search(before, sentence.before(index)) and re.match(behind, sentence.after(index)))


def _has(item: AnnotatedObject, value: str, keys: set[str]) -> bool | None:
    """Whether an object has a value under one of the keys; None where it is not annotated."""
    known = [folded(said) for key, said in item.attributes.items() if folded(key) in keys]
    return value in known if known else None
