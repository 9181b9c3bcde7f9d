"""Names that are not known: what is suggested is what people mean by them, and never what only looks alike."""

from __future__ import annotations

import ast
import contextlib
import re
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgpo_core.messages.suggest import SYNONYMS, check_words, literal_words, nearest

OPTIONS = [
    "adam_beta1",
    "adam_epsilon",
    "beta",
    "cast_lm_head_to_fp32",
    "dtype",
    "hub_model_id",
    "log_completions_hub_repo",
    "num_iterations",
    "vllm_gpu_memory_utilization",
    "vllm_options",
    "bf16",
    "columns",
    "coordinate_space",
    "crop_max_aspect",
    "crop_min_side",
    "deepspeed",
    "dry_run",
    "epsilon",
    "epsilon_high",
    "eval_data",
    "eval_every",
    "eval_greedy",
    "eval_samples",
    "eval_steps",
    "freeze",
    "gradient_accumulation_steps",
    "hub_token",
    "learning_rate",
    "logging_steps",
    "lora_alpha",
    "lora_dropout",
    "lora_r",
    "lora_target_modules",
    "lr_scheduler_type",
    "max_completion_length",
    "max_grad_norm",
    "max_pixels",
    "max_steps",
    "method",
    "min_pixels",
    "model",
    "num_generations",
    "num_train_epochs",
    "optim",
    "output_dir",
    "overwrite",
    "per_device_eval_batch_size",
    "per_device_train_batch_size",
    "report_to",
    "resume",
    "reward_weights",
    "rewards",
    "save_steps",
    "save_total_limit",
    "seed",
    "temperature",
    "template",
    "top_k",
    "top_p",
    "train_data",
    "use_peft",
    "use_vllm",
    "vllm_max_model_length",
    "vllm_mode",
    "vllm_tensor_parallel_size",
    "warmup_steps",
    "weight_decay",
    "attn_implementation",
    "run_name",
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "learning_rate"),
        ("batch_size", "per_device_train_batch_size"),
        ("bs", "per_device_train_batch_size"),
        ("epochs", "num_train_epochs"),
        ("num-epochs", "num_train_epochs"),
        ("grad_accum", "gradient_accumulation_steps"),
        ("warmup", "warmup_steps"),
        ("group_size", "num_generations"),
        ("n", "num_generations"),
        ("actor_rollout_ref.rollout.n", "num_generations"),
        ("actor_rollout_ref.actor.optim.lr", "learning_rate"),
        ("data.train_files", "train_data"),
        ("kl_coef", "beta"),
        ("kl_beta", "beta"),
        ("max_tokens", "max_completion_length"),
        ("max_new_tokens", "max_completion_length"),
        ("max_response_length", "max_completion_length"),
        ("max_model_len", "vllm_max_model_length"),
        ("dataset", "train_data"),
        ("train_file", "train_data"),
        ("dataset_name", "train_data"),
        ("output", "output_dir"),
        ("outputDir", "output_dir"),
        ("save_path", "output_dir"),
        ("model_name_or_path", "model"),
        ("pretrained", "model"),
        ("temp", "temperature"),
        ("wandb", "report_to"),
        ("deepspeed_config", "deepspeed"),
        ("random_seed", "seed"),
        ("SEED", "seed"),
        ("eval", "eval_data"),
        ("clip_ratio", "epsilon"),
        ("lora_rank", "lora_r"),
        ("lora_alpa", "lora_alpha"),
        ("resume_from", "resume"),
        ("max_length", "max_completion_length"),
        ("image_max_pixels", "max_pixels"),
        ("tensor_parallel_size", "vllm_tensor_parallel_size"),
        ("learning_rat", "learning_rate"),
        ("num_generation", "num_generations"),
        ("reward_weight", "reward_weights"),
        ("optimizer", "optim"),
        ("greedy", "eval_greedy"),
        ("token", "hub_token"),
        ("save_freq", "save_steps"),
        ("flash_attn", "attn_implementation"),
        ("betas", "adam_beta1"),
        ("eps", "adam_epsilon"),
        ("fp32", "dtype"),
        ("max_samples", "train_data"),
        ("hub_repo", "hub_model_id"),
        ("lr_warmup_ratio", "warmup_steps"),
        ("gradient_clip_val", "max_grad_norm"),
        ("adapter_name_or_path", "model"),
        ("dataset_dir", "train_data"),
        ("enforce_eager", "vllm_options"),
        ("gpu_memory_util", "vllm_gpu_memory_utilization"),
        ("actor_rollout_ref.model.path", "model"),
        ("num_ppo_epochs", "num_iterations"),
    ],
)
def test_what_is_meant_is_suggested(name: str, meant: str) -> None:
    assert nearest(name, OPTIONS) == f"did you mean {meant!r}?"


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("crop", ["crop_max_aspect", "crop_min_side"]),
        ("pixels", ["max_pixels", "min_pixels"]),
        ("top", ["top_k", "top_p"]),
    ],
)
def test_of_several_all_are_named(name: str, some: list[str]) -> None:
    assert nearest(name, OPTIONS) == f"did you mean one of {', '.join(map(repr, some))}?"


