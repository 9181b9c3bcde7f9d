"""The verifier refuses every wrong trajectory, for the reason that a right one was made wrong by."""

from __future__ import annotations

import copy
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trajectory_fixture import Response, check, haystack_sets, reasons, response, scene_set, view_of

from mgpo_core.annotations import AnnotatedSet
from mgpo_train.trajectories.nouns import NUMBERS, plural
from mgpo_train.trajectories.problems import Reason
from mgpo_train.trajectories.wordings import WORDINGS


@dataclass
class Case:
    """A set, what may be made wrong of its response, and what is true of it by the annotations alone."""

    one: AnnotatedSet
    response: Response
    rng: random.Random

    @property
    def asked(self) -> str:
        return self.one.answer.label

    @property
    def target(self) -> int:
        return self.one.answer.box.image

    @property
    def count(self) -> int:
        return len(self.one.images)

    @property
    def vocabulary(self) -> list[str]:
        return sorted({item.label for item in self.one.objects})

    def images(self, label: str) -> list[int]:
        return [image for image in range(self.count) if label in self.one.labels(image)]

    def pick(self, choices: Any) -> Any:
        """One of them; a case without any is left out."""
        choices = list(choices)
        if not choices:
            raise LookupError
        return self.rng.choice(choices)

    def pair(self, *, holds: bool) -> tuple[str, int]:
        """A label and an image that holds it, or does not."""
        return self.pick(
            (label, image)
            for label in self.vocabulary
            for image in range(self.count)
            if (image in self.images(label)) == holds
        )

    def insert(self, sentence: str) -> None:
        """Say something between the images and the object."""
        self.response.rest.insert(0, sentence)

    def replace(self, pattern: str, new: Callable[[re.Match[str]], str]) -> None:
        """Change the last match in what follows the images."""
        text = "\n".join(self.response.rest)
        found = self.pick(list(re.finditer(pattern, text))[-1:])
        self.response.rest = (text[: found.start()] + new(found) + text[found.end() :]).split("\n")


WAYS: list[tuple[Reason, Callable[[Case], str | None]]] = []


def wrong(reason: Reason) -> Callable[[Callable[[Case], str | None]], Callable[[Case], str | None]]:
    """Registers a way to make a right response wrong: it returns a text, or changes the response of its case."""

    def register(way: Callable[[Case], str | None]) -> Callable[[Case], str | None]:
        WAYS.append((reason, way))
        return way

    return register


def answer_changed(reason: Reason, **changes: Callable[[Case], Any]) -> None:
    def way(case: Case) -> None:
        for key, change in changes.items():
            case.response.entry[key] = change(case)

    way.__name__ = f"answer_{'_'.join(changes)}_{len(WAYS)}"
    WAYS.append((reason, way))


def said(reason: Reason, sentence: Callable[[Case], str]) -> None:
    """A false sentence between the images and the object."""

    def way(case: Case) -> None:
        case.insert(sentence(case))

    way.__name__ = f"said_{len(WAYS)}"
    WAYS.append((reason, way))


@wrong(Reason.NO_REASONING)
def tags_left_out(case: Case) -> str:
    return case.response.text().replace("<think>", "").replace("</think>", "")


@wrong(Reason.NO_REASONING)
def closing_tag_left_out(case: Case) -> str:
    return case.response.text().replace("</think>", "")


@wrong(Reason.NO_REASONING)
def opening_tag_left_out(case: Case) -> str:
    return case.response.text().replace("<think>", "")


@wrong(Reason.EMPTY_REASONING)
def nothing_reasoned(case: Case) -> None:
    case.response.images, case.response.rest = [" "], []


@wrong(Reason.SEVERAL_REASONINGS)
def reasoned_twice(case: Case) -> str:
    return f"<think>{case.response.reasoning}</think>\n{case.response.text()}"


@wrong(Reason.SEVERAL_REASONINGS)
def tag_inside(case: Case) -> None:
    case.insert("<think>")


@wrong(Reason.TEXT_BEFORE_REASONING)
def polite_beginning(case: Case) -> str:
    return f"Sure!\n{case.response.text()}"


@wrong(Reason.NO_ANSWER)
def answer_left_out(case: Case) -> str:
    return f"<think>{case.response.reasoning}</think>\n"


