"""Rewards look at the answer alone unless told otherwise, and the control deals them out at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo_core import Box, Trajectory
from mgpo_core.episodes.trajectory import Turn
from mgpo_train.rewards import REWARDS, shuffle_rewards

BOX = Box(0, 0, 50, 50)


def played(answer: str, box: Box | None = BOX) -> Trajectory:
    first = Turn("...", box=box, box_original=box, rejection=None if box else "no_json")
    return Trajectory(
        sample_id="s", question="Which?", choices=("red", "blue"), ground_truth="B", turns=[first, Turn(answer)]
    )


@pytest.mark.parametrize(
    ("trajectory", "accuracy", "answered", "valid"),
    [
        (played(r"\boxed{B}"), 1, 1, 1),
        (played(r"\boxed{blue}", box=None), 1, 1, 0),
        (played(r"\boxed{B} or \boxed{A}"), 0, 1, 1),
        (played("it is B"), 0, 0, 1),
        (played("", box=None), 0, 0, 0),
    ],
)
def test_each_reward_counts_one_thing(trajectory: Trajectory, accuracy: int, answered: int, valid: int) -> None:
    assert REWARDS["accuracy"](trajectory) == accuracy
    assert REWARDS["format"](trajectory) == answered
    assert REWARDS["valid_box"](trajectory) == valid


def test_a_true_box_never_changes_a_reward() -> None:
    for name, reward in REWARDS.items():
        values = set()
        for true_box in (BOX, Box(900, 900, 950, 950)):
            trajectory = played(r"\boxed{B}")
            trajectory.true_boxes = (true_box,)
            values.add(reward(trajectory))
        assert len(values) == 1, name


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 99), st.integers(0, 99))
def test_shuffling_keeps_the_rewards_and_repeats_with_seed_and_step(rewards: list, seed: int, step: int) -> None:
    before = np.array(rewards)[:, None]
    after = shuffle_rewards(before, seed, step)
    assert sorted(after[:, 0]) == sorted(rewards)
    assert (after == shuffle_rewards(before, seed, step)).all()


def test_shuffling_breaks_the_link_between_trajectory_and_reward() -> None:
    before = np.arange(64)
    orders = {tuple(shuffle_rewards(before, 0, step)) for step in range(50)}
    assert len(orders) == 50
    assert np.mean([np.corrcoef(before, order)[0, 1] for order in orders]) == pytest.approx(0, abs=0.1)
