"""`--dry-run`: how large a run is, from headers and shapes alone; no weight is loaded and nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mgpo_core import Sample
from mgpo_train.config.config import MGPOConfig
from mgpo_train.sizing.hardware import GIB, HardwareTarget
from mgpo_train.sizing.memory import Memory, estimate_memory, fits
from mgpo_train.sizing.shapes import ModelShapes, read_shapes
from mgpo_train.sizing.step_time import BANDWIDTH, COMPUTE, StepTime, estimate_time
from mgpo_train.sizing.trajectory_size import Spread, TrajectorySize, measure_trajectories


@dataclass(frozen=True)
class Sizing:
    """Numbers of a run; memory is per device, time per optimiser step."""

    samples: int
    steps: int
    prompts_per_step: int
    rollouts_per_step: int
    steps_per_batch: int
    """Optimiser steps that use the rollouts made at a time."""
    tokens: TrajectorySize
    shapes: ModelShapes
    memory: Memory
    time: StepTime | None
    machine: HardwareTarget

    def lines(self) -> list[str]:
        """The report that `--dry-run` prints."""
        tokens, shapes = self.tokens, self.shapes
        batch = f", {self.steps_per_batch} steps per batch of rollouts" if self.steps_per_batch > 1 else ""
        notes = [f"note              {note}" for note in (shapes.note, tokens.note, self.memory.note) if note]
        return [
            f"machine           {self.machine.describe()}",
            f"samples           {self.samples}",
            f"steps             {self.steps}",
            f"a step            {self.prompts_per_step} samples, {self.rollouts_per_step} trajectories{batch}",
            f"tokens per image  {_range(tokens.image)}",
            f"prompt tokens     {_range(tokens.prompt)}",
            f"tokens per sample {tokens.typical(self.machine.response_tokens)} with responses of "
            f"{tokens.response(self.machine.response_tokens)} (assumed: --response_tokens)",
            f"longest sequence  {tokens.longest} tokens",
            f"parameters        {shapes.parameters:,}: {_millions(shapes.parts, shapes.adapters)}",
            f"trained           {shapes.trained_parameters:,}",
            *self._memory_lines(),
            *self._time_lines(),
            *notes,
        ]

    def _memory_lines(self) -> list[str]:
        parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.memory.parts.items())
        lines = [f"memory (at most)  {self.memory.peak / GIB:.2f} GiB per device: {parts}"]
        if self.memory.host:
            lines.append(f"offloaded         {self.memory.host / GIB:.2f} GiB to the machine's own memory")
        verdict = fits(self.memory, self.machine)
        return lines + ([f"it {verdict}"] if verdict else [])

    def _time_lines(self) -> list[str]:
        if self.time is None:
            return ["time              no estimate: name the device with --gpu"]
        time = self.time
        return [
            f"time (estimate)   {time.total:.1f} s per step: rollouts {time.rollouts:.1f}, scoring {time.scoring:.1f}, "
            f"update {time.update:.1f}",
            f"                  {time.total * self.steps / 3600:.1f} hours for {self.steps} steps, without evaluation; "
            f"assumed {COMPUTE:.0%} of the peak operations and {BANDWIDTH:.0%} of the bandwidth",
        ]


def _range(values: Spread) -> str:
    low, middle, high = values
    return f"{low}" if low == high else f"{low} to {high}, median {middle}"


def _millions(parts: dict[str, int], adapters: int) -> str:
    listed = [f"{name} {size / 1e6:.2f} M" for name, size in parts.items()]
    return ", ".join(listed + ([f"adapters {adapters / 1e6:.2f} M"] if adapters else []))


def size_run(config: MGPOConfig, samples: Sequence[Sample], machine: HardwareTarget | None = None) -> Sizing:
    """Size a run for a machine; needs the model's configuration, or one that ships with this package.

    Raises EngineError when nothing is known of the model.
    """
    machine = machine or HardwareTarget()
    shapes, tokens = read_shapes(config), measure_trajectories(config, samples)
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps * machine.plan.devices
    group = 1 if config.method == "sft" else config.num_generations or 1
    return Sizing(
        samples=len(samples),
        steps=planned_steps(config, len(samples), devices=machine.plan.devices),
        prompts_per_step=rows // group,
        rollouts_per_step=rows,
        steps_per_batch=_steps_per_batch(config),
        tokens=tokens,
        shapes=shapes,
        memory=estimate_memory(config, shapes, tokens.longest, machine),
        time=estimate_time(config, shapes, tokens, machine),
        machine=machine,
    )


def _steps_per_batch(config: MGPOConfig) -> int:
    """Optimiser steps between two rounds of rollouts."""
    if config.method == "sft":
        return 1
    forwards = config.steps_per_generation * config.num_iterations
    return max(1, forwards // config.gradient_accumulation_steps)


def planned_steps(config: MGPOConfig, samples: int, devices: int | None = None) -> int:
    """Optimiser steps of a whole run on `devices` devices (default: those of this run).

    An incomplete last batch of an epoch counts for sft alone: TRL drops it, and with it the samples of a round of
    rollouts that cannot be filled.
    """
    if config.max_steps > 0:
        return config.max_steps
    rows = config.per_device_train_batch_size * (devices or config.world_size)
    if config.method == "sft":
        an_epoch = math.ceil(samples / (rows * config.gradient_accumulation_steps))
    else:
        forwards = config.steps_per_generation
        rounds = samples // max(1, rows * forwards // (config.num_generations or 1))
        an_epoch = math.ceil(rounds * forwards * config.num_iterations / config.gradient_accumulation_steps)
    return max(1, math.ceil(max(1, an_epoch) * config.num_train_epochs))
