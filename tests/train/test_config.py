"""Options: defaults that work on any machine, and refusals that say what to do."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from trl import GRPOConfig, TrlParser

from mgpo_core import CoordinateSpace, PixelBudget
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError, RunOptions, grouped_fields


def test_the_defaults_work_without_a_gpu() -> None:
    config = MGPOConfig()
    assert config.use_cpu is not torch.accelerator.is_available()
    if config.use_cpu:
        assert not config.bf16
        assert not config.gradient_checkpointing
    assert config.report_to == []
    assert config.remove_unused_columns is False
    assert config.prompts_per_step * config.num_generations == config.per_device_train_batch_size


@pytest.mark.parametrize(
    ("method", "template"), [("mgpo", "two_turn"), ("grpo", "single_turn"), ("sft", "single_turn")]
)
def test_the_method_chooses_the_template(method: str, template: str) -> None:
    config = MGPOConfig(method=method)
    assert config.template == template
    assert config.make_template().name == template


def test_the_three_methods_share_budget_and_samples_by_default() -> None:
    configs = [MGPOConfig(method=method) for method in ("mgpo", "grpo", "sft")]
    assert len({config.budget for config in configs}) == 1
    assert len({config.train_data for config in configs}) == 1


def test_the_budget_is_the_worlds_for_its_checkpoints_and_the_papers_otherwise() -> None:
    assert MGPOConfig(model="haystack:base").budget == PixelBudget(min_pixels=4 * 28 * 28, max_pixels=168 * 168)
    paper = "Qwen/Qwen2.5-VL-7B-Instruct"  # its shapes are shipped
    assert MGPOConfig(model=paper).budget == PixelBudget(200_704, 1_003_520)
    assert MGPOConfig(model=paper, max_pixels=501_760).budget == PixelBudget(200_704, 501_760)


def test_coordinate_spaces_are_named() -> None:
    assert MGPOConfig(coordinate_space="absolute").space is CoordinateSpace.ABSOLUTE
    with pytest.warns(UserWarning, match="coordinate_space=0-1000 is given"):  # haystack's checkpoints are Qwen2.5-VLs
        assert MGPOConfig(coordinate_space="0-1000").space is CoordinateSpace.RELATIVE_1000


def test_sft_takes_any_batch_size() -> None:
    assert MGPOConfig(method="sft", per_device_train_batch_size=7).prompts_per_step == 7


def test_columns_may_be_written_as_text() -> None:
    columns = {"question": "prompt", "answer": "model.truth"}
    assert MGPOConfig(columns="question=prompt, answer=model.truth").columns == columns
    assert MGPOConfig(columns='{"question": "prompt", "answer": "model.truth"}').columns == columns
    assert MGPOConfig(columns="none").columns is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "mgop"}, "did you mean 'mgpo'"),
        ({"template": "two_turns"}, "two_turn"),
        ({"method": "sft", "template": "two_turn"}, "leave template out"),
        ({"train_data": ""}, "train_data is empty"),
        ({"on_bad_sample": "ignore"}, "known are error, skip"),
        ({"check_images": "yes"}, "known are full, quick"),
        ({"max_bad_fraction": 5}, "between 0 and 1"),
        ({"freeze": ["visoin"]}, "did you mean 'vision'"),
        ({"freeze": ["vision", "merger", "language"]}, "nothing is left to train"),
        ({"coordinate_space": "relativ"}, "coordinate_space"),
        ({"min_pixels": 2_000_000, "max_pixels": 1_000_000}, "min_pixels <= max_pixels"),
        ({"model": "some/model", "max_pixels": 100_000}, "set both"),
        ({"rewards": ["acuracy"]}, "did you mean 'accuracy'"),
        ({"rewards": []}, "at least accuracy"),
        ({"rewards": ["accuracy"], "reward_weights": [1.0, 2.0]}, "2 numbers for 1 rewards"),
        ({"reward_control": "shufle"}, "did you mean 'shuffle'"),
        ({"per_device_train_batch_size": 12, "num_generations": 8}, "try per_device_train_batch_size=8"),
        ({"num_generations": 1}, "at least 2 rollouts"),
        ({"report_every": -1}, "0 or a positive number"),
        ({"dtype": "float8"}, "did you mean 'float32'"),
        ({"model": ""}, "model is empty"),
        ({"output_dir": " "}, "output_dir is empty: name a folder"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end=True: .*set eval_every"),
        ({"eval_strategy": "steps"}, "eval_strategy=steps: .*set eval_every"),
        ({"eval_on_start": True}, "eval_on_start=True: .*set eval_every"),
        ({"metric_for_best_model": "accuracy"}, "metric_for_best_model=accuracy: .*best_metric"),
        ({"train_data": "none"}, "train_data is none"),
        ({"train_data": "{oops"}, "is not JSON"),
        ({"columns": "question"}, "columns: 'question' maps nothing: write columns=question=prompt"),
        ({"columns": {"question": 3}}, "not a mapping of names"),
        ({"use_vllm": True, "vllm_mode": "colocated"}, "did you mean 'colocate'"),
        ({"use_vllm": True, "method": "sft"}, "has no rollouts"),
        ({"method": "sft", "rewards": ["format"]}, r"rewards=\['format'\] has no effect with method=sft"),
        ({"method": "sft", "reward_control": "shuffle"}, "reward_control='shuffle' has no effect"),
        ({"method": "sft", "beta": 0.1}, r"beta=0\.1 has no effect"),
    ],
)
def test_a_wrong_option_says_what_to_do(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MGPOConfig(**options)


def test_upstreams_options_stay_and_trl_parses_ours() -> None:
    assert {f.name for f in dataclasses.fields(GRPOConfig)} <= {f.name for f in dataclasses.fields(MGPOConfig)}
    (config,) = TrlParser((MGPOConfig,)).parse_args_and_config(
        ["--method", "grpo", "--freeze", "vision", "merger", "--columns", '{"question": "prompt"}', "--epsilon", "0.3"]
    )
    assert (config.method, config.freeze, config.columns) == ("grpo", ["vision", "merger"], {"question": "prompt"})
    assert config.epsilon == 0.3


def test_every_option_of_ours_has_help_and_a_group() -> None:
    grouped = [option for options in grouped_fields().values() for option in options]
    assert [option.name for option in grouped] == [field.name for field in dataclasses.fields(RunOptions)]
    assert all(option.metadata["help"].endswith((".", ")", "...")) for option in grouped)


def test_a_missing_vllm_is_told_when_a_run_starts_and_not_by_its_sizing(monkeypatch):
    monkeypatch.setattr("mgpo_train.config.config.find_spec", lambda name: None)
    config = MGPOConfig(use_vllm=True)
    with pytest.raises(ConfigError, match=r"pip install -e 'packages/mgpo-train\[vllm\]'"):
        config.check_installed()
    MGPOConfig().check_installed()
