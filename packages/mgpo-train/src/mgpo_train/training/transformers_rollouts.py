"""Rollouts with the transformers engine, on the very model that is trained.

Relies on `trl.models.utils.unwrap_model_for_generation` (1.16).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from trl.models.utils import unwrap_model_for_generation

from mgpo_core import Episode, Trajectory
from mgpo_core.engines.transformers.engine import TransformersEngine

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig


class TransformersRollouts:
    """Plays a batch on the trainer's own weights, under its precision; sampling draws from torch's generator."""

    def __init__(self, trainer: Any, config: MGPOConfig, processor: Any) -> None:
        self.trainer, self.config = trainer, config
        self.engine = TransformersEngine(
            trainer.model,
            processor,
            seed=None,
            batch_size=config.rollout_batch_size or config.generation_batch_size or 16,
            max_model_len=config.vllm_max_model_length,
            **config.sampling,
        )

    def sync(self, step: int) -> None:
        """Nothing to do: the weights are the trainer's."""

    def awake(self) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: the model never sleeps."""
        return contextlib.nullcontext()

    def run(
        self, make_episodes: Callable[[Sequence[int]], list[Episode]], indices: Sequence[int], seed: int
    ) -> list[Trajectory]:
        """Trajectories of the samples at `indices` (B,); `seed` is not used: checkpoints restore torch's generator."""
        accelerator = self.trainer.accelerator
        with (
            unwrap_model_for_generation(
                self.trainer.model_wrapped,
                accelerator,
                gather_deepspeed3_params=self.config.ds3_gather_for_generation,
            ) as model,
            accelerator.autocast(),
        ):
            self.engine.model = model
            return self.engine.run(make_episodes(indices))

    def metrics(self) -> dict[str, float]:
        """Nothing beyond what the trajectories tell."""
        return {}
