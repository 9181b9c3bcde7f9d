"""DeepSpeed checkpoints for another number of processes than wrote them, by DeepSpeed's universal format.

Relies on `deepspeed.checkpoint.ds_to_universal.main` (0.19.8), which merges the shards into one file per parameter, and
on the option `checkpoint: {load_universal: true}` of its engine. What upstream gets wrong when it loads one under
ZeRO-3 is put right here: all groups of parameters got the first one's weight decay, and shared one counter of steps,
which then counted every step once per group (Adam's bias correction).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from mgpo_train.distributed.checkpoint_layout import checkpoint_layout, needs_conversion
from mgpo_train.distributed.launch_checks import running_plan
from mgpo_train.output.folder import own_record, writing

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

FOLDER, LATEST = "universal", "latest_universal"


def load_universal_if_needed(checkpoint: Path, trainer: Any, config: MGPOConfig) -> None:
    """Have the trainer read a checkpoint's universal form where its shards are for another number of processes.

    To be called by all processes, before training.
    """
    if not needs_conversion(checkpoint, running_plan(config)):
        return
    with config.main_process_first(local=False, desc="merging the checkpoint's shards"):
        if config.process_index == 0:
            convert(checkpoint)
    trainer.accelerator.state.deepspeed_plugin.deepspeed_config["checkpoint"] = {"load_universal": True}
    trainer.add_callback(_SeparateSteps())


def convert(checkpoint: Path) -> None:
    """Write the universal form of a checkpoint beside its shards, unless it is there. For one process alone.

    It takes as much room on the disk as the shards, and twice that while it is being made.
    """
    made = checkpoint / FOLDER
    if made.is_dir():
        return
    part = checkpoint / f"{FOLDER}.part"
    if own_record(checkpoint.parent) is None:
        shutil.rmtree(part, ignore_errors=True)  # of a conversion that was cut short
    with writing(checkpoint.parent, f"{checkpoint.name}/{part.name}", fresh=True):
        _merge(checkpoint / (checkpoint / "latest").read_text("utf-8").strip(), part)
        if checkpoint_layout(checkpoint).stage == 3:
            _leave_weight_decay_out(part / "zero" / "optimizer_state.pt")
    with writing(checkpoint.parent, f"{checkpoint.name}/{LATEST}"):
        (checkpoint / LATEST).write_text(FOLDER, encoding="utf-8")
    part.rename(made)


def _merge(shards: Path, folder: Path) -> None:
    from deepspeed.checkpoint.ds_to_universal import main

    options = argparse.Namespace(
        input_folder=str(shards),
        output_folder=str(folder),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,  # what only Megatron's checkpoints hold
    )
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        main(options)


def _leave_weight_decay_out(path: Path) -> None:
    """Every group then keeps the weight decay that the run, whose options are the same, has given it."""
    state = torch.load(path, weights_only=False)  # written by `_merge`
    state["optimizer_state_dict"]["param_groups"][0].pop("weight_decay", None)
    torch.save(state, path)


class _SeparateSteps(TrainerCallback):
    """Gives every group of parameters a counter of steps of its own, once the checkpoint is loaded."""

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        for values in optimizer.state.values():
            if torch.is_tensor(values.get("step")):
                values["step"] = values["step"].clone()
