"""Which options a run may be resumed with: all as before, but for the few that decide nothing about its steps.

Every option is recorded in `run.json`, TRL's and transformers' included. No torch in here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from mgpo_train.config.option_names import SWITCHES
from mgpo_train.config.options import ConfigError, RunOptions

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

FREE: dict[str, tuple[str, ...]] = {
    "where the run lies, and how the command is given": (
        "output_dir", "overwrite", "resume_from_checkpoint", "do_train", "do_eval", "do_predict",
    ),
    "what is printed, drawn and sent to trackers": (
        "progress", "plot_every", "report_every", "report_trajectories", "report_to", "run_name", "project",
        "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "logging_strategy", "logging_steps",
        "logging_first_step", "log_on_each_node", "logging_nan_inf_filter", "include_num_input_tokens_seen",
        "log_level", "log_level_replica", "disable_tqdm", "log_completions", "log_multimodal",
        "num_completions_to_print", "log_unique_prompts", "log_completions_hub_repo", "debug", "skip_memory_metrics",
    ),
    "when checkpoints are written, and how many are kept": (
        "save_strategy", "save_steps", "save_total_limit", "save_on_each_node", "save_only_model",
        "enable_jit_checkpoint",
    ),
    "what is published": (
        "push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push",
        "hub_revision",
    ),
    "when scores are measured; what they are measured on must not change": (
        "eval_every", "eval_steps", "eval_delay", "eval_accumulation_steps", "per_device_eval_batch_size",
    ),
    "on which devices the run computes, and how fast": (
        "use_cpu", "local_rank", "parallelism_config", "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout", "deepspeed",
        "fsdp", "fsdp_config", "ds3_gather_for_generation", "gradient_checkpointing", "gradient_checkpointing_kwargs",
        "torch_empty_cache_steps", "use_cache", "use_liger_kernel", "liger_kernel_config", "attn_implementation",
        "torch_compile", "torch_compile_backend", "torch_compile_mode", "dataloader_num_workers",
        "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context", "dataloader_in_order",
    ),
    "how rollouts are made, not what is sampled": (
        "rollout_batch_size", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode",
        "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port",
        "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size", "cache_implementation",
        "use_transformers_continuous_batching", "transformers_continuous_batching_config", "use_transformers_paged",
    ),
    "what is checked on the way, and stops the run": ("check_images", "max_bad_fraction", "max_logprob_gap"),
    "where code is imported from; the names that it registers must not change": ("plugins",),
    "derived from generation_batch_size and the batch": ("steps_per_generation",),
}  # fmt: skip
"""Options that may change on --resume, by the reason why they may."""

BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")
"""Options of which only the product must not change: a step's rollouts, or samples, over all processes."""

LENGTH = ("max_steps", "num_train_epochs")
"""Options that may change when the learning rate does not depend on them."""

_FREE = {name for names in FREE.values() for name in names}
_OURS = {option.name for option in fields(RunOptions)}
_STAND_INS = ("num_generations", "generation_batch_size")
"""Without a meaning for method=sft, which sets them to fit any batch."""
SECRET = ("hub_token",)
"""Options that are not written down."""


def recorded(config: MGPOConfig) -> dict[str, Any]:
    """Every option of a run as JSON gives it back (lists for tuples, texts for enumerations), and its processes."""
    names = [option.name for option in fields(config) if option.init and option.name not in SECRET]
    found = {name: getattr(config, name, None) for name in names} | {"world_size": config.world_size}
    if config.method == "sft":
        found = {name: value for name, value in found.items() if name not in _STAND_INS}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def same_schedule(then: Mapping[str, Any], config: MGPOConfig) -> bool:
    """Whether a run with these options was to be as long as this one."""
    now = recorded(config)
    return all(then.get(name) == now[name] for name in LENGTH)


def check_compatible_words(then: Mapping[str, Any], words: Mapping[str, str]) -> None:
    """Raise what `check_compatible_options` would of options as written on a command line (no torch).

    Only numbers, switches and this project's own texts are recorded as they are written; the others pass here.
    """
    changed = [
        f"{name} was {_short(then[name])} and is {text}"
        for name, text in words.items()
        if name in then and _must_stay(name) and _differs(name, text, then[name])
    ]
    if changed:
        raise _another_run(changed)


def _differs(name: str, text: str, value: Any) -> bool:
    if isinstance(value, bool):
        return SWITCHES.get(text.lower(), value) is not value
    if isinstance(value, int | float):
        try:
            return float(text) != value
        except ValueError:
            return False
    return isinstance(value, str) and name in _OURS and text != value


def check_compatible_options(then: Mapping[str, Any], given: Mapping[str, Any], config: MGPOConfig) -> None:
    """Raise ConfigError, naming the options, when resuming would make another run of one with the options `then`.

    `given` are those that the first run was given, for what this version does not know any more.
    """
    now = recorded(config)
    _check_same_batch(then, now)
    changed = [*_changed(then, now), *_unknown_then(then, now, config), *_unknown_now(then, now, given)]
    if changed:
        raise _another_run(changed)
    longer = [name for name in LENGTH if name in then and then[name] != now[name]]
    if not longer or _rate_is_free_of_length(config) or _only_unused_epochs(longer, then, now):
        return
    listed = ", ".join(f"{name} was {then[name]} and is {now[name]}" for name in longer)
    raise ConfigError(
        f"--resume: {listed}, and lr_scheduler_type={now['lr_scheduler_type']} plans the learning rate of every step "
        "from the number of steps: only runs with lr_scheduler_type=constant (or constant_with_warmup with a number "
        "of warmup_steps) can be given another length"
    )


def _another_run(changed: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"--resume: {', '.join(changed)}; give the same options, or start a new run with another --output_dir"
    )


def _must_stay(name: str) -> bool:
    return name not in _FREE and name not in BATCH and name not in LENGTH


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    both = [name for name in now if name in then and _must_stay(name)]
    return [_was_and_is(name, then, now) for name in both if then[name] != now[name]]


def _unknown_then(then: Mapping[str, Any], now: Mapping[str, Any], config: MGPOConfig) -> list[str]:
    """Options that came with another version of this package, TRL or transformers, and are not at their default."""
    defaults = {option.name: _default(option) for option in fields(config)}
    new = [name for name in now if name not in then and _must_stay(name)]
    return [
        f"{name} is {_short(now[name])}, which the version that began the run did not have"
        for name in new
        if name in defaults and now[name] != defaults[name]
    ]


def _unknown_now(then: Mapping[str, Any], now: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    gone = [name for name in then if name not in now and name in given and _must_stay(name)]
    return [f"{name} was {_short(then[name])}, which this version does not have" for name in gone]


def _default(option: Any) -> Any:
    value = option.default if option.default_factory is MISSING else option.default_factory()
    return json.loads(json.dumps(value, default=str))


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
        f"{remedy}, or start a new run with another --output_dir"
    )


def _changes(names: Iterable[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(_was_and_is(name, then, now) for name in names if then[name] != now[name])


def _was_and_is(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{name} was {_short(then[name])} and is {_short(now[name])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _rate_is_free_of_length(config: MGPOConfig) -> bool:
    kind = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    return kind == "constant" or (kind == "constant_with_warmup" and not 0 < config.warmup_steps < 1)


def _only_unused_epochs(changed: list[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Epochs count for nothing where max_steps is given."""
    return changed == ["num_train_epochs"] and then.get("max_steps", -1) > 0 and now["max_steps"] > 0
