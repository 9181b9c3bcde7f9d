"""What somebody probably meant by a name that is not known: of an option, a column, a method (no torch)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mgpo_core.messages.shown import show

__all__ = ["SYNONYMS", "check_words", "literal_words", "nearest"]

_TABLE = """\
learning_rate: lr actor_lr base_lr peak_lr step_size
per_device_train_batch_size: train_micro_batch_size_per_gpu bs batch batch_size micro_batch_size mini_batch_size
per_device_train_batch_size: ppo_mini_batch_size ppo_micro_batch_size_per_gpu device_batch_size
per_device_eval_batch_size: val_batch_size test_batch_size
batch_size: bs batch
gradient_accumulation_steps: grad_accum grad_acc accumulation_steps accum accumulate_grad_batches grad_accum_steps gas
num_train_epochs: epoch n_epochs total_epochs max_epochs
max_steps: steps total_steps train_steps total_training_steps iterations
warmup_steps: lr_warmup_ratio warmup_ratio lr_warmup warmup_proportion
weight_decay: wd
max_grad_norm: gradient_clip_val gradient_clip grad_clip clip_grad gradient_clipping clip_grad_norm
lr_scheduler_type: lr_decay_style scheduler lr_scheduler schedule warmup_style
optim: optimizer_type optimizer_name optimizer optimiser opt
adam_beta1: betas
seed: random_seed manual_seed rng_seed global_seed random_state
num_generations: n rollout_n group_size group g num_rollouts rollouts n_rollouts n_samples_per_prompt
num_generations: num_return_sequences samples_per_prompt num_samples_per_prompt
max_completion_length: max_tokens max_new_tokens max_response_length response_length max_length max_output_tokens
max_completion_length: generate_max_len max_gen_len
max_new_tokens: max_completion_length max_response_length response_length max_length max_output_tokens
vllm_max_model_length: max_seq_length max_seq_len context_length cutoff_len max_total_length max_context_length
vllm_max_model_length: max_prompt_length
max_model_len: max_seq_length context_length
temperature: temp sampling_temperature
beta: use_kl_loss kl_penalty_coef kl_coef kl_beta kl_loss_coef kl_coeff kl_weight init_kl_coef kl
epsilon: clip_ratio clip_range clip_eps clip_ratio_low ppo_clip clip
adam_epsilon: eps
num_iterations: ppo_epochs num_ppo_epochs mu
scale_rewards: norm_adv_by_std_in_grpo normalize_advantages
hub_model_id: hub_repo hub_repo_id repo_id
vllm_options: max_num_seqs vllm_max_num_seqs max_num_batched_tokens enforce_eager vllm_enforce_eager
vllm_options: enable_chunked_prefill vllm_kwargs engine_kwargs
vllm_enable_sleep_mode: free_cache_engine sleep_level
epsilon_high: clip_ratio_high cliprange_high clip_eps_high
loss_type: loss loss_agg_mode loss_fn
rewards: reward_fn_path custom_reward_function external_plugins reward_type reward reward_funcs reward_functions
rewards: reward_func reward_function reward_model
method: advantage_estimator algorithm algo adv_estimator trainer rlhf_type train_type training_type
train_data: max_samples max_train_samples dataset_dir dataset_name_or_path train_dataset_path data dataset datasets
train_data: dataset_name dataset_path train_file train_files train_set data_path data_files prompt_data
eval_data: eval val_file val_files validation_file validation_data test_data eval_file test_file val
columns: column_mapping column_names field_mapping prompt_key image_key answer_key
output_dir: out save_path save_dir output_path default_local_dir log_dir checkpoint_dir work_dir
pretrained: model_name model_name_or_path model_path model_id checkpoint
model: adapter adapters adapter_path adapter_name_or_path lora_path model_name model_name_or_path pretrained model_path
model: model_id pretrained_model base_model checkpoint actor_model
dtype: fp32 float32 torch_dtype precision mixed_precision weights_dtype
attn_implementation: attention flash_attn flash_attention use_flash_attention use_flash_attn flash_attention_2
freeze: freeze_vision freeze_vision_tower freeze_vision_modules freeze_multi_modal_projector freeze_aligner vision
freeze: language merger
max_pixels: image_resolution max_image_size
min_pixels: min_image_size
coordinate_space: coords bbox_format bbox_type norm_bbox box_space
template: prompt_template chat_template conversation prompt_style
use_peft: lora use_lora tuner_type finetuning_type
lora_r: lora_rank rank r lora_dim
lora_alpha: alpha
lora_target_modules: target_modules
load_in_4bit: qlora 4bit quantization_bit
use_vllm: vllm engine backend rollout_backend rollout_engine infer_backend inference_backend
engine: backend infer_backend
vllm_mode: rollout_mode vllm_deployment
vllm_tensor_parallel_size: tp rollout_tp vllm_tp
tensor_parallel_size: tp
vllm_gpu_memory_utilization: gpu_memory_util vllm_gpu_util gpu_mem
report_to: wandb use_wandb tracker trackers tracking logger loggers log_with tensorboard log_to
run_name: experiment_name exp_name wandb_name
project: wandb_project project_name
deepspeed: zero2 zero3 deepspeed_config ds_config zero zero_stage
fsdp: fsdp_config_file fully_sharded
resume: resume_from resume_training resume_from_path resume_ckpt_path continue_training restore resume_mode
overwrite: overwrite_output_dir force overwrite_output clobber
save_steps: save_every save_freq save_interval checkpoint_every checkpointing_steps ckpt_every ckpt_interval
save_total_limit: max_checkpoints keep_checkpoints max_ckpt_num max_actor_ckpt_to_keep keep_last_n
logging_steps: log_every log_freq log_interval logging_freq logging_interval
eval_every: eval_freq test_freq eval_interval val_freq val_check_interval evaluation_steps eval_frequency
eval_tasks: task benchmarks benchmark
eval_samples: eval_size n_eval eval_n
devices: n_gpu gpus num_gpus n_gpus n_gpus_per_node num_processes nproc_per_node nproc world_size nnodes ngpu gpu_count
dynamic_sampling: filter_groups filter_overlong dapo_filter resample
mask_truncated_completions: overlong_filter overlong_filtering
gradient_checkpointing: grad_ckpt activation_checkpointing
bf16: bfloat16 use_bf16
fp16: half float16 use_fp16
n: limit num num_samples max_samples samples count rows max_rows
images: image_folder image_dir image_root media_dir img_dir image_base_dir
schema: format data_format dataset_type type
name: config subset config_name
split: partition fold
concurrency: num_concurrent workers num_workers parallel
url: base_url api_base server endpoint
server: url base_url api_base endpoint
"""

SYNONYMS: dict[str, list[str]] = {}
"""Known names with what other frameworks and people call them: the first that is an option here is suggested."""

for _line in _TABLE.splitlines():
    _name, _, _words_for_it = _line.partition(":")
    SYNONYMS.setdefault(_name, []).extend(_words_for_it.split())

FEW = 40
"""How many known names are listed where none is near."""

MOST = 6
"""Maximum number of suggestions."""


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A hint for an unknown name: what is probably meant; else `otherwise`, by default the known ones when few.

    In this order: another spelling (`Learning-Rate`), another framework's word, a slip of the finger, known names that
    hold the same words. Rather nothing than something that only looks alike (`lr` is not `lora_r`).
    """
    names = sorted(known)
    ways = (_other_spelling, _synonym, _with_its_words, _slip, _made_of_its_words)
    found = next((found for way in ways if 0 < len(found := way(name, names)) <= MOST), [])
    if len(found) == 1:
        return f"did you mean {found[0]!r}?"
    if found:
        return f"did you mean one of {', '.join(map(repr, found))}?"
    return otherwise or (f"known are {', '.join(names)}" if len(names) <= FEW else "see --help")


