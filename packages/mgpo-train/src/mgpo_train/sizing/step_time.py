"""Seconds per step, from operations and bytes alone: the formulas of docs/training.md. An order of size, no more."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mgpo_train.config.config import MGPOConfig
from mgpo_train.sizing.hardware import GIB, GPU, HardwareTarget
from mgpo_train.sizing.memory import decoded_together, stored_bytes
from mgpo_train.sizing.shapes import ModelShapes
from mgpo_train.sizing.trajectory_size import TrajectorySize

COMPUTE = 0.35
"""Assumed share of the peak operations in prefill, scoring and update."""

BANDWIDTH = 0.6
"""Assumed share of the peak bandwidth in decoding."""

EAGER_STEP = 0.025
"""Assumed seconds per decoded token that Python and kernel launches take in the transformers engine."""

SEQUENCES = 256
"""Requests that vLLM decodes at a time at most (`max_num_seqs`)."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step by purpose; rollouts and scoring are shared among the steps that use them."""

    rollouts: float
    scoring: float
    update: float

    @property
    def total(self) -> float:
        """Seconds of one optimiser step."""
        return self.rollouts + self.scoring + self.update


def estimate_time(
    config: MGPOConfig, shapes: ModelShapes, size: TrajectorySize, machine: HardwareTarget
) -> StepTime | None:
    """Seconds per optimiser step, communication between devices not counted; None without a GPU's name."""
    if machine.gpu is None:
        return None
    speed = machine.gpu.flops * COMPUTE
    accumulated = config.gradient_accumulation_steps
    rows = config.per_device_train_batch_size * accumulated
    work = _Work(config, shapes, size, size.typical(machine.response_tokens))
    update = rows * work.update() / speed
    if config.method == "sft":
        return StepTime(0.0, 0.0, update)
    made = config.per_device_train_batch_size * config.steps_per_generation
    shared_by = max(1.0, made / rows * config.num_iterations)
    scored = made * work.scoring_passes() * work.forward() / speed
    prefill = made * work.prefill() / speed
    decode = _decode(work, machine.gpu, machine, made)
    return StepTime((prefill + decode) / shared_by, scored / shared_by, update)


@dataclass(frozen=True)
class _Work:
    """Operations per trajectory of `length` tokens."""

    config: MGPOConfig
    shapes: ModelShapes
    size: TrajectorySize
    length: int

    @property
    def language(self) -> int:
        """Parameters that every token meets: all of the language model but a separate input embedding."""
        return self.shapes.parts.get("language", 0) + self.shapes.adapters - self.shapes.embedding

    def tokens(self, count: int, context: int) -> float:
        """Operations for `count` tokens of a sequence of `context`, which look back at half of it on average."""
        return 2.0 * count * (self.language + self.shapes.layers * self.shapes.attention * context)

    def vision(self) -> float:
        """Operations of the vision tower for one image; four patches become one token."""
        parts = self.shapes.parts
        return 2.0 * (4 * parts.get("vision", 0) + parts.get("merger", 0)) * self.size.image[1]

    def forward(self) -> float:
        return self.tokens(self.length, self.length) + self.size.turns * self.vision()

    def update(self) -> float:
        """Forward (once more with checkpointing), backward to the activations, backward to trained weights."""
        config = self.config
        again = 2 if config.gradient_checkpointing else 1
        language = again + 1 + (0 if config.use_peft or "language" in config.freeze else 1)
        moving = self.shapes.trained.get("vision", 0) > 0
        vision = again + 2 if moving else 1
        return language * self.tokens(self.length, self.length) + vision * self.size.turns * self.vision()

    def scoring_passes(self) -> int:
        """Forward passes over a rollout before the update: old policy and reference, as TRL makes them."""
        config = self.config
        made = config.steps_per_generation * config.num_iterations
        old = made > config.gradient_accumulation_steps or bool(config.use_vllm)
        return int(old) + int(bool(config.beta))

    def prefill(self) -> float:
        """The prompt once per group, each follow-up once per rollout."""
        prompt, follow_up = self.size.prompt[1], self.size.follow_up
        opening = (self.tokens(prompt, prompt) + self.vision()) / (self.config.num_generations or 1)
        later = self.tokens(follow_up, 2 * self.length) + self.vision()
        return opening + (self.size.turns - 1) * later


def _decode(work: _Work, gpu: GPU, machine: HardwareTarget, made: int) -> float:
    """Seconds to decode `made` rollouts per device: weights and cache are read for every token of a batch."""
    config, shapes = work.config, work.shapes
    together, group, overhead = decoded_together(config), 1, EAGER_STEP
    weights, number = stored_bytes(config, shapes, machine.plan), 2 if config.bf16 else 4
    if config.use_vllm:
        group, overhead = config.vllm_tensor_parallel_size, 0.0
        weights, number = 2.0 * sum(shapes.parts.values()), 2
        room = group * config.vllm_gpu_memory_utilization * gpu.memory - weights - group * 2 * GIB
        together = max(1, min(SEQUENCES, made * group, int(room / (work.length * shapes.cache * number))))
    steps = work.size.turns * work.size.response(machine.response_tokens) * math.ceil(made * group / together)
    read = (weights + together * work.length * shapes.cache * number) / (gpu.bandwidth * BANDWIDTH)
    computed = together * work.tokens(1, work.length) / (gpu.flops * COMPUTE)
    return steps * (max(read, computed) / group + overhead)