@pytest.mark.parametrize(
    "name", ["foo", "x", "zzz", "verbose", "quiet", "steering", "", "_", "---", "lo", "ref_policy"]
)
def test_what_only_looks_alike_is_not_suggested(name: str) -> None:
    assert nearest(name, OPTIONS) == "see --help"
    assert nearest(name, ["mgpo", "grpo"]) == "known are grpo, mgpo"


@dataclass
class Words:
    colour: Literal["red", "blue"] = "red"
    shape: Literal["square"] | None = None
    n: int = 1


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"colour": "blue", "shape": None, "n": 7}, None),
        ({}, None),
        ({"colour": "blu"}, "here: colour='blu': did you mean 'blue'?"),
        ({"colour": 3}, "here: colour=3: known are blue, red"),
        ({"shape": ["square", "cube"]}, "here: shape='cube': known are square"),
    ],
)
def test_words_are_checked_against_the_literals_of_a_dataclass(values: dict, wrong: str | None) -> None:
    words = literal_words(Words)
    assert words == {"colour": ("red", "blue"), "shape": ("square",)}
    with contextlib.nullcontext() if wrong is None else pytest.raises(KeyError, match=re.escape(wrong)):
        check_words(values, words, KeyError, "here: ")


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=50))
def test_a_hint_names_only_what_is_known(name: str, known: list[str]) -> None:
    hint = nearest(name, known)
    if hint.startswith("did you mean one of "):
        assert all(one in known for one in ast.literal_eval("[" + hint[20:-1] + "]"))
    elif hint.startswith("did you mean "):
        assert ast.literal_eval(hint[13:-1]) in known
    else:
        assert hint.startswith(("known are ", "see --help"))


def test_every_name_in_the_table_is_an_option() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("mgpo_eval")
    import dataclasses

    from mgpo_eval.models.options import ModelOptions
    from mgpo_train.cli import FLAGS, MACHINE
    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.config.data_spec import DataSpec

    train = {field.name for field in dataclasses.fields(MGPOConfig)} | {flag.lstrip("-") for flag in FLAGS}
    evaluation = {field.name for field in dataclasses.fields(ModelOptions)}
    data = {field.name for field in dataclasses.fields(DataSpec)}
    demo = {"server"}
    assert set(SYNONYMS) <= train | evaluation | data | demo | set(MACHINE)
    for options in (train, evaluation, data):
        words = [word for ours, theirs in SYNONYMS.items() if ours in options for word in theirs]
        # a word that stands for two options of one command would hide one of them
        doubled = {word for word in words if words.count(word) > 1 and word not in options}
        assert doubled <= {"backend", "model_name", "model_path", "model_name_or_path", "model_id", "checkpoint"}, (
            doubled
        )
