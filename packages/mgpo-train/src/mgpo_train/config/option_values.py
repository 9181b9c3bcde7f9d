"""Checks of option values before anything is loaded (no torch): numbers out of range, unknown words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgpo_core.messages.suggest import check_words
from mgpo_train.config.options import WORDS, ConfigError

__all__ = ["CHOICES", "RANGES", "Range", "check_values"]


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, without the ends that are `open`: "low", "high", "both"."""

    low: float
    high: float = math.inf
    open: str = ""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open in ("low", "both") else value >= self.low
        return above and (value < self.high if self.open in ("high", "both") else value <= self.high)

    def in_words(self) -> str:
        """What to give."""
        if self.high == math.inf:
            return f"a number above {self.low:g}" if self.open == "low" else f"{self.low:g} or more"
        ends = {"low": f", above {self.low:g}", "high": f", below {self.high:g}", "both": ", without the ends", "": ""}
        return f"a number from {self.low:g} to {self.high:g}{ends[self.open]}"


_COUNT, _SHARE, _NOT_NEGATIVE, _POSITIVE = Range(1), Range(0, 1), Range(0), Range(0, open="low")

RANGES: dict[str, Range] = {
    **dict.fromkeys(
        (
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "max_completion_length",
            "rollout_batch_size",
            "generation_batch_size",
            "steps_per_generation",
            "num_iterations",
            "num_generations_eval",
            "min_pixels",
            "max_pixels",
            "vllm_max_model_length",
            "vllm_tensor_parallel_size",
            "lora_r",
            "lora_alpha",
            "save_total_limit",
            "crop_max_aspect",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        (
            "learning_rate",
            "weight_decay",
            "warmup_steps",
            "max_grad_norm",
            "adam_epsilon",
            "beta",
            "top_k",
            "dynamic_sampling",
            "max_logprob_gap",
            "crop_min_side",
            "dataloader_num_workers",
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(
        ("num_train_epochs", "temperature", "save_steps", "logging_steps", "epsilon", "epsilon_high", "delta"),
        _POSITIVE,
    ),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "lora_dropout"), Range(0, 1, open="high")),
    **dict.fromkeys(("top_p", "vllm_gpu_memory_utilization"), Range(0, 1, open="low")),
    **dict.fromkeys(("min_p", "top_entropy_quantile"), _SHARE),
    **dict.fromkeys(("seed", "data_seed"), Range(0, 2**32 - 1)),
    "repetition_penalty": _POSITIVE,
}
"""What numbers an option takes; None is "not given" for all of them."""

CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("bnpo", "cispo", "dapo", "dr_grpo", "grpo", "luspo", "sapo", "vespo"),
    "importance_sampling_level": ("sequence", "token"),
}
"""The words of TRL's options that it checks only when the first rollouts have been made."""

_WHY = {
    "temperature": "rollouts of a group would be the same",
    "max_steps": "nothing would be trained",
}


def check_values(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first of the options that has a value that no run can have."""
    check_words(options, WORDS | CHOICES, ConfigError)
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name}={value}: give a finite number")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in RANGES and number and value not in RANGES[name]:
            why = f"{_WHY[name]}; " if name in _WHY else ""
            raise ConfigError(f"{name}={value}: {why}give {RANGES[name].in_words()}")
        if name == "max_steps" and number and (value < -1 or value == 0):
            raise ConfigError(f"{name}={value}: {_WHY[name]}; give a positive number, or -1 for num_train_epochs")
