"""Rewards as TRL's trainer calls them: one function per reward, over the rollouts of a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mgpo_core import Sample, Trajectory
from mgpo_train.rewards import SHIPPED, Reward, check_rewardable, takes_trajectory

__all__ = ["last_message", "reward_function", "sample_columns"]

_COLUMNS = ("question", "images", "answer", "choices", "boxes", "id", "metadata")


def reward_function(name: str, reward: Reward, samples: Sequence[Sample]) -> Callable[..., list[float | None]]:
    """The function, called `name`, that scores a batch of `B` rollouts and gives `B` numbers.

    A reward of a single trajectory is called for each. A reward in TRL's form gets the batch: `prompts`, `completions`
    (of each rollout the last response, as a list of one message), `completion_ids`, the columns of its samples, and
    the whole rollouts as the column `trajectory`.
    """
    compares = name in SHIPPED

    def of_batch(*, sample: Sequence[int], **batch: Any) -> list[float | None]:
        columns = sample_columns([samples[index] for index in sample])
        return [None if one is None else float(one) for one in reward(**{**columns, **batch})]

    def of_each(*, trajectory: Sequence[Trajectory], **batch: Any) -> list[float | None]:
        for one in trajectory if compares else ():
            check_rewardable(one)
        return [reward(one) for one in trajectory]

    scores: Callable[..., list[float | None]] = of_each if takes_trajectory(reward) else of_batch
    scores.__name__ = name
    return scores


def sample_columns(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """The fields of samples and the entries of their metadata, a list of one value per sample for each."""
    extra = dict.fromkeys(name for sample in samples for name in sample.metadata)
    metadata = {name: [sample.metadata.get(name) for sample in samples] for name in extra}
    return metadata | {name: [getattr(sample, name) for sample in samples] for name in _COLUMNS}


def last_message(trajectory: Trajectory) -> list[dict[str, str]]:
    """The last response as TRL passes completions on: a list of one message."""
    return [{"role": "assistant", "content": trajectory.turns[-1].text}]
