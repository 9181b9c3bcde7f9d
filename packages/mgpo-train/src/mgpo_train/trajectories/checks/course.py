"""How the reasoning goes: every image is weighed, in order; then the object is found; and the answer follows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mgpo_train.trajectories.checks.details import detail_images, detail_labels
from mgpo_train.trajectories.checks.facts import Facts
from mgpo_train.trajectories.checks.relations import CUES
from mgpo_train.trajectories.language.claims import is_alone
from mgpo_train.trajectories.language.image_mentions import Scope
from mgpo_train.trajectories.language.polarity import denied
from mgpo_train.trajectories.language.sentences import Sentence
from mgpo_train.trajectories.problems import Problem, Reason

__all__ = ["course_problems"]

_ANSWER = re.compile(r"\banswer\b")
_IT = re.compile(r"(?:so |thus |hence |and )?(?:it|this|that)\b")
_CLAUSE = re.compile(r"(?:,|\band|\bwhile|\bbut) (?:in )?(?:the )?$")
_SAYS = re.compile(r"I (?:(?:holds?|has|have|shows?|contains?|lacks?|does|is)\b|:|(?:(?:a|an|the|no) )?(?:A )*L)")
_COMPARES = re.compile(r"\b(?:unlike|compared|than)\b")
_EMPTY = re.compile(r"\b(?:no|not|nothing|none|empty|neither|\w+n't)\b")


def course_problems(sentences: Sequence[Sentence], facts: Facts) -> Iterator[Problem]:
    """Images that are passed over or come in another order; an object before them, none at all, or another one."""
    weighed: dict[int, tuple[int, int]] = {}
    for number, sentence in enumerate(sentences):
        for at, image in _weighs(sentence):
            weighed.setdefault(image, (number, at))
    missing = [image for image in range(facts.count) if image not in weighed]
    for image in missing:
        yield Problem(Reason.IMAGE_NOT_WEIGHED, f"nothing is said of image {image + 1} before the object")
    places = [weighed[image] for image in range(facts.count) if image in weighed]
    if places != sorted(places):
        order = ", ".join(str(image + 1) for image, _ in sorted(weighed.items(), key=lambda item: item[1]))
        yield Problem(Reason.IMAGES_OUT_OF_ORDER, f"the images are weighed in the order {order}")
    last = max((number for number, _ in places), default=-1)
    yield from _finding(sentences, last, facts)
    yield from _contradictions(sentences[last + 1 :], facts)


def _finding(sentences: Sequence[Sentence], last: int, facts: Facts) -> Iterator[Problem]:
    found = [number for number, sentence in enumerate(sentences) if _finds_object(sentence, facts)]
    early = [number for number in found if number < last]
    if early:
        yield Problem(Reason.OBJECT_BEFORE_IMAGES, f"not all images are weighed before {str(sentences[early[0]])!r}")
    if not any(number > last for number in found) and not early:
        yield Problem(Reason.NO_CONCLUSION, f"nothing says that {facts.asked!r} is in image {facts.target + 1}")


def _contradictions(sentences: Sequence[Sentence], facts: Facts) -> Iterator[Problem]:
    """Where the last image, box or position that is given of the object is not that of the answer."""
    said = [(image == facts.target, sentence) for sentence in sentences for image in _concludes(sentence, facts)]
    boxes, positions = (
        [place for sentence in sentences for place in _places(sentence, kind, facts)] for kind in ("box", "position")
    )
    for found in (said, boxes, positions):
        if found and not found[-1][0]:
            told = f"the answer is elsewhere, in image {facts.target + 1}: {str(found[-1][1])!r}"
            yield Problem(Reason.CONTRADICTS_ANSWER, told)


def _weighs(sentence: Sentence) -> list[tuple[int, int]]:
    """(place in the sentence, image) of the images that a sentence weighs.

    Those are the ones that it names before any object, if it says what they hold and compares nothing.
    """
    labels = sentence.of_kind("label")
    says_something = labels or _EMPTY.search(sentence.skeleton)
    if not sentence.asserts or not says_something or _compares(sentence) or _ANSWER.search(sentence.skeleton):
        return []
    return [
        (index, image)
        for index in sentence.of_kind("image")
        for image in sentence.tokens[index].value.places
        if not labels or index < labels[0] or _opens_clause(sentence, index)
    ]


def _opens_clause(sentence: Sentence, index: int) -> bool:
    """Whether an image opens another clause: "image 1 has a cup and image 2 has none"."""
    return bool(_CLAUSE.search(sentence.before(index)) and _SAYS.match(sentence.after(index)))


def _compares(sentence: Sentence) -> bool:
    """Whether a sentence speaks of images together, or says how the ones that it names relate."""
    mentions = sentence.of_kind("image")
    together = (Scope.ALL, Scope.ANY, Scope.OTHERS)
    if any(sentence.tokens[i].value.scope in together or is_alone(sentence, i) for i in mentions):
        return True
    cues = [_COMPARES, *CUES.values()] if len(sentence.named) > 1 else [CUES["differs"]]
    return any(cue.search(sentence.skeleton) for cue in cues)


def _finds_object(sentence: Sentence, facts: Facts) -> bool:
    """Whether a sentence says that the object asked for is in its image, naming it before the image."""
    if not sentence.asserts:
        return False
    states = denied(sentence)
    asked = [i for i in sentence.of_kind("label") if sentence.tokens[i].value == facts.asked and not states[i]]
    images = sentence.of_kind("image")
    if images and _means_asked(sentence, facts):
        asked = [0]
    if not asked or (images and images[0] < asked[0] and not _ANSWER.search(sentence.skeleton)):
        return False
    if images:
        return any(facts.target in sentence.tokens[i].value.places and not states[i] for i in images)
    located = sentence.of_kind("box", "position")
    return any(detail_images(sentence, index, facts.count) == (facts.target,) for index in located)


def _means_asked(sentence: Sentence, facts: Facts) -> bool:
    """Whether a sentence begins with "it", and the object asked for was named last."""
    return sentence.label == facts.asked and bool(_IT.match(sentence.skeleton)) and not sentence.of_kind("label")


def _places(sentence: Sentence, kind: str, facts: Facts) -> list[tuple[bool, Sentence]]:
    """For each box or position that a sentence gives of the object in its image, whether it is that of the answer."""
    found = []
    for index in sentence.of_kind(kind) if sentence.asserts else ():
        said_of = detail_images(sentence, index, facts.count), detail_labels(sentence, index)
        if said_of == ((facts.target,), {facts.asked}) and not denied(sentence)[index]:
            value, box = sentence.tokens[index].value, facts.annotated.answer.box
            size = facts.view.original_sizes[facts.target]
            found.append((facts.is_box(value, box) if kind == "box" else value.holds(box, size), sentence))
    return found


def _concludes(sentence: Sentence, facts: Facts) -> list[int]:
    """The one image, if it is one, in which a sentence says that the object or the answer is."""
    labels = {sentence.tokens[index].value for index in sentence.of_kind("label")}
    about = facts.asked in labels or (not labels and _ANSWER.search(sentence.skeleton)) or _means_asked(sentence, facts)
    images = sentence.of_kind("image")
    if not sentence.asserts or not about or len(sentence.named) != 1 or len(images) != 1:
        return []
    return [] if denied(sentence)[images[0]] else list(sentence.named)
