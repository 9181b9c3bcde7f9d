"""`--dry-run`: how large a run is, from headers and shapes alone; no weight is loaded and nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mgpo_core import Sample
from mgpo_core.engines.loading import load_processor, resolve_model
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episode import Episode
from mgpo_train.config import MGPOConfig
from mgpo_train.model import part_of
from mgpo_train.rows import check_image

PROBED = 64
"""Samples that are looked at, evenly spread over the data set."""

GIB = 1024**3


@dataclass(frozen=True)
class Sizing:
    """Numbers of a run; token counts are of one trajectory, memory is per device in bytes."""

    samples: int
    steps: int
    prompts_per_step: int
    rollouts_per_step: int
    image_tokens: tuple[int, int, int]
    """Fewest, median and most tokens of one picture as the model sees it."""
    prompt_tokens: tuple[int, int, int]
    sequence_tokens: int
    """The longest trajectory possible: longest prompt, full responses, largest crop."""
    parameters: int
    trained: int
    memory: dict[str, int]

    @property
    def total_memory(self) -> int:
        """Sum of the estimates in bytes."""
        return sum(self.memory.values())

    def lines(self) -> list[str]:
        """The report that `--dry-run` prints."""
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.memory.items())
        return [
            f"samples           {self.samples}",
            f"steps             {self.steps}",
            f"a step            {self.prompts_per_step} samples, {self.rollouts_per_step} trajectories",
            f"tokens per image  {_range(self.image_tokens)}",
            f"prompt tokens     {_range(self.prompt_tokens)}",
            f"longest sequence  {self.sequence_tokens} tokens",
            f"parameters        {self.parameters / 1e6:.2f} M, {self.trained / 1e6:.2f} M of them trained",
            f"memory (at most)  {self.total_memory / GIB:.2f} GiB per device: {parts}",
        ]


def _range(values: tuple[int, int, int]) -> str:
    low, middle, high = values
    return f"{low}" if low == high else f"{low} to {high}, median {middle}"


def size_run(config: MGPOConfig, samples: Sequence[Sample]) -> Sizing:
    """Size a run without loading weights; needs the model's config and processor."""
    tokens = TurnTokenizer(load_processor(config.model))
    probed = [samples[i * len(samples) // min(PROBED, len(samples))] for i in range(min(PROBED, len(samples)))]
    images = [config.budget.tokens(*image_size(sample, i)) for sample in probed for i in range(len(sample.images))]
    # the text is tokenised for a few samples only: it needs the pictures decoded
    prompts = [len(_opening(tokens, sample, config)) for sample in _longest(probed, config)]
    turns = config.make_template().max_turns
    largest = config.budget.max_pixels // config.budget.factor**2
    follow_up = 0 if turns == 1 else largest + _text_tokens(tokens, probed)
    longest = max(prompts) + turns * (config.max_completion_length or 0) + (turns - 1) * follow_up
    parameters, trained = count_parameters(config)
    rollouts = config.prompts_per_step * (1 if config.method == "sft" else config.num_generations or 1)
    return Sizing(
        samples=len(samples),
        steps=planned_steps(config, len(samples)),
        prompts_per_step=config.prompts_per_step,
        rollouts_per_step=rollouts,
        image_tokens=_spread(images),
        prompt_tokens=_spread(prompts),
        sequence_tokens=longest,
        parameters=parameters,
        trained=trained,
        memory=estimate_memory(config, longest, longest - min(prompts), parameters, trained),
    )


def image_size(sample: Sample, index: int) -> tuple[int, int]:
    """(width, height) of a sample's picture in pixels, by its header where it has one."""
    source = sample.images[index]
    return check_image(source) if isinstance(source, str | bytes) else sample.load(index).size


def _opening(tokens: TurnTokenizer, sample: Sample, config: MGPOConfig) -> list[int]:
    episode = Episode(sample, template=config.make_template(), budget=config.budget, space=config.space)
    return tokens.opening(episode.messages)


def _longest(samples: Sequence[Sample], config: MGPOConfig, count: int = 4) -> list[Sample]:
    """The samples with the longest questions and the one with the largest picture."""
    by_text = sorted(samples, key=lambda s: len(s.question) + sum(map(len, s.choices)), reverse=True)[: count - 1]
    return [*by_text, max(samples, key=lambda s: config.budget.tokens(*image_size(s, 0)))]


def _text_tokens(tokens: TurnTokenizer, samples: Sequence[Sample]) -> int:
    """Tokens of the longest follow-up's text, counted generously: question, choices and the fixed sentences."""
    texts = ["\n".join([sample.question, *sample.choices]) for sample in samples]
    return 200 + max(len(tokens.tokenizer.encode(text, add_special_tokens=False)) for text in texts)


def planned_steps(config: MGPOConfig, samples: int) -> int:
    """Optimiser steps of a whole run; an incomplete last batch of an epoch counts for sft alone, TRL drops it."""
    if config.max_steps > 0:
        return config.max_steps
    batches = samples / config.prompts_per_step
    an_epoch = math.ceil(batches) if config.method == "sft" else math.floor(batches)
    return max(1, math.ceil(max(1, an_epoch) * config.num_train_epochs))


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def count_parameters(config: MGPOConfig) -> tuple[int, int]:
    """(all, trained) numbers in the model, from its shapes on the meta device."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(model_config(config))
    # tied weights are one parameter and are counted once
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    trained = sum(size for name, size in sizes.items() if part_of(name) not in config.freeze)
    return sum(sizes.values()), trained


def model_config(config: MGPOConfig) -> Any:
    """The transformers configuration of the run's model."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(resolve_model(config.model), trust_remote_code=config.trust_remote_code)


def estimate_memory(config: MGPOConfig, length: int, scored: int, parameters: int, trained: int) -> dict[str, int]:
    """Bytes per device by purpose if every trajectory were the longest possible, without sharding.

    `length` and `scored` are tokens of a trajectory: all, and those after the prompt, which get logits.

    AdamW keeps two numbers per trained one. Checkpointing keeps a layer's input; without it a layer keeps about 20
    numbers per token and hidden unit. Logits exist twice (values and gradients) in float32. The rollouts' cache and
    the update do not overlap in time, so the larger of the two counts.
    """
    text = model_config(config).get_text_config()
    width = 2 if config.dtype == "bfloat16" else 4
    compute = 2 if config.bf16 or config.dtype == "bfloat16" else 4
    rows = config.per_device_train_batch_size
    kept = 1 if config.gradient_checkpointing else 20
    activations = rows * length * text.hidden_size * compute * (text.num_hidden_layers * kept + 20)
    logits = 2 * rows * scored * text.vocab_size * 4
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_size * compute
    together = config.rollout_batch_size or rows * (config.steps_per_generation or config.gradient_accumulation_steps)
    cache = 0 if config.method == "sft" else together * length * per_token
    update = activations + logits
    return {
        "weights": parameters * width * (2 if config.beta and config.method != "sft" else 1),
        "gradients": trained * width,
        "optimiser": trained * 2 * width,
        "update" if update >= cache else "rollout cache": max(update, cache),
    }
