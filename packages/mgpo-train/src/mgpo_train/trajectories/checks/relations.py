"""What the reasoning says of how images relate, held against the annotated relations."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mgpo_core.annotations import Relation
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.language.image_mentions import Scope
from mgpo_train.trajectories.language.lexicon import folded
from mgpo_train.trajectories.language.polarity import denied
from mgpo_train.trajectories.language.sentences import Sentence
from mgpo_train.trajectories.problems import Problem, Reason

__all__ = ["CUES", "relation_problems"]

_THING = r"(?:L|object|thing|one|item|instance|individual|person|animal)\b"
_SIDES = r"(?:sides?|angles?|views?|viewpoints?|perspectives?|directions?)"
CUES = {
    "same": re.compile(rf"\bone and the same\b|\bidentical\b|\bthe (?:very )?same (?:A )*{_THING}|\bis L .* again\b"),
    "view": re.compile(
        rf"\bsame (?:scene|room)\b|\bfrom (?:a |an |the )?(?:different|other|another|opposite|several|two) {_SIDES}\b"
        rf"|\b(?:different|another|several) (?:viewpoints?|perspectives?|angles?|views?)\b|\bviewpoint\b"
    ),
    "order": re.compile(
        r"\bfollow(?:s|ed)? (?:each other|one another|I)\b|\bin (?:order of )?time\b|\bover time\b|\bchronolog\w+"
        r"|\bconsecutive\b|\b(?:in|a) sequence\b|\b(?:earlier|later) (?:in time|moment)\b"
        r"|\bmoments? (?:before|after|later)\b"
    ),
    "common": re.compile(r"\bin common\b|\bcommon to\b|\bshare[sd]?\b|\bcommon (?:object|thing|kind|item)\b"),
    "differs": re.compile(
        r"\bdiffers?\b|\bdifferences?\b|\bnew in\b|\badd(?:s|ed)?\b|\bextra\b|\badditional(?:ly)?\b|\bnewly\b"
    ),
}
"""Words that claim a relation, by its kind; the words are those of a sentence's skeleton."""


def relation_problems(sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    """Relations that are claimed and not annotated, or denied and annotated."""
    if not sentence.asserts:
        return
    for kind, cue in CUES.items():
        for found in cue.finditer(sentence.skeleton):
            if kind != "same" or not _of_several(sentence, found.end()):
                yield from _against(kind, found.end(), sentence, facts)


def _against(kind: str, end: int, sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    index = _token_before(sentence, end)
    claimed = not denied(sentence)[index]
    if claimed != _holds(kind, sentence, facts, _labels_around(sentence, index), claimed):
        word = "does not hold" if claimed else "holds"
        yield Problem(Reason.FALSE_RELATION, f"{kind!r} {word}: {str(sentence)!r}")


def _token_before(sentence: Sentence, end: int) -> int:
    """The token that ends at a place of the skeleton."""
    return max(index for index, start in enumerate(sentence.starts) if start < end)


def _of_several(sentence: Sentence, end: int) -> bool:
    """Whether "the same ..." is of a plural, which speaks of kinds, not of one thing."""
    token = sentence.tokens[_token_before(sentence, end)]
    return token.kind == "label" and folded(token.text) != token.value


def _labels_around(sentence: Sentence, index: int) -> set[str]:
    """The labels behind a cue (it may end with one), or, without any, those before it."""
    labels = sentence.of_kind("label")
    behind = [place for place in labels if place >= index]
    return {sentence.tokens[place].value for place in behind or labels}


def _images(sentence: Sentence, facts: Facts) -> set[int]:
    """The images that a sentence relates: those named, or all where it says so or names none."""
    scopes = {sentence.tokens[index].value.scope for index in sentence.of_kind("image")}
    if Scope.ALL in scopes:
        return set(range(facts.count))
    return {place for place in sentence.named if place < facts.count}


def _holds(kind: str, sentence: Sentence, facts: Facts, labels: set[str], claimed: bool) -> bool:
    images = _images(sentence, facts)
    if kind == "common":
        return _common(images, labels, facts, claimed)
    if kind == "differs":
        return _differs(images, labels, facts, claimed)
    known = [
        relation for relation in facts.relations(kind) if kind != "same" or not labels or _of(relation, labels, facts)
    ]
    if kind == "same" and not claimed and not images:
        return False  # that some things are not the same may be true
    return any(images <= set(relation.images) for relation in known)


def _of(relation: Relation, labels: set[str], facts: Facts) -> bool:
    return labels <= {folded(facts.annotated.objects[place].label) for place in relation.objects}


def _common(images: set[int], labels: set[str], facts: Facts, claimed: bool) -> bool:
    places = sorted(images) if len(images) > 1 else list(range(facts.count))
    if not labels:
        shared = set.intersection(*(set(facts.counts[place]) for place in places))
        return bool(shared) or bool(facts.relations("common"))
    several = [facts.everywhere(label, places) for label in labels]
    return all(several) if claimed else any(several)


def _differs(images: set[int], labels: set[str], facts: Facts, claimed: bool) -> bool:
    known = facts.relations("differs")
    if known and labels and claimed:
        return any(_of(relation, labels, facts) for relation in known)
    if known:
        return True
    places = sorted(images) if len(images) > 1 else list(range(facts.count))
    if not labels:
        return any(facts.counts[place] != facts.counts[places[0]] for place in places)
    held = [{facts.holds(label, place) for place in places} == {True, False} for label in labels]
    return all(held) if claimed else any(held)
