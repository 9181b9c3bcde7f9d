"""Object and image reward: bounded, blind to the order of the images, nothing for a box on a wrong image, never NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box, CoordinateSpace, Episode, PixelBudget, Sample, Trajectory, iou
from mgpo_core.templates.multi_image import MultiImage
from mgpo_train.rewards import (
    REWARDS,
    check_rewardable,
    difficulty_weights,
    format_reward,
    image_reward,
    make_rewards,
    object_reward,
)

SIDE = 112
BUDGET = PixelBudget(min_pixels=28 * 28, max_pixels=SIDE * SIDE)
IMAGE = Image.new("RGB", (SIDE, SIDE))
THOUGHT = "<think>The cup is in one of them.</think>\n"

corners = st.integers(0, SIDE - 1)
boxes = st.tuples(corners, corners, corners, corners).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1)
)


def answer(image: object, box: Sequence[object]) -> str:
    return f'{THOUGHT}```json\n[{{"image": {json.dumps(image)}, "bbox_2d": {json.dumps(box)}, "label": "cup"}}]\n```'


def played(
    text: str, true: Sequence[float], image: int = 0, images: int = 3, space: CoordinateSpace = CoordinateSpace.ABSOLUTE
) -> Trajectory:
    """A single-turn episode over `images` images whose true box is `true` on the 0-based `image`."""
    sample = Sample.of("Where is the cup?", [IMAGE] * images, boxes=(Box(*true, image=image),), id="s")
    episode = Episode(sample, template=MultiImage(), budget=BUDGET, space=space)
    assert episode.messages
    episode.observe(text)
    return episode.trajectory


@given(boxes, boxes, st.integers(0, 2), st.integers(0, 2))
def test_rewards_are_within_bounds_and_the_object_reward_is_the_overlap(a, b, asked: int, given_image: int) -> None:
    trajectory = played(answer(given_image + 1, a), b, asked)
    expected = iou(Box(*a), Box(*b)) if asked == given_image else 0.0
    assert object_reward(trajectory) == pytest.approx(expected)
    assert image_reward(trajectory) == float(asked == given_image)
    assert format_reward(trajectory) == 1.0
    assert all(0.0 <= reward(trajectory) <= 1.0 for reward in REWARDS.values())


@given(boxes, boxes)
def test_the_object_reward_is_the_same_with_answer_and_ground_truth_exchanged(a, b) -> None:
    assert object_reward(played(answer(1, a), b)) == pytest.approx(object_reward(played(answer(1, b), a)))


@given(boxes, boxes, st.integers(0, 3), st.integers(0, 3), st.permutations(range(4)))
def test_the_order_of_the_images_changes_nothing_but_their_numbers(a, b, asked: int, said: int, order) -> None:
    before = played(answer(said + 1, a), b, asked, images=4)
    after = played(answer(order.index(said) + 1, a), b, order.index(asked), images=4)
    for name in ("object", "image", "format", "accuracy"):
        assert REWARDS[name](before) == REWARDS[name](after), name


@given(boxes, st.integers(0, 2), st.integers(0, 2))
def test_the_best_of_boxes_on_a_wrong_image_earns_nothing(box, asked: int, said: int) -> None:
    trajectory = played(answer(said + 1, box), box, asked)
    assert object_reward(trajectory) == float(asked == said)
    assert make_rewards(["object"], threshold=0.01)["object"](trajectory) == float(asked == said)


@pytest.mark.parametrize(
    ("text", "image", "form"),
    [
        ("", 0, 0),
        (THOUGHT, 0, 0),
        (THOUGHT + "the cup is in image 1 at (10, 10), (50, 50)", 0, 0),
        ("<think>It never ends: " + answer(1, [10, 10, 50, 50]).partition("</think>")[2], 0, 0),
        (answer(0, [10, 10, 50, 50]), 0, 0),
        (answer(4, [10, 10, 50, 50]), 0, 0),
        (answer(None, [10, 10, 50, 50]), 0, 0),
        (answer("left", [10, 10, 50, 50]), 0, 0),
        (answer(1, [10, 10, 50]), 0, 0),
        (answer(1, [50, 10, 10, 50]), 1, 0),
        (answer(1, [10, 10, 10, 50]), 1, 0),
        (answer(1, [float("nan"), 10, 50, 50]), 0, 0),
        (answer(1, [10, 10, 1e308, 1e308]), 1, 1),
        (answer(1, [10, 10, 10**400, 50]), 0, 0),
        (answer(1, [-1e300, -1e300, 1e300, 1e300]), 1, 1),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_what_cannot_be_read_earns_nothing_and_nothing_is_ever_nan(text: str, image: int, form: int) -> None:
    trajectory = played(text, (10, 10, 50, 50))
    assert object_reward(trajectory) < 1e-6
    assert image_reward(trajectory) == image
    assert format_reward(trajectory) == form
    assert all(math.isfinite(reward(trajectory)) for reward in REWARDS.values())
    assert all(math.isfinite(value) for value in trajectory.metrics().values())


@given(st.text(max_size=60))
def test_no_text_breaks_a_reward(text: str) -> None:
    for full in (text, THOUGHT + text, answer(1, [1, 2, 3, 4]) + text):
        trajectory = played(full, (10, 10, 50, 50))
        assert all(0.0 <= reward(trajectory) <= 1.0 for reward in REWARDS.values())


def test_the_form_wants_the_reasoning_before_the_answer() -> None:
    right = answer(1, [10, 10, 50, 50])
    assert format_reward(played(right, (10, 10, 50, 50))) == 1
    bare = right.removeprefix(THOUGHT)
    for text in (bare, "<think></think>" + bare, "<think>  </think>" + bare, "Well. " + right, bare + THOUGHT):
        trajectory = played(text, (10, 10, 50, 50))
        assert format_reward(trajectory) == 0, text
    assert object_reward(played(bare, (10, 10, 50, 50))) == 1, "the form has a reward of its own"


def test_boxes_in_the_reasoning_are_not_the_answer() -> None:
    thought = '<think>First I saw [{"image": 1, "bbox_2d": [10, 10, 50, 50]}].</think>\n'
    trajectory = played(thought + answer(2, [60, 60, 90, 90]).removeprefix(THOUGHT), (10, 10, 50, 50))
    assert (object_reward(trajectory), image_reward(trajectory)) == (0, 0)


def test_with_one_image_the_answer_need_not_name_it() -> None:
    text = THOUGHT + '[{"bbox_2d": [10, 10, 50, 50]}]'
    assert object_reward(played(text, (10, 10, 50, 50), images=1)) == 1
    assert object_reward(played(text, (10, 10, 50, 50), images=2)) == 0


def test_boxes_are_read_in_the_space_that_is_declared() -> None:
    true = (SIDE / 4, SIDE / 4, SIDE / 2, SIDE / 2)
    text = answer(1, [250, 250, 500, 500])
    assert object_reward(played(text, true, space=CoordinateSpace.RELATIVE_1000)) == pytest.approx(1)
    assert object_reward(played(text, true)) < 0.1


def test_of_several_true_boxes_the_best_counts() -> None:
    trajectory = played(answer(2, [10, 10, 50, 50]), (10, 10, 50, 50), image=0)
    assert (object_reward(trajectory), image_reward(trajectory)) == (0, 0)
    trajectory.true_boxes += (Box(10, 10, 50, 50, image=1), Box(60, 60, 70, 70, image=1))
    assert (object_reward(trajectory), image_reward(trajectory)) == (1, 1)


@given(boxes, boxes, st.floats(0.05, 1.0))
def test_a_threshold_makes_the_object_reward_all_or_nothing(a, b, threshold: float) -> None:
    trajectory = played(answer(1, a), b)
    reward = make_rewards(["object", "image"], threshold=threshold)
    assert reward["object"](trajectory) == float(iou(Box(*a), Box(*b)) >= threshold)
    assert reward["image"](trajectory) == 1


def test_a_sample_without_a_true_box_is_refused_by_name() -> None:
    trajectory = replace(played(answer(1, [1, 1, 9, 9]), (1, 1, 9, 9)), true_boxes=())
    with pytest.raises(ValueError, match="sample 's' has no true box"):
        check_rewardable(trajectory)
    check_rewardable(played(answer(1, [1, 1, 9, 9]), (1, 1, 9, 9)))


def test_hard_groups_count_more() -> None:
    weights = difficulty_weights([0.0, 0.0, 1.0, 1.0, 0.5, 0.0], 2)
    assert weights == pytest.approx([math.e, math.e, 1, 1, math.exp(0.75), math.exp(0.75)])


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4).map(np.array))
def test_group_weights_are_between_1_and_e_in_any_order(overlaps: np.ndarray) -> None:
    weights = difficulty_weights(overlaps, 4)
    assert (weights >= 1 - 1e-12).all() and (weights <= math.e + 1e-12).all()
    assert weights == pytest.approx(difficulty_weights(overlaps[::-1], 4))
