"""Rewards: numbers for whole trajectories.

MGPO's is `accuracy` alone; no box is ever compared with the truth. Where the answer itself is a box in one of several
images (MIRG-RL, arXiv 2509.21788), `object` and `image` judge it. That paper's formulas are not published: these are a
reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.messages.suggest import nearest
from mgpo_core.templates.multi_image import has_reasoning
from mgpo_train.config.options import ConfigError

Reward = Callable[[Trajectory], float]


def accuracy_reward(trajectory: Trajectory) -> float:
    r"""1 if the answer is right, else 0: the last `\boxed{}` of the last response, or a box with an IoU of 0.5."""
    return float(bool(trajectory.correct))


def format_reward(trajectory: Trajectory) -> float:
    r"""1 if the episode ended with an answer in its form, right or wrong, else 0.

    The form is `\boxed{}`, or, where the answer is a box, a reasoning block and then an image and a box.
    """
    if not trajectory.answers_with_box:
        return float(trajectory.answer is not None)
    return float(trajectory.answer_box is not None and has_reasoning(trajectory.turns[-1].text))


def valid_box_reward(trajectory: Trajectory) -> float:
    """1 if the first turn's box could be cropped, wherever it lies, else 0."""
    return float(bool(trajectory.turns) and trajectory.turns[0].box_original is not None)


def object_reward(trajectory: Trajectory, *, threshold: float | None = None) -> float:
    """The answered box's IoU with the true one, 0-1; 0 on a wrong image. With `threshold`: 1 from there on, else 0."""
    overlap = trajectory.answer_iou
    return overlap if threshold is None else float(overlap >= threshold)


def image_reward(trajectory: Trajectory) -> float:
    """1 if the answer names the image that a true box lies on, else 0."""
    return float(trajectory.answer_image_right)


REWARDS: dict[str, Reward] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "valid_box": valid_box_reward,
    "object": object_reward,
    "image": image_reward,
}
OF_BOXES = ("object", "image")
"""Rewards that need a template whose answer is a box, and true boxes."""


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that no reward has."""
    for name in names:
        if name not in REWARDS:
            raise ConfigError(f"rewards={name!r}: {nearest(str(name), REWARDS)}")


def make_rewards(names: Sequence[str], *, threshold: float | None = None) -> dict[str, Reward]:
    """The named rewards; `threshold` is that of the object reward (None: the IoU itself)."""
    chosen = {name: REWARDS[name] for name in names}
    return chosen | {name: partial(object_reward, threshold=threshold) for name in names if name == "object"}


def check_rewardable(trajectory: Trajectory) -> None:
    """Raise ValueError, naming the sample, when there is nothing to compare its answer with."""
    if not trajectory.true_boxes if trajectory.answers_with_box else trajectory.truth is None:
        missing = "true box" if trajectory.answers_with_box else "answer"
        raise ValueError(f"sample {trajectory.sample_id!r} has no {missing}: it cannot be rewarded")


def difficulty_weights(overlaps: Sequence[float], group_size: int) -> np.ndarray:
    """(B,) how much each rollout's advantage counts: exp(1 - mean IoU of its group), in 1..e (UniVG-R1).

    `overlaps` (B,) are the IoUs of the answers; the members of a group lie next to each other.
    """
    means = np.asarray(overlaps, dtype=np.float64).reshape(-1, group_size).mean(axis=1)
    return np.repeat(np.exp(1.0 - means), group_size)


def shuffle_rewards(rewards: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Control: the same rewards `(B, ...)` dealt out at random over the batch, a function of seed and step."""
    return rewards[np.random.default_rng((seed, step)).permutation(len(rewards))]
