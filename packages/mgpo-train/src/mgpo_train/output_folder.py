"""The folder of a run: whether it may be written, and from where a stopped or a finished run goes on."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mgpo_core.run_folder import CONFIG_FILE
from mgpo_core.trajectory_log import remove_trajectories
from mgpo_train.best_checkpoint import FOLDERS as BEST_FOLDERS
from mgpo_train.checkpoint_layout import check_layout, checkpoint_step, is_whole
from mgpo_train.config import MGPOConfig
from mgpo_train.launch_checks import running_layout
from mgpo_train.lora import OPTIONS as LORA_OPTIONS
from mgpo_train.metrics import METRICS_FILE
from mgpo_train.options import ConfigError
from mgpo_train.summary import write_json

BEFORE_FILE, SUMMARY_FILE, MODEL_FOLDER = "before.json", "summary.json", "model"
ADAPTER_FOLDER = "adapter"
TASKS_FOLDER = "lmms-eval"
"""Where tasks of lmms-eval that write files (submissions) put them."""

# what a conversation is
_EPISODES = ("method", "template", "strict_boxes", "model", "dtype", "freeze", "min_pixels", "max_pixels")
_LORA = ("use_peft", *LORA_OPTIONS)
_BOXES = ("coordinate_space", "crop_min_side", "crop_max_aspect")
_DATA = ("train_data", "columns", "on_bad_sample", "seed", "data_seed", "shuffle_dataset")
_ROLLOUTS = ("num_generations", "max_completion_length", "temperature", "top_p", "top_k")
_REWARD = ("rewards", "reward_weights", "object_threshold", "difficulty_weighting", "reward_control", "scale_rewards")
_LOSS = ("beta", "loss_type", "epsilon", "epsilon_high", "num_iterations", "mask_truncated_completions")
_GENERATION = ("generation_batch_size",)
_PRECISION = ("bf16", "fp16")
_OPTIMISER = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "optim",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
)
_EVALUATION = (
    "eval_data",
    "eval_ood_data",
    "eval_samples",
    "eval_greedy",
    "per_device_eval_batch_size",
    "eval_tasks",
    "eval_limit",
    "best_metric",
)
SAME_ON_RESUME = (
    *_EPISODES,
    *_LORA,
    *_BOXES,
    *_DATA,
    *_ROLLOUTS,
    *_REWARD,
    *_LOSS,
    *_GENERATION,
    *_PRECISION,
    *_OPTIMISER,
    *_EVALUATION,
)
"""Options that must not change when a run goes on: its steps, or its scores before and after, would not compare."""

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
"""Options of which only the product must not change: a step's rollouts, or samples, over all processes."""

LENGTH = ("max_steps", "num_train_epochs")
"""Options that may change when the learning rate does not depend on them."""

_RECORDED = (*SAME_ON_RESUME, *BATCH, *LENGTH)


def read_summary(out: Path) -> dict[str, Any] | None:
    """The summary of the finished run in a folder; None when there is none."""
    path = out / SUMMARY_FILE
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def earlier_run(out: Path) -> str | None:
    """The name of something that an earlier run left in the folder; None when it is free."""
    left = [p for p in (out / METRICS_FILE, out / SUMMARY_FILE) if p.exists()] + list(out.glob("checkpoint-*"))
    return left[0].name if left else None


def refuse_to_mix(out: Path, config: MGPOConfig) -> None:
    """Raise ConfigError when the folder holds an earlier run that is not to be deleted."""
    left = earlier_run(out)
    if left and not config.overwrite:
        raise ConfigError(
            f"output_dir={str(out)!r} holds an earlier run ({left}): go on with it (--resume), replace it "
            "(--overwrite), or name another folder (--output_dir)"
        )


def same_length(out: Path, config: MGPOConfig) -> bool:
    """Whether the run in the folder was to be as long as this one."""
    then = _written(out).get("same_on_resume", {})
    return all(then.get(name) == now for name, now in _values(config, LENGTH).items())


