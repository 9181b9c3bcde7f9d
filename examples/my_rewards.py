"""Your own rewards: a function of a trajectory, and one in TRL's form.

    mgpo-train haystack-mgpo --rewards accuracy examples/my_rewards.py:short_answer --reward_weights 1 0.1

Each is logged under its own name, as `rewards/short_answer/mean`. From Python: `MGPOTrainer(..., reward_funcs=[...])`.
"""

from __future__ import annotations

from typing import Any

from mgpo_core import Trajectory

ENOUGH = 40
"""Characters of an answer that still earn the whole reward."""


def short_answer(trajectory: Trajectory) -> float:
    """1 for a last response of at most `ENOUGH` characters, falling to 0 as it grows.

    The first parameter is called `trajectory`, so it is called once for each rollout. A trajectory has every turn and
    its box: `box = trajectory.turns[0].box_original` is the first crop in pixels of the original (None without one),
    `trajectory.original_sizes[box.image]` the width and height of its image, `trajectory.metrics()` the metrics.
    """
    return min(1.0, ENOUGH / max(1, len(trajectory.turns[-1].text)))


def names_a_choice(
    prompts: list[Any], completions: list[list[dict[str, str]]], choices: list[tuple[str, ...]], **columns: Any
) -> list[float]:
    """1 where the last response quotes one of the sample's choices, else 0.

    Any other function is called as TRL calls its own: once for a batch, with the fields of the samples as columns. A
    completion is the last response as a list of one message.
    """
    return [
        float(any(choice.lower() in completion[-1]["content"].lower() for choice in offered))
        for completion, offered in zip(completions, choices, strict=True)
    ]
