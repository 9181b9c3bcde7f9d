"""How accelerate and DeepSpeed spread a model over processes: the layouts that ship, and the one that was launched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from mgpo_core.messages.suggest import nearest
from mgpo_train.config.options import ConfigError

PLANS = Path(str(resources.files("mgpo_train"))) / "accelerate"


@dataclass(frozen=True)
class ShardingPlan:
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


def find_plan(name: str) -> ShardingPlan:
    """The layout of a shipped accelerate configuration (`zero3`), or of a YAML file; raises ConfigError."""
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else PLANS / f"{name}.yaml"
    if not path.is_file():
        known = [file.stem for file in PLANS.glob("*.yaml")]
        raise ConfigError(f"there is no accelerate configuration {name!r}: {nearest(path.stem, known)}")
    options = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(options, dict) or "distributed_type" not in options:
        raise ConfigError(f"{path} is no accelerate configuration: it has no distributed_type")
    return _plan(path.stem, options)


def _plan(name: str, options: Mapping[str, Any]) -> ShardingPlan:
    kind, devices = str(options["distributed_type"]), int(options.get("num_processes") or 1)
    if kind == "DEEPSPEED":
        zero = options.get("deepspeed_config") or {}
        return ShardingPlan(
            name,
            devices,
            "deepspeed",
            int(zero.get("zero_stage", 2)),
            offload_optimiser=zero.get("offload_optimizer_device", "none") != "none",
            offload_weights=zero.get("offload_param_device", "none") != "none",
        )
    if kind == "FSDP":
        offload = bool((options.get("fsdp_config") or {}).get("fsdp_offload_params"))
        return ShardingPlan(name, devices, "fsdp", 3, offload, offload)
    return ShardingPlan(name, devices, "ddp" if devices > 1 else "one")


def launched_plan(environment: Mapping[str, str] = os.environ) -> ShardingPlan | None:
    """The layout that `accelerate launch` started this process with; None when nothing was launched."""
    devices = int(environment.get("WORLD_SIZE", "1"))
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return ShardingPlan(
            "as launched",
            devices,
            "deepspeed",
            int(environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")),
            environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") != "none",
            environment.get("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none") != "none",
        )
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        offload = environment.get("FSDP_OFFLOAD_PARAMS") == "true"
        return ShardingPlan("as launched", devices, "fsdp", 3, offload, offload)
    return ShardingPlan("as launched", devices, "ddp") if devices > 1 else None