@wrong(Reason.NO_ANSWER)
def answer_in_words(case: Case) -> str:
    return f"<think>{case.response.reasoning}</think>\nIt is the {case.asked} in image {case.target + 1}."


@wrong(Reason.NO_ANSWER)
def answer_broken_off(case: Case) -> str:
    return case.response.text()[: case.response.text().rindex(",", 0, case.response.text().rindex("]", 0, -6))]


answer_changed(Reason.NO_ANSWER, bbox_2d=lambda case: case.response.entry["bbox_2d"][:3])


@wrong(Reason.SEVERAL_ANSWERS)
def two_entries(case: Case) -> str:
    entry = case.response.entry
    return case.response.text().replace(json.dumps([entry]), json.dumps([entry, entry]))


@wrong(Reason.SEVERAL_ANSWERS)
def two_blocks(case: Case) -> str:
    return f"{case.response.text()}\n```json\n{json.dumps([case.response.entry])}\n```"


@wrong(Reason.TEXT_AROUND_ANSWER)
def last_words(case: Case) -> str:
    return f"{case.response.text()}\nI hope this helps."


@wrong(Reason.TEXT_AROUND_ANSWER)
def words_before_the_answer(case: Case) -> str:
    return case.response.text().replace("</think>", "</think>\nSo this is it:")


@wrong(Reason.NO_IMAGE_NUMBER)
def image_left_out(case: Case) -> None:
    del case.response.entry["image"]


answer_changed(Reason.NO_SUCH_IMAGE, image=lambda case: case.count + 1)
answer_changed(Reason.NO_SUCH_IMAGE, image=lambda case: 0)
answer_changed(Reason.NO_SUCH_IMAGE, image=lambda case: 99)
answer_changed(Reason.BAD_BOX, bbox_2d=lambda case: [case.response.entry["bbox_2d"][i] for i in (2, 1, 0, 3)])
answer_changed(Reason.BAD_BOX, bbox_2d=lambda case: [*case.response.entry["bbox_2d"][:2], 4000, 4000])
answer_changed(Reason.BAD_BOX, bbox_2d=lambda case: [-5, *case.response.entry["bbox_2d"][1:]])
answer_changed(Reason.BAD_BOX, bbox_2d=lambda case: [case.response.entry["bbox_2d"][i] for i in (0, 1, 0, 3)])
answer_changed(Reason.WRONG_LABEL, label=lambda case: case.pick(set(case.vocabulary) - {case.asked}))
answer_changed(Reason.WRONG_LABEL, label=lambda case: "")
answer_changed(Reason.WRONG_LABEL, label=lambda case: f"big {case.asked}")
answer_changed(
    Reason.WRONG_IMAGE,
    image=lambda case: case.pick(set(range(1, case.count + 1)) - {case.target + 1}),
    bbox_2d=lambda case: [1, 1, 20, 20],
)


@wrong(Reason.WRONG_LABEL)
def label_left_out(case: Case) -> None:
    del case.response.entry["label"]


