"""Training of multi-turn grounding policies: MGPO, its GRPO and SFT baselines, and the recipes that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.training.grpo import MGPOTrainer

__all__ = ["MGPOConfig", "MGPOTrainer"]


def __getattr__(name: str) -> Any:
    # torch and TRL take seconds to import: `mgpo-train --help` does without them
    if name == "MGPOConfig":
        from mgpo_train.config.config import MGPOConfig

        return MGPOConfig
    if name == "MGPOTrainer":
        from mgpo_train.training.grpo import MGPOTrainer

        return MGPOTrainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