def check_same(out: Path, config: MGPOConfig) -> None:
    """Raise ConfigError, naming the options, when going on would make another run of the one in the folder."""
    then, now = _written(out).get("same_on_resume", {}), _values(config, _RECORDED)
    _check_same_batch(then, now)
    changed = _changes([name for name in SAME_ON_RESUME if name in then and name in now], then, now)
    if changed:
        raise ConfigError(f"--resume: {changed}; give the same options, or start anew with another --output_dir")
    longer = [name for name in LENGTH if name in then and then[name] != now[name]]
    if not longer or _rate_is_free_of_length(config) or _only_unused_epochs(longer, then, now):
        return
    listed = ", ".join(f"{name} was {then[name]} and is {now[name]}" for name in longer)
    raise ConfigError(
        f"--resume: {listed}, and lr_scheduler_type={now['lr_scheduler_type']} plans the learning rate of every step "
        "from the number of steps: only runs with lr_scheduler_type=constant (or constant_with_warmup with a number "
        "of warmup_steps) can be given another length"
    )


def _check_same_batch(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """The processes may change in number, the batch that they share may not."""
    if not all(name in then for name in BATCH):
        return  # of a run that recorded less
    before, after = (math.prod(record[name] for name in BATCH) for record in (then, now))
    if before == after:
        return
    share = now["per_device_train_batch_size"] * now["world_size"]
    remedy = "give the same options"
    if before % share == 0:
        remedy = f"--gradient_accumulation_steps {before // share} makes it {before} again"
    raise ConfigError(
        f"--resume: {_changes(BATCH, then, now)}: a step had {before} rows over all processes and has {after}; "
        f"{remedy}, or start anew with another --output_dir"
    )


def _changes(names: Iterable[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = [name for name in names if then[name] != now[name]]
    return ", ".join(f"{name} was {then[name]!r} and is {now[name]!r}" for name in changed)


def _rate_is_free_of_length(config: MGPOConfig) -> bool:
    kind = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    return kind == "constant" or (kind == "constant_with_warmup" and not 0 < config.warmup_steps < 1)


def _only_unused_epochs(changed: list[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Epochs count for nothing where max_steps is given."""
    return changed == ["num_train_epochs"] and then.get("max_steps", -1) > 0 and now["max_steps"] > 0


def prepare(
    out: Path, config: MGPOConfig, *, resume: bool, settings: Mapping[str, Any], main: bool
) -> tuple[Path | None, int]:
    """(checkpoint to go on from, its step); makes the folder, and refuses to mix two runs in it."""
    if main and not resume:
        refuse_to_mix(out, config)
        _clear(out)
    checkpoint = None
    if resume:
        check_same(out, config)
        checkpoint = last_checkpoint(out)
        if checkpoint is not None:
            check_layout(checkpoint, running_layout(config))
        if checkpoint is None and read_summary(out) is not None:
            raise ConfigError(
                f"--resume: the run in {out} is finished, and no checkpoint is left to go on from: "
                "start anew (--overwrite, or another --output_dir)"
            )
    if main:
        out.mkdir(parents=True, exist_ok=True)
        first = _written(out).get("given", dict(settings))
        record = {"given": first, "same_on_resume": _values(config, _RECORDED)}
        write_json(out / CONFIG_FILE, record | ({"given_on_resume": dict(settings)} if resume else {}))
        (out / SUMMARY_FILE).unlink(missing_ok=True)  # of a run that was finished and now goes on
    return checkpoint, 0 if checkpoint is None else checkpoint_step(checkpoint)


def _values(config: MGPOConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """The options as config.json gives them back: lists for tuples, texts for enumerations."""
    found = {name: getattr(config, name) for name in names if hasattr(config, name)}
    if config.method == "sft":
        found = {name: value for name, value in found.items() if name not in _GENERATION}  # a stand-in there
    return json.loads(json.dumps(found, default=str))


def _written(out: Path) -> dict[str, Any]:
    path = out / CONFIG_FILE
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut short is passed over.

    transformers removes older checkpoints only when a new one is complete.
    """
    found = sorted(
        (p for p in out.glob("checkpoint-*") if p.name.split("-")[1].isdigit()),
        key=checkpoint_step,
        reverse=True,
    )
    return next((p for p in found if is_whole(p)), None)


def _clear(out: Path) -> None:
    """Remove what a run of ours writes, and nothing else."""
    written = (MODEL_FOLDER, ADAPTER_FOLDER, TASKS_FOLDER, *BEST_FOLDERS)
    for folder in [*out.glob("checkpoint-*"), *(out / name for name in written)]:
        if folder.is_dir():
            shutil.rmtree(folder)
    for name in (METRICS_FILE, SUMMARY_FILE, BEFORE_FILE, CONFIG_FILE, "curves.png", "report.html"):
        (out / name).unlink(missing_ok=True)
    remove_trajectories(out)
