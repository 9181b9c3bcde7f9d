"""What a run is sized for by `--dry-run`: GPUs by name, and how accelerate spreads a model over them (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mgpo_core.messages.suggest import nearest
from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.sharding_plan import ShardingPlan, find_plan, launched_plan

GIB = 1024**3


@dataclass(frozen=True)
class GPU:
    """A device by its data sheet: memory in bytes, dense bfloat16 operations and bytes of memory per second."""

    name: str
    memory: int
    flops: float
    bandwidth: float


GPUS: dict[str, GPU] = {
    # memory as nvidia-smi shows it; peaks of the SXM boards, without sparsity
    "a100-40gb": GPU("A100 40 GB", 40 * GIB, 312e12, 1.555e12),
    "a100-80gb": GPU("A100 80 GB", 80 * GIB, 312e12, 2.039e12),
    "h100": GPU("H100 80 GB", int(79.6 * GIB), 989e12, 3.35e12),
    "h200": GPU("H200 141 GB", int(140.4 * GIB), 989e12, 4.8e12),
    "l40s": GPU("L40S 48 GB", 45 * GIB, 362e12, 0.864e12),
    "rtx4090": GPU("RTX 4090 24 GB", 24 * GIB, 165e12, 1.008e12),
}


@dataclass(frozen=True)
class HardwareTarget:
    """The devices that a run is sized for; without a GPU's name there is no estimate of time."""

    plan: ShardingPlan = ShardingPlan("one device")
    gpu: GPU | None = None
    response_tokens: int = 256
    """Tokens of a typical response: an assumption, which no file holds."""

    def describe(self) -> str:
        """One line for the report."""
        gpu = "devices" if self.gpu is None else self.gpu.name
        return f"{self.plan.devices} x {gpu}, accelerate: {self.plan.name}"


def find_gpu(name: str) -> GPU:
    """A GPU of the table; raises ConfigError with the nearest name."""
    key = name.lower()
    if key not in GPUS:
        raise ConfigError(f"gpu {name!r} is not in the table: {nearest(key, GPUS)}")
    return GPUS[key]


def read_hardware(recipe: Mapping[str, Any], asked: Mapping[str, str]) -> HardwareTarget:
    """The machine to size for: what was asked for, else how the process was launched, else what the recipe names.

    `recipe` is a recipe's `machine`: accelerate, devices and gpu. Raises ConfigError for what does not exist.
    """
    unknown = [key for key in recipe if key not in ("accelerate", "devices", "gpu")]
    if unknown:
        raise ConfigError(f"machine has no {unknown[0]!r}: {nearest(unknown[0], ('accelerate', 'devices', 'gpu'))}")
    plan, devices = ShardingPlan("one device"), asked.get("devices")
    if "accelerate" in asked:
        plan = find_plan(asked["accelerate"])
    elif (launched := launched_plan()) is not None:
        plan = launched
    elif "accelerate" in recipe:
        plan, devices = find_plan(str(recipe["accelerate"])), devices or recipe.get("devices")
    if devices is not None:
        kind = "ddp" if plan.kind == "one" and int(devices) > 1 else plan.kind
        plan = replace(plan, devices=_positive("devices", devices), kind=kind)
    gpu = asked.get("gpu", recipe.get("gpu"))
    machine = HardwareTarget(plan, None if gpu is None else find_gpu(str(gpu)))
    if "response_tokens" in asked:
        machine = replace(machine, response_tokens=_positive("response_tokens", asked["response_tokens"]))
    return machine


def _positive(name: str, value: Any) -> int:
    if not str(value).isdigit() or int(value) < 1:
        raise ConfigError(f"{name}={value!r}: give a positive whole number")
    return int(value)
