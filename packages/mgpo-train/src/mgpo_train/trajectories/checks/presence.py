"""What the reasoning says of labels and images, held against the labels of the images."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.language.claims import Claim, read_claims
from mgpo_train.trajectories.language.polarity import denied
from mgpo_train.trajectories.language.sentences import Sentence
from mgpo_train.trajectories.nouns import NUMBERS
from mgpo_train.trajectories.problems import Problem, Reason

__all__ = ["presence_problems"]

_NOTHING_ELSE = re.compile(r"I(?: :)? (?:\w+ )?(?:only|just|solely|nothing but)(?: (?:the|a|an|A))* L")


def presence_problems(sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    """Images that there are not, labels where they are not, absences that are none, wrong numbers of things."""
    for place in sentence.named:
        if not 0 <= place < facts.count:
            yield Problem(Reason.UNKNOWN_IMAGE, f"image {place + 1} of {facts.count}: {str(sentence)!r}")
    for claim in read_claims(sentence, facts.count):
        yield from _against(claim, sentence, facts)
    if sentence.asserts:
        yield from _counts(sentence, facts)
        yield from _nothing_else(sentence, facts)


def _against(claim: Claim, sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    wrong = [image for image in claim.images if facts.holds(claim.label, image) != claim.holds]
    if not (wrong if claim.each else len(wrong) == len(claim.images) > 0):
        return
    images = ", ".join(str(image + 1) for image in wrong)
    if claim.joint:
        reason, said = Reason.FALSE_COMPARISON, "does not hold of"
    elif claim.holds:
        reason, said = Reason.FALSE_PRESENCE, "is not in"
    else:
        reason, said = Reason.FALSE_ABSENCE, "is in"
    yield Problem(reason, f"{claim.label!r} {said} image {images}: {str(sentence)!r}")


def _counts(sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    """Wrong numbers right before a label, in a sentence about one image."""
    if len(sentence.named) != 1 or not 0 <= sentence.named[0] < facts.count:
        return
    for index in sentence.of_kind("label"):
        word = sentence.tokens[index - 1].letter if index else ""
        number = NUMBERS.index(word) if word in NUMBERS[2:] else int(word) if word.isdecimal() else None
        label, image = sentence.tokens[index].value, sentence.named[0]
        if number is not None and not denied(sentence)[index] and number != facts.counts[image][label]:
            told = f"{facts.counts[image][label]} {label!r} in image {image + 1}, not {number}: {str(sentence)!r}"
            yield Problem(Reason.FALSE_COUNT, told)


def _nothing_else(sentence: Sentence, facts: Facts) -> Iterator[Problem]:
    """Other labels in an image that is said to hold only some."""
    if len(sentence.named) != 1 or not _NOTHING_ELSE.search(sentence.skeleton):
        return
    said = {sentence.tokens[index].value for index in sentence.of_kind("label")}
    for image in sentence.named:
        more = sorted(set(facts.counts[image]) - said) if image < facts.count else []
        if more:
            yield Problem(Reason.FALSE_COMPARISON, f"image {image + 1} also holds {more[0]!r}: {str(sentence)!r}")
