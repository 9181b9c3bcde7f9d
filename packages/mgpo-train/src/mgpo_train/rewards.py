"""Rewards: numbers for whole trajectories. The paper's is `accuracy` alone; no box is ever compared with the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mgpo_core.trajectory import Trajectory


def accuracy_reward(trajectory: Trajectory) -> float:
    r"""1 if the last `\boxed{}` of the last response is the right answer, else 0 (the paper's reward)."""
    return float(bool(trajectory.correct))


def format_reward(trajectory: Trajectory) -> float:
    r"""1 if the episode ended with an answer in `\boxed{}`, right or wrong, else 0."""
    return float(trajectory.answer is not None)


def valid_box_reward(trajectory: Trajectory) -> float:
    """1 if the first turn's box could be cropped, wherever it lies, else 0."""
    return float(bool(trajectory.turns) and trajectory.turns[0].box_original is not None)


REWARDS: dict[str, Callable[[Trajectory], float]] = {
    "accuracy": accuracy_reward,
    "format": format_reward,
    "valid_box": valid_box_reward,
}


def shuffle_rewards(rewards: np.ndarray, seed: int, step: int) -> np.ndarray:
    """Control: the same rewards `(B, ...)` dealt out at random over the batch, a function of seed and step."""
    return rewards[np.random.default_rng((seed, step)).permutation(len(rewards))]
