"""The verifier keeps every right trajectory, whatever it is shown at, and has a verdict on any text."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from trajectory_fixture import (
    BUDGET,
    Kitchen,
    check,
    check_solution,
    haystack_sets,
    reasons,
    response,
    scene_set,
    text_of,
    view_of,
)

from mgpo_core.boxes import Box, CoordinateSpace
from mgpo_core.budget import PixelBudget
from mgpo_core.multi_image import MultiImageTwoTurn
from mgpo_core.regions import Solution
from mgpo_train.trajectories.problems import Reason
from mgpo_train.trajectories.rule_writer import write_solution

BIG = PixelBudget()


@pytest.mark.parametrize("wording", ["terse", "varied"])
@pytest.mark.parametrize("images", [2, 3, 4, 5])
def test_what_the_rules_write_is_kept(images: int, wording: str) -> None:
    for number, annotated in enumerate(haystack_sets(images)):
        solution = write_solution(annotated, wording=wording, seed=number)
        for space in CoordinateSpace:
            budget = BIG if number % 8 == 0 else BUDGET
            assert check_solution(annotated, solution, space=space, budget=budget) == [], solution.reasoning


@pytest.mark.parametrize("wording", ["terse", "varied"])
def test_what_the_rules_write_of_photographs_is_kept(wording: str) -> None:
    for seed in range(120):
        annotated, space = scene_set(seed), list(CoordinateSpace)[seed // 6 % 2]
        solution = write_solution(annotated, wording=wording, seed=seed)
        assert check_solution(annotated, solution, space=space) == [], solution.reasoning


@pytest.mark.parametrize("image", [-1, 3])
def test_a_solution_on_an_image_that_there_is_not_is_refused(image: int) -> None:
    annotated = haystack_sets(3)[0]
    box = Box(10, 10, 60, 60, image)
    [problem] = check_solution(annotated, Solution("It is there.", box, annotated.answer.label))
    assert problem.reason is Reason.NO_SUCH_IMAGE and "3 images" in problem.detail
    right = write_solution(annotated)
    marked = Solution(f"{right.reasoning} <region>", right.box, right.label, (box,))
    assert reasons(check_solution(annotated, marked)) == {Reason.NO_SUCH_IMAGE}


def test_a_template_of_two_turns_is_not_answered_by_one() -> None:
    annotated = haystack_sets(2)[0]
    assert Reason.NO_ANSWER in reasons(check(annotated, text_of(annotated), template=MultiImageTwoTurn()))


def test_the_overlap_from_which_a_box_is_right_is_an_option() -> None:
    annotated = haystack_sets(2)[0]
    near = response(annotated, "terse", 0)
    x1, y1, x2, y2 = near.entry["bbox_2d"]
    near.entry["bbox_2d"] = [x1, y1, x2, y1 + round(0.8 * (y2 - y1))]
    assert check(annotated, near.text(), min_iou=0.7) == []
    assert reasons(check(annotated, near.text())) == {Reason.WRONG_BOX}


@pytest.mark.parametrize("off", [1, 2])
def test_a_small_box_may_be_off_by_a_pixel_but_not_by_two(off: int) -> None:
    tiny = PixelBudget(min_pixels=28 * 28, max_pixels=56 * 56)
    annotated = Kitchen.of().annotated
    text = text_of(annotated, budget=tiny)
    x1, y1, x2, y2 = view_of(annotated, budget=tiny).numbers(annotated.answer.box)
    moved = text.replace(str([x1, y1, x2, y2]), str([x1, y1, x2 + off, y2]))
    found = check(annotated, moved, budget=tiny)
    assert x2 - x1 < 10 and reasons(found) == ({Reason.WRONG_BOX} if off == 2 else set())


FRAGMENTS = (
    "Image 1", "image 9", "the 0th image", "images 2-900", "the last three images", "neither image",
    "both images", "no other image", "the others", "only", "alone", "elsewhere", "cup", "dogs", "coffee cup",
    "red", "wood", "blue.", "in the upper left", "on the right", "[1, 2, 3, 4]", "(5000, 1, 2, 3)", "the same",
    "in common", "differs", "in time", "holds", "lacks", "is", "not", "no", "is not in", "two", "99999999999",
    "²", "٣", ".", ";", ":", ",", "\n", "?", "it", "its colour", "also", "but", "<think>", "</think>",
    "<region>", "```json", "]", "\x00", "\ud83d", ". It also holds", ". There is also a cup", ". It is at",
    '{"image": 3, "bbox_2d": [800, 800, 950, 950], "label": "cup"}',
)  # fmt: skip


@pytest.mark.parametrize("beyond", ["Image 9 is big.", "The 0th image is big.", "Images 4 to 900 are big."])
@pytest.mark.parametrize(
    "sentence", ["It also holds a cup.", "It is red.", "Its cup is at [1, 2, 3, 4].", "There is no dog."]
)
def test_what_is_said_of_an_image_beyond_the_last_gets_a_verdict(beyond: str, sentence: str) -> None:
    assert Reason.UNKNOWN_IMAGE in Kitchen.of().told(f"{beyond} {sentence}")


@settings(max_examples=80)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.booleans())
def test_any_text_gets_a_verdict(fragments: list[str], reasons_well: bool) -> None:
    kitchen, text = Kitchen.of(), " ".join(fragments)
    given_text = kitchen.response(text) if reasons_well else text
    for space in CoordinateSpace:
        assert all(problem.detail for problem in check(kitchen.annotated, given_text, space=space))


def test_images_of_unknown_size_are_opened() -> None:
    annotated = haystack_sets(2)[1]
    unmeasured = dataclasses.replace(annotated, sizes=())
    for wording in ("terse", "varied"):
        assert check_solution(unmeasured, write_solution(unmeasured, wording=wording)) == []