@cache
def literal_words(kind: type) -> Mapping[str, tuple[str, ...]]:
    """The words that fields of a dataclass take: of those annotated with a `Literal`, or one and None."""
    hints = {name: (hint, *get_args(hint)) for name, hint in get_type_hints(kind).items()}
    literals = {name: [part for part in parts if get_origin(part) is Literal] for name, parts in hints.items()}
    return {name: get_args(found[0]) for name, found in literals.items() if found}


def check_words(
    values: Mapping[str, Any], words: Mapping[str, Collection[str]], error: type[Exception], where: str = ""
) -> None:
    """Raise `error` for the first of the values (or the first in a list of them) that is not one of its words.

    Only a word of about its length is suggested: `cxcywh` is not `xywh`.
    """
    for name, known in words.items():
        given = values.get(name)
        for value in given if isinstance(given, list | tuple) else [given]:
            if value is not None and getattr(value, "value", value) not in known:
                alike = [word for word in known if abs(len(word) - len(str(value))) <= 1]
                hint = nearest(str(value), alike, f"known are {', '.join(sorted(known))}")
                raise error(f"{where}{name}={show(value)}: {hint}")


def _plain(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(" ", "_").strip("_")


def _joined(name: str) -> str:
    return _plain(name).replace("_", "")


def _other_spelling(name: str, names: Collection[str]) -> list[str]:
    return [one for one in names if _joined(one) == _joined(name)]


def _synonym(name: str, names: Collection[str]) -> list[str]:
    """By the table; of a dotted name the last parts count (`actor_rollout_ref.rollout.n`, `...model.path`)."""
    parts = name.split(".")
    asked = {_joined("_".join(parts[at:])) for at in range(len(parts))}
    for ours, theirs in SYNONYMS.items():
        if ours in names and asked & {_joined(one) for one in (ours, *theirs)}:
            return [ours]
    return []


def _slip(name: str, names: Collection[str]) -> list[str]:
    """The most similar name, where most of its letters are there, and in order."""
    plain = {_plain(one): one for one in names}
    cutoff = 0.75 if len(name) > 3 else 0.8
    return [plain[one] for one in difflib.get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)]


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[_.]", _plain(name)) if word]


def _with_its_words(name: str, names: Collection[str]) -> list[str]:
    """The names that hold all words of this one (`crop`: `crop_min_side`, `crop_max_aspect`)."""
    asked = _words(name)
    if max(map(len, asked), default=0) < 3:
        return []
    return [one for one in names if set(asked) <= set(_words(one))]


def _made_of_its_words(name: str, names: Collection[str]) -> list[str]:
    """The names of several words that this one holds all of, else those that it is the beginning of."""
    asked = set(_words(name))
    held = [one for one in names if len(_words(one)) > 1 and set(_words(one)) <= asked]
    return held or [one for one in names if len(name) > 3 and _plain(one).startswith(_plain(name))]
