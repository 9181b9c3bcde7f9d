"""How a checkpoint lies on the disk, in one piece or in shards, and which run can go on from it.

Recognised by the names of its files, which transformers (5.17), accelerate (1.15) and DeepSpeed (0.19) give them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.sharding_plan import ShardingPlan

_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "optimizer_[0-9]*", "global_step*")
"""What the optimiser's state is written under; the last is DeepSpeed's folder."""


def checkpoint_step(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint folder was written."""
    return int(checkpoint.name.split("-")[1])


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end by all processes.

    `trainer_state.json` is written last, after all processes have written their parts (`CheckpointResumeMixin`). Shards
    are counted all the same: a file system may have lost what a machine wrote before it went down.
    """
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    if state.get("global_step") != checkpoint_step(checkpoint):
        return False
    ranks, processes = _shard_ranks(checkpoint), _processes(checkpoint)
    return ranks is None or (processes > 0 and ranks == list(range(processes)))


def checkpoint_layout(checkpoint: Path) -> ShardingPlan:
    """What wrote a whole checkpoint: one process or DDP, DeepSpeed and its stage (2 stands for 1 too), or FSDP."""
    processes = max(1, _processes(checkpoint))
    if _shard_ranks(checkpoint) is not None:
        stage = 3 if any(_shard_folder(checkpoint).glob("*zero_pp_rank_*_model_states.pt")) else 2
        return ShardingPlan(checkpoint.name, processes, "deepspeed", stage)
    if any(checkpoint.glob("pytorch_model_fsdp*")):
        return ShardingPlan(checkpoint.name, processes, "fsdp", 3)
    return ShardingPlan(checkpoint.name, processes, "ddp" if processes > 1 else "one")


def check_layout(checkpoint: Path, running: ShardingPlan) -> None:
    """Raise ConfigError, naming the remedy, when the run cannot read the checkpoint's optimiser, or there is none."""
    if not any(any(checkpoint.glob(name)) for name in _OPTIMIZER):
        raise ConfigError(
            f"--resume: {checkpoint} holds no optimiser state (it was written with save_only_model=true, or lost "
            f"files): start a new run from its weights (--model {checkpoint} and another --output_dir)"
        )
    written = checkpoint_layout(checkpoint)
    if _family(written) == _family(running):
        return
    raise ConfigError(
        f"--resume: {checkpoint} was written by {describe(written)}, and this run is {describe(running)}, which cannot "
        f"read its optimiser state: launch it as before ({_remedy(written)}; the number of processes may change), or "
        f"start a new run from its weights (--model {checkpoint} and another --output_dir)"
    )


def needs_conversion(checkpoint: Path, running: ShardingPlan) -> bool:
    """Whether DeepSpeed's shards were cut for another number of processes than run now."""
    written = checkpoint_layout(checkpoint)
    return written.kind == "deepspeed" and written.devices != running.devices


def describe(plan: ShardingPlan) -> str:
    """A layout in words."""
    processes = "1 process" if plan.devices == 1 else f"{plan.devices} processes"
    kinds = {"deepspeed": f" with DeepSpeed's ZeRO-{plan.stage}", "fsdp": " with FSDP"}
    return processes + kinds.get(plan.kind, " without DeepSpeed")


def _family(plan: ShardingPlan) -> str:
    """Layouts of one family read each other's checkpoints."""
    if plan.kind == "deepspeed":
        return "zero3" if plan.stage == 3 else "zero2"
    return "fsdp" if plan.kind == "fsdp" else "plain"


def _remedy(written: ShardingPlan) -> str:
    if _family(written) == "plain":
        return "without DeepSpeed and FSDP"
    name = {"zero2": "zero2.yaml", "zero3": "zero3.yaml", "fsdp": "fsdp2.yaml"}[_family(written)]
    return f"accelerate launch with {name} or one like it"


def _processes(checkpoint: Path) -> int:
    """How many processes left their random state; 0 when none did."""
    return len([*checkpoint.glob("rng_state_*.pth")]) or int((checkpoint / "rng_state.pth").is_file())


def _shard_folder(checkpoint: Path) -> Path:
    """DeepSpeed's folder inside a checkpoint."""
    return checkpoint / f"global_step{checkpoint_step(checkpoint)}"


def _shard_ranks(checkpoint: Path) -> list[int] | None:
    """The ranks whose shards of the optimiser (ZeRO-3: and of the weights) are there; None without DeepSpeed."""
    folder = _shard_folder(checkpoint)
    if not folder.is_dir():
        return None
    ranks = {kind: _ranks(folder, kind) for kind in ("optim", "model")}
    split = ranks["model"] or ranks["optim"]  # the weights are in one file, without a rank, unless they are split
    return sorted(ranks["optim"] & split)


def _ranks(folder: Path, kind: str) -> set[int]:
    names = [re.search(r"zero_pp_rank_(\d+)_", path.name) for path in folder.glob(f"*_{kind}_states.pt")]
    return {int(name[1]) for name in names if name is not None}
