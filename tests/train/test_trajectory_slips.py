"""Trajectories that go wrong at the end: where they go wrong, how often, and that the verifier drops every one."""

from __future__ import annotations

import numpy as np
import pytest

from mgpo_core import CoordinateSpace, SampleError, haystack, iou
from mgpo_train.data import load_samples
from mgpo_train.trajectories.rule_writer import write_solution
from mgpo_train.trajectories.slips import with_slip
from mgpo_train.trajectories.verifier import verify_solution

SPEC = "haystack_multi:train?n=300&seed=4&solutions=true"


@pytest.fixture(scope="module")
def slipped() -> list:
    rng = np.random.default_rng(0)
    sets = haystack.make_sets("train", 100, 4)
    return [(one, write_solution(one), with_slip(one, write_solution(one), rng)) for one in sets]


def test_the_answer_is_wrong_and_the_images_are_weighed_right(slipped) -> None:
    for annotated, right, wrong in slipped:
        assert iou(wrong.box, annotated.answer.box) < 0.5 and wrong.label == right.label
        assert wrong.box.clipped(*annotated.sizes[wrong.box.image]) == wrong.box
        *weighed, concluded = wrong.reasoning.splitlines()
        assert weighed == right.reasoning.splitlines()[:-1]
        assert concluded == f"The {right.label} is in image {wrong.box.image + 1}."


def test_half_are_a_wrong_image_with_something_in_the_box_and_half_lie_beside_the_object(slipped) -> None:
    wrong_image = [(annotated, wrong) for annotated, right, wrong in slipped if wrong.box.image != right.box.image]
    assert 35 <= len(wrong_image) <= 65
    for annotated, wrong in wrong_image:
        assert any(wrong.box == item.box for item in annotated.objects)
    for _, right, wrong in slipped:
        if wrong.box.image == right.box.image:
            assert max(abs(wrong.box.x1 - right.box.x1), abs(wrong.box.y1 - right.box.y1)) <= right.box.width


def test_the_verifier_drops_every_slip_and_keeps_what_it_was_made_from(slipped) -> None:
    for annotated, right, wrong in slipped:
        options = {"budget": haystack.BUDGET, "space": CoordinateSpace.ABSOLUTE}
        assert verify_solution(annotated, right, **options) == []
        assert verify_solution(annotated, wrong, **options) != []


def test_a_share_of_the_solutions_of_a_spec_slips_and_a_seed_says_which() -> None:
    plain, some, again = (load_samples(SPEC + more) for more in ("", "&slips=0.3", "&slips=0.3"))
    assert [sample.solution for sample in some] == [sample.solution for sample in again]
    slips = [sample.solution.box != sample.boxes[0] for sample in some]
    assert 0.2 < np.mean(slips) < 0.4
    for before, after, slip in zip(plain, some, slips, strict=True):
        assert (before.solution == after.solution) is not slip and before.boxes == after.boxes
    assert all(sample.solution.box != sample.boxes[0] for sample in load_samples(SPEC + "&slips=1"))


@pytest.mark.parametrize("value", ["1.5", "-0.1", "often", "true"])
def test_a_share_that_cannot_be_is_refused(value: str) -> None:
    with pytest.raises(SampleError, match="give a share from 0 to 1"):
        load_samples(f"{SPEC}&slips={value}")
    with pytest.raises(SampleError, match="with solutions=true"):
        load_samples("haystack_multi:train?n=5&slips=0.5")
