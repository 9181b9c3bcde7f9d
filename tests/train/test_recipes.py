"""Every shipped recipe loads, and those that are compared differ only where they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mgpo_train import recipe_files
from mgpo_train.command_line import make_config
from mgpo_train.config import MGPOConfig

NAMES = recipe_files.names()


def load(name: str) -> MGPOConfig:
    path = recipe_files.find(name)
    config, _ = make_config(path, recipe_files.read(path), [])
    return config


def test_the_recipes_that_the_documentation_names_are_there() -> None:
    assert {"haystack-mgpo", "haystack-grpo", "haystack-sft", "haystack-mgpo-shuffled", "photos"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_valid_configuration_with_a_description(name: str) -> None:
    assert 20 < len(recipe_files.description(recipe_files.find(name))) < 110
    config = load(name)
    assert config.output_dir == f"outputs/{name}"
    # a checkpoint in the middle of a generation could not be gone on from exactly
    if config.method != "sft":
        assert config.steps_per_generation == config.gradient_accumulation_steps
        assert config.num_iterations == 1


def test_the_control_is_the_same_run_with_shuffled_rewards() -> None:
    mgpo = recipe_files.read(recipe_files.find("haystack-mgpo"))
    control = recipe_files.read(recipe_files.find("haystack-mgpo-shuffled"))
    assert control.pop("reward_control") == "shuffle"
    del mgpo["description"], control["description"]
    del mgpo["eval_ood_data"]  # one more evaluation after the run, not a part of the training
    assert control == mgpo


def test_the_baselines_have_the_same_model_samples_steps_and_budget() -> None:
    mgpo, grpo, sft = (load(f"haystack-{method}") for method in ("mgpo", "grpo", "sft"))
    for name in ("model", "train_data", "eval_data", "max_steps", "freeze", "seed", "budget", "prompts_per_step"):
        assert getattr(mgpo, name) == getattr(grpo, name) == getattr(sft, name), name
    assert (mgpo.method, grpo.method, sft.method) == ("mgpo", "grpo", "sft")
    assert (mgpo.template, grpo.template, sft.template) == ("two_turn", "single_turn", "single_turn")


def test_the_evaluation_is_held_out_and_large_enough() -> None:
    config = load("haystack-mgpo")
    assert config.eval_data.startswith("haystack:val")
    assert config.train_data.startswith("haystack:train")
    assert "n=512" in config.eval_data
    assert config.eval_samples is None


def test_accelerates_configurations_are_yaml() -> None:
    files = list((Path(recipe_files.FOLDER).parent / "accelerate").glob("*.yaml"))
    assert files
    for path in files:
        options = yaml.safe_load(path.read_text())
        assert options["distributed_type"] in ("NO", "MULTI_GPU", "DEEPSPEED")
        assert options["num_processes"] >= 1
