"""Rollouts for the trainer: episodes of a batch in, token-level completions with mask and images out.

The engine is the one that evaluation and the demo use (`mgpo_core.engines`). What the loss will see is exactly what
was sampled: ids are taken from the trajectory, never from its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from mgpo_core import Episode, Sample, Trajectory
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.errors import TokenAlignmentError
from mgpo_core.templates.base import message_images
from mgpo_train.config.config import MGPOConfig


@dataclass(frozen=True)
class Rollouts:
    """A batch of `B` rollouts as TRL wants it; every list has one entry per rollout.

    `completion_ids[b]`, `mask[b]` and `logprobs[b]` are of one length: everything after the prompt, the inserted turn
    and its image tokens included; the mask is 1 on sampled tokens alone. `images[b]` are all images of the
    conversation, resized, in reading order.
    """

    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    mask: list[list[int]]
    logprobs: list[list[float]]
    images: list[list[Image.Image]]
    trajectories: list[Trajectory]


def make_episodes(samples: Sequence[Sample], config: MGPOConfig) -> list[Episode]:
    """One episode per entry of `samples`; neighbours that are the same sample become copies that share their images."""
    episodes: list[Episode] = []
    start = 0
    while start < len(samples):
        end = start + 1
        while end < len(samples) and samples[end] is samples[start]:
            end += 1
        episodes += config.episode(samples[start]).copies(end - start)
        start = end
    return episodes


def collect(trajectories: Sequence[Trajectory], tokens: TurnTokenizer) -> Rollouts:
    """Take trajectories apart into prompt and completion; raises TokenAlignmentError naming the sample that is off."""
    rollouts = Rollouts([], [], [], [], [], list(trajectories))
    for trajectory in trajectories:
        record = trajectory.tokens
        if record is None or record.logprobs is None:
            raise TokenAlignmentError(f"sample {trajectory.sample_id!r}: the engine returned no tokens to train on")
        images = message_images(trajectory.messages)
        tokens.check(record.ids, images, name=trajectory.sample_id)
        if not len(record.ids) == len(record.mask) == len(record.logprobs):
            raise TokenAlignmentError(
                f"sample {trajectory.sample_id!r}: {len(record.ids)} ids, {len(record.mask)} mask entries and "
                f"{len(record.logprobs)} log-probabilities; they must be one each"
            )
        if any(record.mask[: record.prompt_length]):
            raise TokenAlignmentError(f"sample {trajectory.sample_id!r}: the mask marks tokens of the prompt")
        # a prompt that fills the context gets no response; of its last token, which is masked, a row is still made
        prompt = min(record.prompt_length, len(record) - 1)
        rollouts.prompt_ids.append(record.ids[:prompt])
        rollouts.completion_ids.append(record.ids[prompt:])
        rollouts.mask.append(record.mask[prompt:])
        rollouts.logprobs.append(record.logprobs[prompt:])
        rollouts.images.append(images)
    return rollouts


def without_overlong(rollouts: Rollouts) -> tuple[Rollouts, float]:
    """The rollouts with nothing to learn from those of which a turn ran into the length limit; their share."""
    overlong = [any(turn.finish_reason == "length" for turn in t.turns) for t in rollouts.trajectories]
    mask = [[0] * len(row) if over else row for row, over in zip(rollouts.mask, overlong, strict=True)]
    return replace(rollouts, mask=mask), sum(overlong) / max(1, len(overlong))
