"""Rewards: numbers for whole trajectories.

MGPO's is `accuracy` alone; no box is ever compared with the ground truth. Where the answer itself is a box in one of
several images (MIRG-RL, arXiv 2509.21788), `object` and `image` judge it. That paper's formulas are not published:
these are a reconstruction.

A reward is a function in one of two forms, distinguished by its first parameter. One named `trajectory`, or annotated
`Trajectory`, makes it ours: `f(trajectory) -> float`. Any other function is called as TRL calls its own:
`f(prompts, completions, completion_ids=None, **columns) -> list[float]`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import RegistryError
from mgpo_core.registry import Registry
from mgpo_core.templates.multi_image import has_reasoning

Reward = Callable[..., Any]
"""`f(trajectory) -> float`, or TRL's `f(prompts, completions, completion_ids=None, **columns) -> list[float]`."""


def _as_reward(entry: Any) -> Reward | None:
    made = entry() if isinstance(entry, type) else entry
    if not callable(made):
        return None
    return None if inspect.iscoroutinefunction(made) or hasattr(made, "forward") else made


REWARDS: Registry[Reward] = Registry(
    "rewards", _as_reward, "a function f(trajectory) -> float or f(prompts, completions, **columns) -> list[float]"
)
"""Every reward by name; `REWARDS.register("name", function)` adds one."""


@REWARDS.register("accuracy")
def accuracy_reward(trajectory: Trajectory) -> float:
    r"""1 if the answer is right, else 0: the last `\boxed{}` of the last response, or a box with an IoU of 0.5."""
    return float(bool(trajectory.correct))


@REWARDS.register("format")
def format_reward(trajectory: Trajectory) -> float:
    r"""1 if the episode ended with an answer in its form, right or wrong, else 0.

    The form is `\boxed{}`, or, where the answer is a box, a reasoning block and then an image and a box.
    """
    if not trajectory.answers_with_box:
        return float(trajectory.answer is not None)
    return float(trajectory.answer_box is not None and has_reasoning(trajectory.turns[-1].text))


@REWARDS.register("valid_box")
def valid_box_reward(trajectory: Trajectory) -> float:
    """1 if the first turn's box could be cropped, wherever it lies, else 0."""
    return float(bool(trajectory.turns) and trajectory.turns[0].box_original is not None)


@REWARDS.register("object")
def object_reward(trajectory: Trajectory, *, threshold: float | None = None) -> float:
    """The answered box's IoU with the true one, 0-1; 0 on a wrong image. With `threshold`: 1 from there on, else 0."""
    overlap = trajectory.answer_iou
    return overlap if threshold is None else float(overlap >= threshold)


@REWARDS.register("image")
def image_reward(trajectory: Trajectory) -> float:
    """1 if the answer names the image that a true box lies on, else 0."""
    return float(trajectory.answer_image_right)


OF_BOXES = ("object", "image")
"""Rewards that need a template whose answer is a box, and true boxes."""


SHIPPED = tuple(REWARDS)
"""Rewards that compare an answer with ground truth, or are meant for data that have it."""


def check_names(names: Sequence[str]) -> None:
    """Raise RegistryError for a name or spec that leads to no reward, and for two rewards of one logged name."""
    make_rewards(names)


def make_rewards(given: Sequence[str | Reward], *, threshold: float | None = None) -> dict[str, Reward]:
    """The rewards by the names under which they are logged: registered names, else names of functions.

    `given` holds registered names, specs (`PYTHON_FILE:name`) and functions; `threshold` is that of the object
    reward (None: the IoU itself). Raises RegistryError as `check_names` does.
    """
    made: dict[str, Reward] = {}
    for one in given:
        name = one if isinstance(one, str) and one in REWARDS else _logged_name(one)
        if name in made:
            raise RegistryError(f"rewards={name!r}: two rewards have this name; rename one of the functions")
        made[name] = REWARDS.get(one) if isinstance(one, str) else _checked(one)
    if "object" in made and made["object"] is object_reward:
        made["object"] = partial(object_reward, threshold=threshold)
    return made


def takes_trajectory(reward: Reward) -> bool:
    """Whether a reward is called with one trajectory, not with batches as TRL's are: by its first parameter."""
    first = next(iter(inspect.signature(reward).parameters.values()), None)
    if first is None:
        return False
    annotation = getattr(first.annotation, "__name__", first.annotation)
    return first.name == "trajectory" or str(annotation).rpartition(".")[2] == Trajectory.__name__


def _checked(function: Any) -> Reward:
    made = _as_reward(function)
    if made is None:
        name = _logged_name(function)
        raise RegistryError(f"rewards={name!r}: models, async functions and values do not fit; give {REWARDS.wanted}")
    return made


def _logged_name(reward: str | Reward) -> str:
    if isinstance(reward, str):
        return reward.rpartition(":")[2]
    while isinstance(reward, partial):
        reward = reward.func
    return str(getattr(reward, "__name__", type(reward).__name__))


def check_rewardable(trajectory: Trajectory) -> None:
    """Raise ValueError, naming the sample, when there is nothing to compare its answer with."""
    if not trajectory.true_boxes if trajectory.answers_with_box else trajectory.ground_truth is None:
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
