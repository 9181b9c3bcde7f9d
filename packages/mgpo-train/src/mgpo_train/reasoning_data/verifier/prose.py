"""The form of the prose: what it names in numbers. What it says in words is not read; that is what claims are for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mgpo_core.boxes.regions import REGION
from mgpo_core.templates.multi_image import THINK
from mgpo_train.reasoning_data.trace import ObjectClaim, Trace
from mgpo_train.reasoning_data.verifier.facts import Facts, folded
from mgpo_train.reasoning_data.verifier.problems import Problem, Reason
from mgpo_train.reasoning_data.writers.english import ORDINALS

__all__ = ["BOX", "named_images", "prose_problems"]

_NUMBER = r"\s*(-?\d{1,9}(?:\.\d{1,9})?)\s*"
BOX = re.compile(rf"[\[(]{','.join([_NUMBER] * 4)}[\])]")
"""A box written in a text; its groups are the four numbers."""

_LIST = r"\d{1,4}(?:(?:\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or|to)\s+|\s*[-–]\s*)\d{1,4})*"
_NAMED = re.compile(
    rf"\b(?:image\s+(\d{{1,4}})|images\s+({_LIST})|({'|'.join(ORDINALS)}|\d{{1,4}}(?:st|nd|rd|th))\s+image)\b",
    re.IGNORECASE,
)
_MENTIONS_ANNOTATIONS = re.compile(
    r"\b(?:annotat\w+|ground[ -]truth|metadata|json)\b"
    r"|\b(?:given|provided|supplied) (?:answer|data|boxes|labels|objects)\b",
    re.IGNORECASE,
)
_RESERVED = (*THINK, "```")
_LONGEST = 200
"""The most words in a sentence: models that repeat themselves write no full stop."""


def named_images(text: str) -> list[int]:
    """The images (from 0) that a text names by number ("image 2", "images 1 and 3", "the second image"), in order."""
    named: list[int] = []
    for one, several, ordinal in _NAMED.findall(text):
        if ordinal.lower() in ORDINALS:
            named.append(ORDINALS.index(ordinal.lower()))
        else:
            named += [int(number) - 1 for number in re.findall(r"\d+", one or several or ordinal)]
    return named


def prose_problems(trace: Trace, facts: Facts) -> Iterator[Problem]:
    """What is wrong with the form of the reasoning."""
    text = trace.solution.reasoning
    if not text.strip():
        yield Problem(Reason.EMPTY_REASONING, "the reasoning is empty")
        return
    markers_left = REGION in text and not trace.solution.regions
    for mark in (*_RESERVED, *([REGION] if markers_left else [])):
        if mark in text:
            yield Problem(Reason.RESERVED_TEXT, f"the reasoning holds {mark}")
    longest = max(re.split(r"[.;!?\n]", text), key=lambda sentence: len(sentence.split()))
    if len(longest.split()) > _LONGEST:
        yield Problem(Reason.RUNS_ON, f"a sentence of {len(longest.split())} words: {longest!r:.120}")
    mention = _MENTIONS_ANNOTATIONS.search(text)
    if mention:
        yield Problem(Reason.MENTIONS_ANNOTATIONS, f"a model that only sees the images would not say {mention[0]!r}")
    yield from _box_problems(trace, facts)
    yield from _image_problems(trace, facts)


def _box_problems(trace: Trace, facts: Facts) -> Iterator[Problem]:
    """Boxes of the prose that no claim makes and that the question does not point at."""
    claimed = [claim.box for claim in trace.claims if isinstance(claim, ObjectClaim)]
    known = [*claimed, *facts.annotated.regions]
    boxes = [facts.view.numbers(box) for box in trace.solution.regions if box not in known]
    for numbers in [*boxes, *(match[0] for match in BOX.finditer(trace.solution.reasoning))]:
        yield Problem(Reason.UNCLAIMED_BOX, f"the reasoning names the box {numbers}, which no claim holds")


def _image_problems(trace: Trace, facts: Facts) -> Iterator[Problem]:
    """Images that do not exist, are passed over or come out of order; no conclusion, or one on another image."""
    named, target = named_images(trace.solution.reasoning), facts.answer.box.image
    for image in sorted({image for image in named if not 0 <= image < facts.count}):
        yield Problem(Reason.NO_SUCH_IMAGE, f"the reasoning names image {image + 1} of {facts.count}")
    objects = [claim for claim in trace.claims if isinstance(claim, ObjectClaim)]
    weighed = {claim.image for claim in objects}
    for image in range(facts.count):
        if image not in weighed or image not in named:
            what = "the reasoning does not name" if image in weighed else "no claim is about"
            yield Problem(Reason.IMAGE_NOT_WEIGHED, f"{what} image {image + 1}")
    order = list(dict.fromkeys(named))
    if order != sorted(order):
        yield Problem(Reason.IMAGES_OUT_OF_ORDER, f"the images are named in the order {[i + 1 for i in order]}")
    concluded = {(claim.image, folded(claim.label)) for claim in objects if claim.present}
    if (target, folded(facts.answer.label)) not in concluded:
        yield Problem(Reason.NO_CONCLUSION, f"no claim says that {facts.answer.label!r} is in image {target + 1}")
    if named and named[-1] != target:
        yield Problem(Reason.CONTRADICTS_ANSWER, f"the last image named is {named[-1] + 1}, not {target + 1}")
