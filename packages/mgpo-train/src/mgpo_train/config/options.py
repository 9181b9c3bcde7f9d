"""The options of a run that most people set, without torch: `mgpo-train --help` prints them at once.

`mgpo_train.config.config.MGPOConfig` adds these fields to TRL's `GRPOConfig`; where a name exists upstream as well
(`learning_rate`, `num_generations`, ...), it is repeated here to give it the default and the words of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from mgpo_core.errors import RegistryError
from mgpo_core.messages.suggest import literal_words
from mgpo_core.registry import import_plugins
from mgpo_train.config.data_spec import BoxFormat, BoxScale

METHODS: dict[str, str] = {"mgpo": "two_turn", "grpo": "single_turn", "sft": "single_turn", "mirg": "multi_image"}
"""Each training method with its default template."""

DEFAULT_REWARDS: dict[str, list[str]] = {"mirg": ["object", "image", "format"]}
"""The rewards of a method, where they are not `accuracy` alone."""

PARTS = ("vision", "merger", "language")
"""The parts of a model that `freeze` can name."""


class ConfigError(ValueError):
    """An option that is unknown or cannot be; the message says which and what to do."""


def check_groups(method: str, group: int, rows: int, accumulation: int, processes: int) -> None:
    """Raise ConfigError when a step of `rows` x `accumulation` x `processes` rollouts does not hold whole groups."""
    if method == "sft":
        return
    if group < 2:
        raise ConfigError(f"num_generations={group}: a group needs at least 2 rollouts to compare")
    batch = rows * accumulation
    if batch * processes % group:
        raise ConfigError(
            f"a step has {batch * processes} rollouts (per_device_train_batch_size x "
            f"gradient_accumulation_steps x devices), not a multiple of num_generations={group}: "
            f"try per_device_train_batch_size={max(group, batch // group * group)}"
        )


def import_named_plugins(names: Sequence[str] | None) -> None:
    """Import what the option `plugins` names; raises ConfigError for one that is missing or fails."""
    try:
        import_plugins(names or ())
    except RegistryError as error:
        raise ConfigError(str(error)) from error


def check_weights(weights: Sequence[float] | None, rewards: Sequence[str]) -> None:
    """Raise ConfigError unless there is one weight for each of the rewards, or no weights."""
    if weights is not None and len(weights) != len(rewards):
        raise ConfigError(
            f"reward_weights has {len(weights)} numbers for {len(rewards)} rewards ({', '.join(rewards)}): "
            "give one for each"
        )


def check_output_dir(given: Any) -> None:
    """Raise ConfigError for an empty name, which would mean the folder that the command was called in."""
    if given is not None and not str(given).strip():
        raise ConfigError("output_dir is empty: name a folder, or leave it out")


def _option(default: Any, help: str, **argument: Any) -> Any:
    """A field with its help text; `argument` goes to argparse, for what its type does not say."""
    metadata = {"help": help, **argument}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunOptions:
    """What this project adds to, or sets differently from, TRL's and transformers' options."""

    # Method
    method: Literal["mgpo", "grpo", "sft", "mirg"] = _option(
        "mgpo",
        "mgpo (two turns, reward), grpo (single turn, reward), sft (single turn, answers or trajectories) or mirg "
        "(several images, rewards for image and box).",
    )
    template: str | None = _option(
        None,
        "Conversation: two_turn, single_turn, multi_image, multi_image_two_turn, or your own as "
        "PYTHON_FILE:Name or package.module:Name. Default: the method's own.",
    )
    strict_boxes: bool | None = _option(
        None,
        "Accept only the paper's exact box block, nothing that merely resembles it. Default: the model's mgpo.json, "
        "else off.",
        nargs="?",
        const=True,
    )
    plugins: list[str] = _option(
        [], "Modules or Python files to import first, which register rewards, templates, layouts or model families."
    )

    # Data
    train_data: dict | str | None = _option(
        "haystack:train?n=960&seed=1",
        "Training samples: haystack:SPLIT?n=..&seed=.., a .jsonl or .parquet file, a folder, or a hub id; "
        "more by ?key=value or a mapping in YAML (split, n, columns, layout, images, box_scale, box_format).",
    )
    eval_data: dict | str | None = _option(
        "haystack:val?n=512&seed=7", "Held-out samples, evaluated before and after training; none: no evaluation."
    )
    eval_ood_data: dict | str | None = _option(
        None, "A second held-out set, usually harder; its own rows in the table."
    )
    columns: dict | str | None = _option(
        None, "Our field = your column, as in question=prompt,image=picture, for train and eval data."
    )
    box_scale: BoxScale | None = _option(
        None,
        "What the numbers of true boxes are, in train and eval data: pixels (of the original), 0-1 or 0-1000. "
        "Default: what their layout says, else pixels.",
    )
    box_format: BoxFormat | None = _option(
        None, "How true boxes are written: xyxy (x1, y1, x2, y2; the default) or xywh (x, y, width, height)."
    )
    check_images: Literal["quick", "full"] = _option(
        "quick", "Before training: quick (header and end of each image) or full (decode all)."
    )
    on_bad_sample: Literal["error", "skip"] = _option(
        "error", "error: stop before training at a bad row. skip: leave it out and report it."
    )
    max_bad_fraction: float = _option(0.1, "With on_bad_sample=skip, stop when a larger share of the rows is bad.")

    # Model and image budget
    model: str = _option(
        "haystack:base", "Folder, hub id, or haystack:base / haystack:mgpo / haystack:multi (tiny checkpoints)."
    )
    dtype: Literal["float32", "bfloat16"] = _option(
        "float32", "Type of the weights: float32 (bf16 autocast on a GPU) or bfloat16 (less memory)."
    )
    attn_implementation: str | None = _option(None, "Attention kernel: sdpa, eager, flash_attention_2. Default: best.")
    freeze: list[str] = _option([], "Parts that stay as they are: any of vision, merger, language.")
    min_pixels: int | None = _option(
        None,
        "Minimum pixels of an image shown to the model. Default: the model's mgpo.json, else 200704 (256 tokens of "
        "28x28).",
    )
    max_pixels: int | None = _option(
        None, "Maximum pixels of an image shown to the model. Default: its mgpo.json, else 1003520 (1280 tokens)."
    )
    coordinate_space: Literal["absolute", "0-1000"] | None = _option(
        None,
        "How the model writes boxes: absolute (pixels of its resized input) or 0-1000. Default: its mgpo.json, else "
        "its family's own (Qwen2.5-VL absolute; Qwen2-VL, Qwen3-VL 0-1000).",
    )
    crop_min_side: float | None = _option(
        None,
        "A box is refused unless both sides are longer (pixels of the model's input). Default: the model's mgpo.json, "
        "else 28.",
    )
    crop_max_aspect: float | None = _option(
        None,
        "A box is refused unless its longer side is less than this many times the other. Default: the model's "
        "mgpo.json, else 100.",
    )

    # LoRA
    use_peft: bool = _option(False, "Train LoRA adapters, not the weights themselves.")
    lora_r: int = _option(16, "Rank of the adapters.")
    lora_alpha: int = _option(32, "Scale of the adapters: their output is multiplied by lora_alpha / lora_r.")
    lora_dropout: float = _option(0.0, "Dropout before the adapters; over 0, the loss sees another policy.")
    lora_target_modules: list[str] | None = _option(
        None, "Names of layers that get adapters. Default: every linear layer of the language model's blocks."
    )
    lora_modules_to_save: list[str] | None = _option(None, "Modules that are trained as a whole, as in visual.merger.")
    use_rslora: bool = _option(False, "Scale by lora_alpha / sqrt(lora_r).")
    load_in_4bit: bool = _option(False, "QLoRA: the frozen weights in 4 bits (bitsandbytes, CUDA).")
    load_in_8bit: bool = _option(False, "QLoRA: the frozen weights in 8 bits (bitsandbytes, CUDA).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = _option("nf4", "Kind of 4-bit numbers: nf4 or fp4.")
    use_bnb_nested_quant: bool = _option(False, "Quantise the constants of quantisation too.")

    # Rollouts
    num_generations: int | None = _option(8, "Rollouts per sample: the group over which advantages are computed.")
    max_completion_length: int | None = _option(512, "Maximum tokens per response, per turn.")
    temperature: float = _option(1.0, "Sampling temperature of the rollouts.")
    rollout_batch_size: int | None = _option(
        None, "Episodes decoded at a time (without vLLM). Default: all of a step's rollouts."
    )
    use_vllm: bool = _option(False, "Make the rollouts with vLLM (extra vllm).")
    vllm_mode: Literal["colocate", "server"] = _option(
        "colocate", "colocate: vLLM on the training GPUs. server: a running `vllm serve` (vllm_server_base_url)."
    )
    vllm_options: dict | str | None = _option(
        None, "More arguments of vllm.LLM in colocate mode, as a mapping: {kv_cache_dtype: fp8}."
    )
    max_logprob_gap: float | None = _option(
        None,
        "Stop when rollout engine and trainer disagree by more nats per token in a turn's mean; 0: never. "
        "Default: 0.001 in float32, 0.08 in bfloat16.",
    )
    dynamic_sampling: int = _option(
        0, "Replace groups with all-equal rewards by fresh samples, in at most this many rounds (DAPO). 0: keep them."
    )
    mask_truncated_completions: bool = _option(
        False, "Learn nothing from rollouts of which a turn ran into max_completion_length (DAPO); they are counted."
    )

    # Reward
    rewards: list[str] | None = _option(
        None,
        "Rewards to add up, of accuracy, format, valid_box, for boxes as answers object, image, and your own as "
        "PYTHON_FILE:name or package.module:name. Default: accuracy; mirg: object image format.",
    )
    reward_weights: list[float] | None = _option(None, "One weight for each reward. Default: 1.")
    object_threshold: float | None = _option(
        None, "Object reward: 1 from this IoU on, else 0. Default: the IoU itself."
    )
    difficulty_weighting: bool = _option(
        False, "Boxes as answers: advantages count exp(1 - mean IoU of their group) times (UniVG-R1)."
    )
    reward_control: Literal["none", "shuffle"] = _option(
        "none", "shuffle: deal the rewards out at random over the batch, to show that they matter."
    )

    # Optimisation
    max_steps: int = _option(-1, "Optimiser steps; overrides num_train_epochs when positive.")
    num_train_epochs: float = _option(1.0, "Passes over the training samples.")
    per_device_train_batch_size: int = _option(
        8, "Rollouts (sft: samples) per device and forward pass; a step has this x devices x accumulation steps."
    )
    gradient_accumulation_steps: int = _option(1, "Forward passes per optimiser step.")
    learning_rate: float = _option(1e-6, "Peak learning rate of AdamW.")
    beta: float = _option(0.0, "Weight of the KL term that holds the policy near the start model (the paper: 0.01).")
    bf16: bool | None = _option(None, "bfloat16 autocast. Default: on a GPU that has it.")
    gradient_checkpointing: bool | None = _option(None, "Recompute activations to save memory. Default: on a GPU only.")
    seed: int = _option(42, "Seed of the order of samples, the sampling and the controls.")

    # Evaluation
    eval_samples: int | None = _option(None, "Evaluate on only the first N samples; 0: do not evaluate.")
    eval_greedy: bool = _option(True, "Evaluate with greedy decoding too, beside temperature 1.")
    per_device_eval_batch_size: int = _option(64, "Episodes decoded at a time during evaluation.")
    eval_every: int = _option(
        0,
        "Evaluate before training, every N steps and after the last (greedy), log the scores, and keep the best "
        "checkpoint in best/. 0: only before and after.",
    )
    eval_tasks: list[str] = _option(
        [],
        "Tasks of lmms-eval to evaluate on as well, as in haystack,vstar_bench,mgpo_vstar (needs mgpo-eval).",
    )
    eval_limit: int | None = _option(
        None, "With eval_every or eval_tasks: only the first N samples of eval_data and of each task."
    )
    best_metric: str | None = _option(
        None,
        "The score by which the best checkpoint is chosen, higher is better: eval/accuracy, haystack/accuracy. "
        "Default: accuracy on eval_data, else the first task's first score.",
    )

    # Output
    output_dir: str | None = _option(None, "Folder of the run. Default: outputs/NAME OF THE RECIPE.")
    overwrite: bool = _option(False, "Remove the files that an earlier run wrote into output_dir, and nothing else.")
    plot_every: int = _option(20, "Redraw curves.png every N steps (0: at the end only).")
    report_every: int = _option(20, "Rewrite report.html every N steps (0: at the end only).")
    report_trajectories: int = _option(8, "Trajectories shown in each part of report.html.")
    progress: bool = _option(True, "Show a progress bar with accuracy and hit rate.")
    report_to: str | list[str] = _option("none", "Also send metrics to trackio, wandb, tensorboard ...")
    logging_steps: float = _option(1, "Log every N steps.")
    save_steps: float = _option(20, "Write a checkpoint every N steps.")
    save_total_limit: int | None = _option(2, "Keep the newest N checkpoints.")
    push_to_hub: bool = _option(
        False, "Upload the finished model to the Hugging Face hub: weights, processor, mgpo.json and card alone."
    )
    hub_model_id: str | None = _option(None, "Its repository, OWNER/NAME. Default: the name of output_dir.")
    hub_strategy: Literal["end", "every_save", "checkpoint", "all_checkpoints"] = _option(
        "end",
        "When to upload: end; every_save (the newest checkpoint as the model, too); checkpoint or all_checkpoints "
        "(whole checkpoints, in folders of the repository, too).",
    )


WORDS: dict[str, tuple[str, ...]] = {**literal_words(RunOptions), "freeze": PARTS}
"""What an option takes that is one of a few words, or a list of such."""

GROUPS: dict[str, tuple[str, str]] = {
    # title: (first field, last field), in the order of the class above
    "Method": ("method", "plugins"),
    "Data": ("train_data", "max_bad_fraction"),
    "Model and image budget": ("model", "crop_max_aspect"),
    "LoRA": ("use_peft", "use_bnb_nested_quant"),
    "Rollouts": ("num_generations", "mask_truncated_completions"),
    "Reward": ("rewards", "reward_control"),
    "Optimisation": ("max_steps", "seed"),
    "Evaluation": ("eval_samples", "best_metric"),
    "Output": ("output_dir", "hub_strategy"),
}


def grouped_fields() -> dict[str, list[Any]]:
    """The dataclass fields of `RunOptions`, by group title, in order of declaration."""
    declared = list(fields(RunOptions))
    names = [f.name for f in declared]
    return {title: declared[names.index(first) : names.index(last) + 1] for title, (first, last) in GROUPS.items()}
