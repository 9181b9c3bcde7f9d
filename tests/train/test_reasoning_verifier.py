"""The verifier keeps every correct trace, and rejects every wrong one for what is wrong with it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from reasoning_fixture import BUDGET, LABELS, VERIFIER, haystack_sets, kitchen, reasons, scene_set

from mgpo_core import CoordinateSpace, SampleError, haystack
from mgpo_core.boxes.parse import Box, iou
from mgpo_core.boxes.regions import REGION
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.annotations import RELATIONS, Relation
from mgpo_core.templates.multi_image import MultiImageTwoTurn
from mgpo_train.data import load_samples
from mgpo_train.reasoning_data.trace import Claim, ObjectClaim, RelationClaim, Trace
from mgpo_train.reasoning_data.verifier import Reason, Verifier, verify
from mgpo_train.reasoning_data.verifier.claims import claim_problems
from mgpo_train.reasoning_data.verifier.facts import Facts
from mgpo_train.reasoning_data.verifier.prose import named_images
from mgpo_train.reasoning_data.writers import write_trace
from mgpo_train.reasoning_data.writers.corrupt import corrupt_solution


@pytest.mark.parametrize("wording", ["terse", "varied"])
@pytest.mark.parametrize("images", [2, 3, 4, 5])
def test_traces_of_synthetic_sets_are_kept(images: int, wording: str) -> None:
    for number, annotated in enumerate(haystack_sets(images)):
        trace = write_trace(annotated, wording=wording, seed=number)
        for space in CoordinateSpace:
            verifier = Verifier(PixelBudget() if number % 8 == 0 else BUDGET, space)
            assert verifier.problems(annotated, trace) == [], trace


@pytest.mark.parametrize("wording", ["terse", "varied"])
def test_traces_of_photographs_are_kept(wording: str) -> None:
    for seed in range(120):
        annotated, space = scene_set(seed), list(CoordinateSpace)[seed // 6 % 2]
        trace = write_trace(annotated, wording=wording, seed=seed)
        assert Verifier(BUDGET, space).problems(annotated, trace) == [], trace


def test_images_of_unknown_size_are_opened() -> None:
    unmeasured = replace(haystack_sets(2)[1], sizes=())
    for wording in ("terse", "varied"):
        assert not reasons(unmeasured, write_trace(unmeasured, wording=wording))


KITCHEN = kitchen(Relation("same", (1, 2), (3, 5)), Relation("differs", (0, 1, 2), (4,)))
RIGHT = write_trace(kitchen(), wording="terse")
CUP = KITCHEN.answer.box


def said(text: str, trace: Trace = RIGHT, **changes: Any) -> Trace:
    """A trace with another reasoning."""
    return replace(trace, solution=replace(trace.solution, reasoning=text, **changes))


def answered(**changes: Any) -> Trace:
    return replace(RIGHT, solution=replace(RIGHT.solution, **changes))


def claimed(*claims: Claim) -> Trace:
    """The right trace with further claims."""
    return replace(RIGHT, claims=(*RIGHT.claims, *claims))


def without(wrong: Callable[[Any], bool]) -> Trace:
    return replace(RIGHT, claims=tuple(claim for claim in RIGHT.claims if not wrong(claim)))


TEXT = RIGHT.solution.reasoning
FIRST, SECOND, THIRD, LAST = TEXT.split("\n")
WRONG = [
    (Reason.WRONG_LABEL, answered(label="mug")),
    (Reason.WRONG_LABEL, answered(label="")),
    (Reason.WRONG_IMAGE, answered(box=KITCHEN.objects[0].box)),
    (Reason.WRONG_BOX, answered(box=KITCHEN.objects[5].box)),
    (Reason.WRONG_BOX, answered(box=Box(0, 0, 1000, 1000, 2))),
    (Reason.WRONG_BOX, answered(box=Box(850, 800, 1000, 950, 2))),
    (Reason.NO_SUCH_IMAGE, answered(box=Box(1, 1, 9, 9, 3))),
    (Reason.NO_SUCH_IMAGE, answered(box=Box(1, 1, 9, 9, -1))),
    (Reason.NO_SUCH_IMAGE, claimed(ObjectClaim(3, "cup"))),
    (Reason.NO_SUCH_IMAGE, claimed(ObjectClaim(-1, "cup", present=False))),
    (Reason.NO_SUCH_IMAGE, claimed(RelationClaim("same", (2, 7)))),
    (Reason.NO_SUCH_IMAGE, said(f"{THIRD}\nImage 4 is dark.\n{TEXT}")),
    (Reason.NO_SUCH_IMAGE, said(f"Image 0 is dark.\n{TEXT}")),
    (Reason.NO_SUCH_IMAGE, said(f"The ninth image is dark.\n{TEXT}")),
    (Reason.NO_SUCH_IMAGE, said(f"{FIRST}\n{SECOND}\n{THIRD}\nImages 2, 3 and 5 differ.\n{LAST}")),
    (Reason.FALSE_PRESENCE, claimed(ObjectClaim(1, "cup"))),
    (Reason.FALSE_PRESENCE, claimed(ObjectClaim(0, "unicorn"))),
    (Reason.FALSE_ABSENCE, claimed(ObjectClaim(2, "DOG", present=False))),
    (Reason.FALSE_COUNT, claimed(ObjectClaim(0, "coffee cup", count=3))),
    (Reason.FALSE_BOX, claimed(ObjectClaim(0, "cup", box=Box(700, 100, 800, 200, 0)))),
    (Reason.FALSE_ATTRIBUTE, claimed(ObjectClaim(2, "cup", attributes={"colour": "red"}))),
    (Reason.FALSE_ATTRIBUTE, claimed(ObjectClaim(2, "dog", attributes={"colour": "brown"}))),
    (Reason.FALSE_RELATION, claimed(RelationClaim("same", (0, 2)))),
    (Reason.FALSE_RELATION, claimed(RelationClaim("same", (1, 2), ("cup",)))),
    (Reason.FALSE_RELATION, claimed(RelationClaim("common", (0, 1, 2)))),
    (Reason.FALSE_RELATION, claimed(RelationClaim("differs", (2, 1, 0)))),
    (Reason.EMPTY_REASONING, said(" \n")),
    (Reason.RESERVED_TEXT, said(f"{TEXT}</think>")),
    (Reason.RESERVED_TEXT, said(f"<think>{TEXT}")),
    (Reason.RESERVED_TEXT, said(f"```json\n{TEXT}")),
    (Reason.RESERVED_TEXT, said(f"{TEXT} It is at {REGION}.")),
    (Reason.RUNS_ON, said(f"{FIRST} {'and more ' * 120}{SECOND}\n{THIRD}\n{LAST}")),
    (Reason.MENTIONS_ANNOTATIONS, said(f"{TEXT} The annotations list it.")),
    (Reason.MENTIONS_ANNOTATIONS, said(f"{TEXT} The given answer says so.")),
    (Reason.UNCLAIMED_BOX, said(f"{TEXT} It is at [800, 800, 900, 900].")),
    (Reason.UNCLAIMED_BOX, said(f"{TEXT} It is at {REGION}.", regions=(Box(1, 1, 50, 50, 2),))),
    (Reason.IMAGE_NOT_WEIGHED, said("\n".join((FIRST, THIRD, LAST)))),
    (Reason.IMAGE_NOT_WEIGHED, said(f"There are three images, of which {LAST}")),
    (Reason.IMAGE_NOT_WEIGHED, without(lambda claim: claim.image == 1)),
    (Reason.IMAGES_OUT_OF_ORDER, said("\n".join((SECOND, FIRST, THIRD, LAST)))),
    (Reason.IMAGES_OUT_OF_ORDER, said("\n".join((LAST, FIRST, SECOND, THIRD, LAST)))),
    (Reason.NO_CONCLUSION, without(lambda claim: claim.image == 2)),
    (Reason.NO_CONCLUSION, replace(RIGHT, claims=(*RIGHT.claims[:2], ObjectClaim(2, "cup", present=False)))),
    (Reason.CONTRADICTS_ANSWER, said(f"{TEXT}\nSo it is in image 1.")),
    (Reason.CONTRADICTS_ANSWER, said("\n".join((FIRST, SECOND, THIRD, "The cup is in the first image.")))),
]


@pytest.mark.parametrize(("reason", "trace"), WRONG, ids=[f"{reason}-{n}" for n, (reason, _) in enumerate(WRONG)])
def test_a_wrong_trace_is_rejected_for_what_is_wrong(reason: Reason, trace: Trace) -> None:
    found = VERIFIER.problems(KITCHEN, trace)
    assert reason in {problem.reason for problem in found} and all(problem.detail for problem in found)
    assert not reasons(KITCHEN, RIGHT)


def test_every_reason_is_provoked() -> None:
    of_replies = {Reason.REPLY_NOT_JSON, Reason.REPLY_MISSING_KEY, Reason.REPLY_INVALID_VALUE, Reason.INVALID_BOX}
    assert {reason for reason, _ in WRONG} == set(Reason) - of_replies - {Reason.NO_ANSWER}


def test_an_answer_that_the_episode_does_not_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "MultiImage", MultiImageTwoTurn)
    assert reasons(KITCHEN, RIGHT) == {Reason.NO_ANSWER}


def holds(claim: Claim, facts: Facts) -> bool:
    return not [*claim_problems(claim, facts)]


def test_exactly_what_the_annotations_say_may_be_claimed() -> None:
    """By brute force: every label, count, box and attribute, in every image."""
    for seed in range(6):
        one = scene_set(seed)
        facts = Facts(one, VERIFIER.view(one), 0.9)
        for image, label in itertools.product(range(len(one.images)), {*LABELS[:6], *(i.label for i in one.objects)}):
            there = [item for item in one.objects if (item.box.image, item.label) == (image, label)]
            assert holds(ObjectClaim(image, label.upper()), facts) == bool(there)
            assert holds(ObjectClaim(image, label, present=False), facts) == (not there)
            for count in range(1, 4):
                assert holds(ObjectClaim(image, label, count=count), facts) == (count == len(there))
            for other in one.objects:
                if other.box.image == image and other.attributes:
                    same = other in there
                    assert holds(ObjectClaim(image, label, box=other.box), facts) == same
                    claim = ObjectClaim(image, label, box=other.box, attributes=other.attributes)
                    assert holds(claim, facts) == same
                    claim = ObjectClaim(image, label, attributes=other.attributes)
                    assert holds(claim, facts) == any(
                        set(other.attributes.items()) <= set(item.attributes.items()) for item in there
                    )


def test_exactly_the_annotated_relations_may_be_claimed() -> None:
    for seed in range(1, 6):
        one = scene_set(seed)
        [known], facts = one.relations, Facts(one, VERIFIER.view(one), 0.9)
        labels = tuple(one.objects[place].label for place in known.objects)
        for kind, count in itertools.product(RELATIONS, range(2, len(one.images) + 1)):
            for images in itertools.permutations(range(len(one.images)), count):
                ordered = kind in ("order", "differs")
                same = images == known.images if ordered else sorted(images) == sorted(known.images)
                claim = RelationClaim(kind, images, labels)
                assert holds(claim, facts) == (kind == known.kind and same), claim
                assert not holds(replace(claim, labels=("unicorn",)), facts)


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("Image 1, the second image and images 3, 4 and 5-6", [0, 1, 2, 3, 4, 5]),
        ("In image 2, 3 dogs; the 11th image has 2 images on a wall.", [1, 10]),
        ("an image frame, image2, imagery 3, image number four, no image", []),
        ("IMAGE 1 and Images 1 to 3", [0, 0, 2]),
    ],
)
def test_images_are_known_by_number(text: str, images: list[int]) -> None:
    assert named_images(text) == images


def test_a_box_is_correct_from_an_option_on() -> None:
    near = answered(box=replace(CUP, y2=CUP.y1 + 0.8 * CUP.height))
    assert not reasons(KITCHEN, near, replace(VERIFIER, min_iou=0.7))
    assert reasons(KITCHEN, near) == {Reason.WRONG_BOX}


@pytest.mark.parametrize("off", [1, 2])
def test_a_small_box_may_be_off_by_one_pixel(off: int) -> None:
    tiny = Verifier(PixelBudget(min_pixels=28 * 28, max_pixels=56 * 56), CoordinateSpace.ABSOLUTE)
    pixel = 1000 / tiny.view(KITCHEN).input_sizes[2][0]
    moved = answered(box=replace(CUP, x1=CUP.x1 - off * pixel))
    assert reasons(KITCHEN, moved, tiny) == ({Reason.WRONG_BOX} if off == 2 else set())


FRAGMENTS = (
    "Image 1", "image 9", "the 0th image", "images 2-900", "image 99999999999", "²", "٣", ".", ",", "\n",
    "[1, 2, 3, 4]", "(5000, 1, 2, 3)", "<think>", "</think>", "```json", "]", "\x00", "\ud83d", "The third image",
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.booleans())
def test_any_reasoning_gets_a_verdict(fragments: list[str], reasons_well: bool) -> None:
    text = " ".join(fragments)
    for space in CoordinateSpace:
        trace = said(f"{FIRST}\n{SECOND}\n{THIRD}\n{text}\n{LAST}" if reasons_well else text)
        assert all(problem.detail for problem in Verifier(BUDGET, space).problems(KITCHEN, trace))


SPEC = "haystack_multi:train?n=100&seed=4&solutions=true"


def test_corrupt_solutions_are_rejected() -> None:
    """Half name another image and box something in it, half box what lies beside the object."""
    rng, verifier = np.random.default_rng(0), Verifier(haystack.BUDGET, CoordinateSpace.ABSOLUTE)
    wrong_image = 0
    for annotated in haystack.make_sets("train", 100, 4):
        right = write_trace(annotated)
        wrong = corrupt_solution(annotated, right.solution, rng)
        assert iou(wrong.box, annotated.answer.box) < 0.5 and wrong.label == right.solution.label
        assert wrong.box.clipped(*annotated.sizes[wrong.box.image]) == wrong.box
        *weighed, concluded = wrong.reasoning.splitlines()
        assert weighed == right.solution.reasoning.splitlines()[:-1]
        assert concluded == f"The {wrong.label} is in image {wrong.box.image + 1}."
        if wrong.box.image != right.solution.box.image:
            wrong_image += 1
            assert any(wrong.box == item.box for item in annotated.objects)
        else:
            near = max(abs(wrong.box.x1 - right.solution.box.x1), abs(wrong.box.y1 - right.solution.box.y1))
            assert near <= right.solution.box.width
        assert not reasons(annotated, right, verifier)
        found = reasons(annotated, replace(right, solution=wrong), verifier)
        assert found in ({Reason.WRONG_BOX}, {Reason.WRONG_IMAGE, Reason.CONTRADICTS_ANSWER})
    assert 35 <= wrong_image <= 65


def test_a_seed_decides_which_solutions_of_a_spec_are_noisy() -> None:
    plain, some, again = (load_samples(SPEC + more) for more in ("", "&noisy_solutions=0.3", "&noisy_solutions=0.3"))
    assert [sample.solution for sample in some] == [sample.solution for sample in again]
    noisy = [sample.solution.box != sample.boxes[0] for sample in some]
    assert 0.2 < np.mean(noisy) < 0.4
    for before, after, wrong in zip(plain, some, noisy, strict=True):
        assert (before.solution == after.solution) is not wrong and before.boxes == after.boxes
    assert all(sample.solution.box != sample.boxes[0] for sample in load_samples(SPEC + "&noisy_solutions=1"))


@pytest.mark.parametrize("value", ["1.5", "-0.1", "often", "true"])
def test_an_invalid_share_of_noisy_solutions_is_an_error(value: str) -> None:
    with pytest.raises(SampleError, match="give a share from 0 to 1"):
        load_samples(f"{SPEC}&noisy_solutions={value}")
    with pytest.raises(SampleError, match="with solutions=true"):
        load_samples("haystack_multi:train?n=5&noisy_solutions=0.5")
