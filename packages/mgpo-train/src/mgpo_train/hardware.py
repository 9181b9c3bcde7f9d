"""What a run is sized for by `--dry-run`: GPUs by name, and how accelerate spreads a model over them (no torch)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mgpo_core.suggest import nearest
from mgpo_train.options import ConfigError

GIB = 1024**3
LAYOUTS = Path(str(resources.files("mgpo_train"))) / "accelerate"


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
class Layout:
    """How weights, gradients and optimiser lie on the devices: what an accelerate configuration says of it."""

    name: str
    devices: int = 1
    kind: str = "one"
    """one, ddp, deepspeed or fsdp."""
    stage: int = 0
    """Of ZeRO: 1 shards the optimiser, 2 the gradients too, 3 the weights too. FSDP counts as 3."""
    offload_optimiser: bool = False
    offload_weights: bool = False

    def share(self, stage: int) -> int:
        """Over how many devices that which this stage shards is spread."""
        return self.devices if self.stage >= stage else 1


@dataclass(frozen=True)
class Machine:
    """The devices that a run is sized for; without a GPU's name there is no estimate of time."""

    layout: Layout = Layout("one device")
    gpu: GPU | None = None
    response_tokens: int = 256
    """Tokens of a typical response: an assumption, which no file holds."""

    def describe(self) -> str:
        """One line for the report."""
        gpu = "devices" if self.gpu is None else self.gpu.name
        return f"{self.layout.devices} x {gpu}, accelerate: {self.layout.name}"


def find_gpu(name: str) -> GPU:
    """A GPU of the table; raises ConfigError with the nearest name."""
    key = name.lower()
    if key not in GPUS:
        raise ConfigError(f"gpu {name!r} is not in the table: {nearest(key, GPUS)}")
    return GPUS[key]


def find_layout(name: str) -> Layout:
    """The layout of a shipped accelerate configuration (`zero3`), or of a YAML file; raises ConfigError."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else LAYOUTS / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in LAYOUTS.glob("*.yaml")]
        raise ConfigError(f"there is no accelerate configuration {name!r}: {nearest(path.stem, known)}")
    options = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(options, dict) or "distributed_type" not in options:
        raise ConfigError(f"{path} is no accelerate configuration: it has no distributed_type")
    return _layout(path.stem, options)


def _layout(name: str, options: Mapping[str, Any]) -> Layout:
    kind, devices = str(options["distributed_type"]), int(options.get("num_processes") or 1)
    if kind == "DEEPSPEED":
        zero = options.get("deepspeed_config") or {}
        return Layout(
            name,
            devices,
            "deepspeed",
            int(zero.get("zero_stage", 2)),
            offload_optimiser=zero.get("offload_optimizer_device", "none") != "none",
            offload_weights=zero.get("offload_param_device", "none") != "none",
        )
    if kind == "FSDP":
        offload = bool((options.get("fsdp_config") or {}).get("fsdp_offload_params"))
        return Layout(name, devices, "fsdp", 3, offload, offload)
    return Layout(name, devices, "ddp" if devices > 1 else "one")


def launched_layout(environment: Mapping[str, str] = os.environ) -> Layout | None:
    """The layout that `accelerate launch` started this process with; None when nothing was launched."""
    devices = int(environment.get("WORLD_SIZE", "1"))
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return Layout(
            "as launched",
            devices,
            "deepspeed",
            int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")),
            environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") != "none",
            environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none") != "none",
        )
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        offload = environment.get("FSDP_OFFLOAD_PARAMS") == "true"
        return Layout("as launched", devices, "fsdp", 3, offload, offload)
    return Layout("as launched", devices, "ddp") if devices > 1 else None


def read_machine(recipe: Mapping[str, Any], asked: Mapping[str, str]) -> Machine:
    """The machine to size for: what was asked for, else how the process was launched, else what the recipe names.

    `recipe` is a recipe's `machine`: accelerate, devices and gpu. Raises ConfigError for what does not exist.
    """
    unknown = [key for key in recipe if key not in ("accelerate", "devices", "gpu")]
    if unknown:
        raise ConfigError(f"machine has no {unknown[0]!r}: {nearest(unknown[0], ('accelerate', 'devices', 'gpu'))}")
    layout, devices = Layout("one device"), asked.get("devices")
    if "accelerate" in asked:
        layout = find_layout(asked["accelerate"])
    elif (launched := launched_layout()) is not None:
        layout = launched
    elif "accelerate" in recipe:
        layout, devices = find_layout(str(recipe["accelerate"])), devices or recipe.get("devices")
    if devices is not None:
        kind = "ddp" if layout.kind == "one" and int(devices) > 1 else layout.kind
        layout = replace(layout, devices=_positive("devices", devices), kind=kind)
    gpu = asked.get("gpu", recipe.get("gpu"))
    machine = Machine(layout, None if gpu is None else find_gpu(str(gpu)))
    if "response_tokens" in asked:
        machine = replace(machine, response_tokens=_positive("response_tokens", asked["response_tokens"]))
    return machine


def _positive(name: str, value: Any) -> int:
    if not str(value).isdigit() or int(value) < 1:
        raise ConfigError(f"{name}={value!r}: give a positive whole number")
    return int(value)
