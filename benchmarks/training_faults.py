"""Breaking the training forward on purpose, to see what each break does to the log-prob gap (docs/parity.md).

Each fault is one that published code for multi-turn rollouts had or has; the tests see the alarm go off at each.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from mgpo_core import Trajectory
from mgpo_core.engines.families import inner_model
from mgpo_core.episodes.trajectory import Tokens

Patch = Callable[[Any, int], contextlib.AbstractContextManager[Any]]
"""(trainer, number of tokens after the prompt) -> what is patched while a batch is scored."""


@contextlib.contextmanager
def while_scoring(trainer: Any, patch: Patch) -> Iterator[None]:
    """Apply a patch in the trainer's forward alone, so that the rollout engine stays right."""
    plain = trainer._get_per_token_logps_and_entropies

    def scored(model: Any, input_ids: Tensor, mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any) -> Any:
        with patch(trainer, logits_to_keep):
            return plain(model, input_ids, mask, logits_to_keep, *args, **kwargs)

    with mock.patch.object(trainer, "_get_per_token_logps_and_entropies", scored):
        yield


def crop_dropped(trainer: Any, kept: int) -> contextlib.AbstractContextManager[Any]:
    """Grey in place of every image but the first of each conversation."""
    core = inner_model(trainer.model)
    plain = core.get_image_features
    counts = [len(images) for images in trainer._rollouts.images]
    firsts = {sum(counts[:row]) for row in range(len(counts))}

    def features(pixel_values: Tensor, image_grid_thw: Tensor, *args: Any, **kwargs: Any) -> Any:
        at, changed = 0, pixel_values.clone()
        for index, size in enumerate(image_grid_thw.prod(dim=1).tolist()):
            if index not in firsts:
                changed[at : at + size] = 0
            at += size
        return plain(changed, image_grid_thw, *args, **kwargs)

    return mock.patch.object(core, "get_image_features", features)


def crop_shifted(trainer: Any, kept: int) -> contextlib.AbstractContextManager[Any]:
    """The rows and columns of inserted images are off by three cells."""

    def shift(input_ids: Tensor, positions: Tensor) -> Tensor:
        inserted = input_ids == trainer.tokens.image_id
        inserted[:, : input_ids.shape[1] - kept] = False
        return torch.cat([positions[:1], torch.where(inserted[None], positions[1:] + 3, positions[1:])])

    return _repositioned(trainer, shift)


def positions_linear(trainer: Any, kept: int) -> contextlib.AbstractContextManager[Any]:
    """Everything after the prompt stands at linear positions, image tokens included (as in the paper's code)."""

    def straighten(input_ids: Tensor, positions: Tensor) -> Tensor:
        start = input_ids.shape[1] - kept
        after = positions[:, :, :start].amax(dim=(0, 2)) + 1
        line = after[None, :, None] + torch.arange(kept, device=positions.device)
        return torch.cat([positions[:, :, :start], line.expand(3, -1, -1)], dim=2)

    return _repositioned(trainer, straighten)


def _repositioned(trainer: Any, change: Callable[[Tensor, Tensor], Tensor]) -> contextlib.AbstractContextManager[Any]:
    core = inner_model(trainer.model)
    plain = core.get_rope_index

    def positions(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
        found, deltas = plain(input_ids, *args, **kwargs)
        return change(input_ids, found), deltas

    return mock.patch.object(core, "get_rope_index", positions)


@contextlib.contextmanager
def turn_encoded_again(trainer: Any) -> Iterator[None]:
    """The first turn's tokens are decoded and encoded again; its log-probabilities stay those of the sampled tokens."""
    plain = trainer.rollout_backend.run

    def run(*args: Any, **kwargs: Any) -> list[Trajectory]:
        trajectories: list[Trajectory] = plain(*args, **kwargs)
        for trajectory in trajectories:
            trajectory.tokens = _encoded_again(trajectory.tokens, trainer.tokens)
        return trajectories

    with mock.patch.object(trainer.rollout_backend, "run", run):
        yield


def _encoded_again(record: Any, tokens: Any) -> Tokens:
    start, end = record.spans[0]
    text = tokens.decode(record.ids[start:end])
    again = [int(i) for i in tokens.tokenizer.encode(text, add_special_tokens=False)]
    logprobs = (record.logprobs[start:end] + [record.logprobs[end - 1]] * len(again))[: len(again)]
    moved = len(again) - (end - start)
    return Tokens(
        ids=record.ids[:start] + again + record.ids[end:],
        mask=record.mask[:start] + [1] * len(again) + record.mask[end:],
        logprobs=record.logprobs[:start] + logprobs + record.logprobs[end:],
        spans=[(start, start + len(again)), *((a + moved, b + moved) for a, b in record.spans[1:])],
        prompt_length=record.prompt_length,
    )


FAULTS: dict[str, Callable[[Any], contextlib.AbstractContextManager[None]]] = {
    "none": lambda trainer: contextlib.nullcontext(),
    "crop dropped": lambda trainer: while_scoring(trainer, crop_dropped),
    "crop shifted by 3 cells": lambda trainer: while_scoring(trainer, crop_shifted),
    "linear positions": lambda trainer: while_scoring(trainer, positions_linear),
    "turn 1 encoded again": turn_encoded_again,
}
"""Name -> context manager that breaks a trainer while it is open."""