@wrong(Reason.WRONG_BOX)
def box_moved(case: Case) -> None:
    x1, y1, x2, y2 = case.response.entry["bbox_2d"]
    width, _ = view_of(case.one).input_sizes[case.target]
    step = max(3, (x2 - x1) // 4)
    shift = step if x2 + step <= width else -step
    if x1 + shift < 0:
        raise LookupError
    case.response.entry["bbox_2d"] = [x1 + shift, y1, x2 + shift, y2]


@wrong(Reason.WRONG_BOX)
def box_of_the_whole_image(case: Case) -> None:
    case.response.entry["bbox_2d"] = [0, 0, *view_of(case.one).input_sizes[case.target]]


@wrong(Reason.WRONG_BOX)
def box_of_another_object(case: Case) -> None:
    others = [
        item.box
        for item in case.one.objects
        if item.box.image == case.target and item.box.center != case.one.answer.box.center
    ]
    case.response.entry["bbox_2d"] = view_of(case.one).numbers(case.pick(others))


said(Reason.MARKER_LEFT, lambda case: "It is at <region>.")
said(Reason.UNKNOWN_IMAGE, lambda case: f"Image {case.count + 1} holds nothing.")
said(Reason.UNKNOWN_IMAGE, lambda case: f"The {case.asked} is not in image {case.count + 2}.")
said(Reason.UNKNOWN_IMAGE, lambda case: "The ninth image is empty.")
said(Reason.FALSE_PRESENCE, lambda case: "Image {1} also holds the {0}.".format(*plus_one(case.pair(holds=False))))
said(Reason.FALSE_PRESENCE, lambda case: "The {} is in image {}.".format(*plus_one(case.pair(holds=False))))
said(Reason.FALSE_PRESENCE, lambda case: "In image {1} I see the {0}.".format(*plus_one(case.pair(holds=False))))
said(Reason.FALSE_PRESENCE, lambda case: "Image {1} does not lack the {0}.".format(*plus_one(case.pair(holds=False))))
said(Reason.FALSE_ABSENCE, lambda case: "Image {1} holds no {0}.".format(*plus_one(case.pair(holds=True))))
said(Reason.FALSE_ABSENCE, lambda case: "The {} is missing from image {}.".format(*plus_one(case.pair(holds=True))))
said(Reason.FALSE_ABSENCE, lambda case: "There is no {} in image {}.".format(*plus_one(case.pair(holds=True))))
said(Reason.FALSE_ABSENCE, lambda case: "In image {1} the {0} cannot be seen.".format(*plus_one(case.pair(holds=True))))


def plus_one(pair: tuple[str, int]) -> tuple[str, int]:
    return pair[0], pair[1] + 1


@wrong(Reason.FALSE_PRESENCE)
def an_image_that_lacks_it_holds_it(case: Case) -> None:
    image = case.pick(set(range(case.count)) - set(case.images(case.asked)))
    case.response.images[image] = case.pick(
        [f"Image {image + 1}: {case.asked}.", f"In image {image + 1} there is a {case.asked}."]
    )


@wrong(Reason.FALSE_PRESENCE)
def images_confused(case: Case) -> None:
    """What one image holds is said of another that lacks some of it."""
    i, j = case.pick(
        (i, j)
        for i in range(case.count)
        for j in range(case.count)
        if set(case.one.labels(i)) - set(case.one.labels(j))
    )
    case.response.images[j] = f"Image {j + 1} shows {', '.join(case.one.labels(i))}."


@wrong(Reason.FALSE_ABSENCE)
def an_image_that_holds_it_lacks_it(case: Case) -> None:
    image = case.pick(case.images(case.asked))
    inside = case.pick([True, False])
    words = case.pick(WORDINGS["none in it" if inside else "has none"]).format(asked=case.asked)
    case.response.images[image] = f"{'In image' if inside else 'Image'} {image + 1} {words}."


def not_everywhere(case: Case) -> str:
    return case.pick(label for label in case.vocabulary if len(case.images(label)) < case.count)


def in_several(case: Case) -> tuple[str, int]:
    """A label that several images hold, and one of those, counted from 1."""
    label = case.pick(label for label in case.vocabulary if len(case.images(label)) > 1)
    return label, case.pick(case.images(label)) + 1


for pattern in ("Every image holds the {}.", "The {} is in all images.", "Each of the images shows the {}."):
    said(Reason.FALSE_COMPARISON, lambda case, pattern=pattern: pattern.format(not_everywhere(case)))
for pattern in ("No image holds the {}.", "The {} is in none of the images."):
    said(Reason.FALSE_COMPARISON, lambda case, pattern=pattern: pattern.format(case.pick(case.vocabulary)))
for pattern in ("Only image {1} holds the {0}.", "The {0} is only in image {1}.", "Image {1} alone has the {0}."):
    said(Reason.FALSE_COMPARISON, lambda case, pattern=pattern: pattern.format(*in_several(case)))
said(Reason.FALSE_COMPARISON, lambda case: "The {} is in image {} and in none of the others.".format(*in_several(case)))


@wrong(Reason.FALSE_COUNT)
def one_more_than_there_is(case: Case) -> None:
    label, image = case.pair(holds=True)
    number = sum(item.label == label and item.box.image == image for item in case.one.objects) + 1
    if plural(label) in case.vocabulary or plural(label) == label:
        raise LookupError
    case.insert(f"Image {image + 1} shows {case.pick([NUMBERS[number], number])} {plural(label)}.")


def unrelated(case: Case, *kinds: str) -> tuple[int, int]:
    """Two images that no relation of these kinds connects, counted from 1."""
    return case.pick(
        (i + 1, j + 1)
        for i in range(case.count)
        for j in range(i + 1, case.count)
        if not any({i, j} <= set(relation.images) for relation in case.one.relations if relation.kind in kinds)
    )


for kind, patterns in {
    "same": ("Images {} and {} show the same thing.", "What images {} and {} show is one and the same."),
    "view": ("Images {} and {} show the same scene.", "Images {} and {} are taken from different angles."),
    "order": ("Images {} and {} follow each other in time.", "Images {} and {} are consecutive frames."),
}.items():
    for pattern in patterns:
        said(Reason.FALSE_RELATION, lambda case, kind=kind, pattern=pattern: pattern.format(*unrelated(case, kind)))
for pattern in ("What the images have in common is the {}.", "All images share the {}."):
    said(Reason.FALSE_RELATION, lambda case, pattern=pattern: pattern.format(not_everywhere(case)))


@wrong(Reason.FALSE_RELATION)
def the_difference_is_none(case: Case) -> None:
    members = {case.one.objects[i].label for relation in case.one.relations for i in relation.objects}
    everywhere = [label for label in case.vocabulary if len(case.images(label)) == case.count]
    differs = case.one.relation("differs") is not None
    case.insert(f"The difference is the {case.pick(set(case.vocabulary) - members if differs else everywhere)}.")


BOX_OF_ALL = re.compile(r"\[\d+, \d+, \d+, \d+\]")
POSITION = (
    r"(?:in|at|on) the "
    r"(?:(?:upper|lower|middle|top|bottom) (?:left|right|middle|centre)|left side|right side|centre|middle)"
)


@wrong(Reason.FALSE_POSITION)
def opposite_corner(case: Case) -> None:
    if len([i for i in case.one.objects if i.label == case.asked and i.box.image == case.target]) > 1:
        raise LookupError  # another one may lie there
    (x, y), (width, height) = case.one.answer.box.center, case.one.sizes[case.target]
    words = f"in the {'lower' if y < height / 2 else 'upper'} {'right' if x < width / 2 else 'left'} corner"
    case.replace(POSITION, lambda found: words)


@wrong(Reason.FALSE_BOX)
def box_of_the_reasoning_moved(case: Case) -> None:
    width, height = view_of(case.one).input_sizes[case.target]
    x1, y1, _x2, _y2 = view_of(case.one).numbers(case.one.answer.box)
    left, top = (0 if x1 > width / 2 else width - 9), (0 if y1 > height / 2 else height - 9)
    case.replace(BOX_OF_ALL.pattern, lambda found: str([left, top, left + 9, top + 9]))


@wrong(Reason.FALSE_BOX)
def box_of_the_reasoning_reaches_out(case: Case) -> None:
    case.replace(BOX_OF_ALL.pattern, lambda found: "[0, 0, 3000, 3000]")


@wrong(Reason.FALSE_BOX)
def box_of_the_reasoning_reversed(case: Case) -> None:
    def reversed_box(found: re.Match[str]) -> str:
        x1, y1, x2, y2 = json.loads(found[0])
        return str([x2, y1, x1, y2])

    case.replace(BOX_OF_ALL.pattern, reversed_box)


@wrong(Reason.FALSE_ATTRIBUTE)
def attribute_of_another_kind(case: Case) -> None:
    alike = [i for i in case.one.objects if i.label == case.asked and i.box.image == case.target]
    key, value = case.pick(case.one.answer.attributes.items())
    if not all(key in item.attributes for item in alike):
        raise LookupError  # what one of them is like is not known
    known = {item.attributes[key] for item in case.one.objects if key in item.attributes}
    other = case.pick(known - {item.attributes.get(key, value) for item in alike} - set(case.vocabulary))
    words = case.pick(WORDINGS["attribute"]).format(key=key, value=other)
    case.response.rest.append(f"The {case.asked} is in image {case.target + 1}. {words}")


@wrong(Reason.FALSE_ATTRIBUTE)
def attribute_before_the_label(case: Case) -> None:
    alike = [i for i in case.one.objects if i.label == case.asked and i.box.image == case.target]
    value = case.pick(v for k, v in case.one.answer.attributes.items() if k == "colour")
    if len(alike) > 1:
        raise LookupError
    other = "purple" if value != "purple" else "green"
    case.response.rest.append(f"The {other} {case.asked} is in image {case.target + 1}.")


said(Reason.RUNS_ON, lambda case: f"Image 1 shows {'and more ' * 120} of it.")
for sentence in ("The annotations list it.", "That is the ground truth.", "The given answer says so."):
    said(Reason.SPEAKS_OF_ANNOTATIONS, lambda case, sentence=sentence: sentence)


@wrong(Reason.IMAGE_NOT_WEIGHED)
def an_image_left_out(case: Case) -> None:
    del case.response.images[case.rng.randrange(case.count)]


@wrong(Reason.IMAGE_NOT_WEIGHED)
def images_only_listed(case: Case) -> None:
    case.response.images = [f"There are images 1 to {case.count}."]


@wrong(Reason.IMAGES_OUT_OF_ORDER)
def images_in_another_order(case: Case) -> None:
    images = case.response.images
    i = case.rng.randrange(case.count - 1)
    images[i], images[i + 1] = images[i + 1], images[i]


@wrong(Reason.OBJECT_BEFORE_IMAGES)
def conclusion_first(case: Case) -> str:
    case.response.images = [*case.response.rest, *case.response.images]
    case.response.rest = []
    return case.response.text()


@wrong(Reason.OBJECT_BEFORE_IMAGES)
def conclusion_in_the_middle(case: Case) -> None:
    case.response.images.insert(case.count - 1, f"The {case.asked} is in image {case.target + 1}.")


@wrong(Reason.NO_CONCLUSION)
def no_object_at_the_end(case: Case) -> None:
    case.response.rest = []


@wrong(Reason.NO_CONCLUSION)
def another_object_at_the_end(case: Case) -> None:
    other = case.pick(set(case.one.labels(case.target)) - {case.asked})
    case.response.rest = [f"The {other} is in image {case.target + 1}."]


@wrong(Reason.CONTRADICTS_ANSWER)
def another_image_at_the_end(case: Case) -> None:
    other = case.pick(set(range(case.count)) - {case.target})
    case.response.rest.append(f"So the answer is the {case.asked} in image {other + 1}.")


@wrong(Reason.CONTRADICTS_ANSWER)
def another_image_that_holds_it_at_the_end(case: Case) -> None:
    other = case.pick(set(case.images(case.asked)) - {case.target})
    case.response.rest.append(f"The {case.asked} is in image {other + 1}.")


@wrong(Reason.CONTRADICTS_ANSWER)
def another_one_of_its_kind_at_the_end(case: Case) -> None:
    """Of photographs that hold two of it; a question among images of one each has none."""
    one = case.one = scene_set(6 * case.rng.randrange(100))
    case.response = response(one, "terse", 0)
    boxes = [i.box for i in one.objects if i.label == case.asked and i.box.image == case.target]
    numbers = view_of(case.one).numbers(case.pick(box for box in boxes if box != case.one.answer.box))
    case.response.rest.append(f"The {case.asked} is in image {case.target + 1}, at {numbers}.")


def cases(number: int) -> Iterator[Case]:
    """Sets of both worlds in both wordings; others for every way."""
    rng = random.Random(number)
    for turn in range(21):
        wording = "varied" if turn % 3 else "terse"
        annotated = rng.choice(haystack_sets(2 + turn % 4)) if turn % 2 else scene_set(rng.randrange(600))
        yield Case(annotated, response(annotated, wording, turn), rng)


@pytest.mark.parametrize("number", range(len(WAYS)), ids=[f"{reason}-{way.__name__}" for reason, way in WAYS])
def test_a_wrong_trajectory_is_refused_for_what_is_wrong(number: int) -> None:
    reason, way = WAYS[number]
    tried = 0
    for case in cases(number):
        before = copy.deepcopy(case.response)
        try:
            text = way(case) or case.response.text()
        except LookupError:
            continue
        assert text != before.text()
        tried += 1
        found = check(case.one, text)
        assert reason in reasons(found), f"{found}\n{text}"
    assert tried >= 3


def test_every_reason_is_tried() -> None:
    assert {reason for reason, _ in WAYS} == set(Reason)
