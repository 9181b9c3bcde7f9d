"""Train from Python: samples, a model, a reward of your own.

    python examples/train_from_python.py outputs/from-python

Trains the tiny haystack checkpoint for a few steps on a CPU, and saves it as `model/` in the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mgpo_core import Trajectory, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_train import MGPOConfig, MGPOTrainer


def looked_closer(trajectory: Trajectory) -> float:
    """1 where the first turn's box could be cropped."""
    return float(trajectory.turns[0].box_original is not None)


def train(folder: Path, **options: Any) -> MGPOTrainer:
    """Train into `folder` and return the trainer; `options` are further ones of `MGPOConfig`."""
    config = MGPOConfig(
        output_dir=str(folder),
        model="haystack:base",
        reward_weights=[1.0, 0.2],
        **{"max_steps": 5, "per_device_train_batch_size": 32, "num_generations": 8, "learning_rate": 1e-4, **options},
    )
    trainer = MGPOTrainer(
        model=load_model(config.model),
        processor=load_processor(config.model),
        args=config,
        samples=haystack.make("train", n=64, seed=1),
        reward_funcs=["accuracy", looked_closer],
    )
    trainer.train()
    trainer.save_model(str(folder / "model"))
    trainer.processing_class.save_pretrained(folder / "model")
    return trainer


if __name__ == "__main__":
    train(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/from-python"))
