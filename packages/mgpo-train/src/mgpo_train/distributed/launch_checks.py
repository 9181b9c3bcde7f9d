"""What `accelerate launch` asked for, and a refusal of what would hang, lose the weights, or run as something else.

Relies on `deepspeed.ops.op_builder.all_ops.ALL_OPS` (0.19).
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import DistributedType

from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.sharding_plan import ShardingPlan, launched_plan

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

LONGEST_BUILD = 900.0
"""Seconds after which a lock on one of DeepSpeed's operators counts as left behind: none takes that long to build."""

logger = logging.getLogger(__name__)

_KINDS = {
    "deepspeed": (DistributedType.DEEPSPEED, "DeepSpeed", "unset ACCELERATE_USE_CPU, which switches DeepSpeed off"),
    "fsdp": (DistributedType.FSDP, "FSDP", "accelerate (1.15) has FSDP on GPUs alone (use_cpu: false)"),
}


def running_plan(config: MGPOConfig) -> ShardingPlan:
    """How this run's weights, gradients and optimiser are to lie on its processes."""
    plugin = config.deepspeed_plugin
    if plugin is not None:
        return ShardingPlan("as launched", config.world_size, "deepspeed", int(plugin.zero_stage))
    return launched_plan() or ShardingPlan("one device")


def check_launch(config: MGPOConfig) -> None:
    """Raise ConfigError, naming the remedy, for a way of spreading the model that cannot work."""
    plan = running_plan(config)
    if plan.kind == "fsdp":
        _check_fsdp(config)
    if plan.kind == "deepspeed":
        _check_build_locks()
    if plan.kind == "deepspeed" and plan.stage == 3:
        _check_zero3(config, plan)


def _check_build_locks() -> None:
    """Refuse to wait for ever: PyTorch locks the folder of an operator it builds, and a build that is killed leaves it.

    Source: `torch.utils.file_baton`, whose `wait` has no limit and does not know who holds the lock.
    """
    from deepspeed.ops.op_builder.all_ops import ALL_OPS
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    names = {builder.name for builder in ALL_OPS.values()}
    for lock in sorted({*root.glob("*/lock"), *root.glob("*/*/lock")}):
        if lock.parent.name not in names:
            continue
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:
            continue  # that build has just ended
        if age > LONGEST_BUILD:
            raise ConfigError(
                f"{lock}: left {age / 60:.0f} minutes ago by a build that was killed, and DeepSpeed would wait for it "
                "for ever; delete this file"
            )
        logger.warning("%s: DeepSpeed waits until another process has built it; if none does, delete this file", lock)


def _check_fsdp(config: MGPOConfig) -> None:
    instead = "launch with DeepSpeed instead (zero3.yaml splits as much, zero2.yaml is faster where the weights fit)"
    if config.method != "sft":
        raise ConfigError(
            f"method={config.method} under FSDP: rollouts and log-probabilities read weights that FSDP keeps split; "
            + instead
        )
    evaluated = [data for data in (config.eval_data, config.eval_ood_data) if data and data != "none"]
    if (evaluated and config.eval_samples != 0) or config.eval_tasks:
        raise ConfigError(
            "evaluation under FSDP: processes decode different numbers of tokens and would wait for each other's "
            "weights for ever; leave it out (--eval_samples 0, no eval_tasks) and evaluate model/ afterwards, or "
            + instead
        )


def _check_zero3(config: MGPOConfig, plan: ShardingPlan) -> None:
    zero = config.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
    if not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise ConfigError(
            "ZeRO-3 without whole weights in model/ and the checkpoints, which nothing could load: set "
            "zero3_save_16bit_model: true under deepspeed_config in the accelerate configuration"
        )
    if plan.devices > 1 and config.method != "sft" and not config.use_vllm and not config.ds3_gather_for_generation:
        raise ConfigError(
            "ds3_gather_for_generation=false under ZeRO-3: processes decode different numbers of tokens and would "
            "wait for each other's weights for ever; leave it out, or use_vllm"
        )


def check_trainer(trainer: Any, config: MGPOConfig) -> None:
    """Raise ConfigError when DeepSpeed or FSDP was asked for and the trainer goes without: accelerate says nothing."""
    kind = running_plan(config).kind
    if kind not in _KINDS or trainer.accelerator.distributed_type == _KINDS[kind][0]:
        return
    _, name, remedy = _KINDS[kind]
    raise ConfigError(
        f"the accelerate configuration asks for {name}, and the run would train without it: {remedy}, or launch "
        f"without {name}"
    )
