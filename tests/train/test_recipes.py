"""Every shipped recipe loads, and those that are compared differ only where they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mgpo_train.config import recipes as recipe_files
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.config.parser import make_config
from mgpo_train.data.run_data import load_data
from mgpo_train.sizing.dry_run import assumed_samples, print_dry_run
from mgpo_train.sizing.hardware import HardwareTarget, find_gpu, read_hardware
from mgpo_train.sizing.sizing import Sizing, size_run

NAMES = recipe_files.names()


def load(name: str) -> MGPOConfig:
    path = recipe_files.find(name)
    config, _ = make_config(path, recipe_files.read(path), [])
    return config


def test_the_recipes_that_the_documentation_names_are_there() -> None:
    assert {"haystack-mgpo", "haystack-grpo", "haystack-sft", "haystack-mgpo-shuffled", "photos"} <= set(NAMES)
    assert {"haystack-mirg-sft", "haystack-mirg-rl", "qwen2.5-vl-7b-mirg-sft", "qwen2.5-vl-7b-mirg"} <= set(NAMES)
    assert {f"qwen2.5-vl-7b-{rest}" for rest in ("mgpo", "grpo", "sft", "mgpo-640", "mgpo-lora")} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_valid_configuration_with_a_description(name: str) -> None:
    assert 20 < len(recipe_files.description(recipe_files.find(name))) < 110
    config = load(name)
    assert config.output_dir == f"outputs/{name}"
    # a checkpoint in the middle of a batch of rollouts could not be gone on from exactly
    if config.method != "sft":
        steps = config.steps_per_generation * config.num_iterations / config.gradient_accumulation_steps
        assert config.save_steps % steps == 0


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


MIRG = [name for name in NAMES if name.startswith("qwen") and "mirg" in name]
PAPER = [name for name in NAMES if name.startswith("qwen") and name not in MIRG]


def hardware_of(name: str) -> HardwareTarget:
    return read_hardware(recipe_files.read(recipe_files.find(name))["machine"], {})


def sized(name: str) -> Sizing:
    """The size of a recipe on the machine that it names, without the hub."""
    config = load(name)
    return size_run(config, load_data(config, unreachable=assumed_samples).train, hardware_of(name))


def test_the_paper_s_run_has_the_paper_s_numbers() -> None:
    config, devices = load("qwen2.5-vl-7b-mgpo"), hardware_of("qwen2.5-vl-7b-mgpo").plan.devices
    made = config.per_device_train_batch_size * config.steps_per_generation * devices
    a_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * devices
    assert (devices, config.num_generations) == (8, 8)
    assert made == 512 * 8
    assert a_step == 128 * 8
    assert (config.learning_rate, config.beta) == (1e-6, 0.01)
    assert (config.max_completion_length, config.vllm_max_model_length) == (8192, 12192)
    assert (config.num_train_epochs, config.vllm_tensor_parallel_size) == (15, 2)
    assert config.gradient_checkpointing and config.rewards == ["accuracy"]
    assert (config.budget.min_pixels, config.budget.max_pixels) == (256 * 28 * 28, 1280 * 28 * 28)
    # 42 whole batches of 512 prompts in 21,690, four steps each, fifteen times
    assert sized("qwen2.5-vl-7b-mgpo").steps == 42 * 4 * 15


def test_the_paper_s_controls_differ_from_its_run_in_what_they_control() -> None:
    read = {name: recipe_files.read(recipe_files.find(name)) for name in PAPER}
    mgpo = read["qwen2.5-vl-7b-mgpo"]
    differing = {
        name: {key for key in {*mgpo, *options} if mgpo.get(key) != options.get(key)} - {"description"}
        for name, options in read.items()
    }
    assert differing["qwen2.5-vl-7b-grpo"] == {"method"}
    assert differing["qwen2.5-vl-7b-mgpo-640"] == {"max_pixels"}
    assert differing["qwen2.5-vl-7b-grpo-640"] == {"method", "max_pixels"}
    for method in ("mgpo", "grpo", "sft"):
        assert load(f"qwen2.5-vl-7b-{method}-640").budget.max_pixels == 640 * 28 * 28
    sft, full = load("qwen2.5-vl-7b-sft"), load("qwen2.5-vl-7b-mgpo")
    for name in ("model", "train_data", "eval_data", "eval_ood_data", "budget", "freeze", "seed"):
        assert getattr(sft, name) == getattr(full, name), name
    assert sized("qwen2.5-vl-7b-sft").prompts_per_step == 128, "as many samples as a step of the runs with rollouts"


PARAMETERS = {"Qwen2.5-VL-7B": 8_292_166_656, "Qwen2.5-VL-3B": 3_754_622_976, "Qwen3-VL-8B": 8_767_123_696}
"""Numbers in the published weights."""


@pytest.mark.parametrize("name", PAPER)
def test_a_full_size_recipe_is_sized_without_the_hub_and_fits_its_machine(name: str) -> None:
    found = sized(name)
    model = load(name).model.removeprefix("Qwen/").removesuffix("-Instruct")
    assert sum(found.shapes.parts.values()) == PARAMETERS[model]
    assert found.samples == 21_690
    assert found.memory.peak < 0.9 * found.machine.gpu.memory
    assert found.time is not None and 1 < found.time.total < 3600
    assert any("hub was not reached" in line for line in found.lines())
    assert any("no tokenizer at hand" in line for line in found.lines())


def test_the_stages_of_mirg_follow_each_other_on_the_same_data() -> None:
    for first, second in (("haystack-mirg-sft", "haystack-mirg-rl"), ("qwen2.5-vl-7b-mirg-sft", "qwen2.5-vl-7b-mirg")):
        sft, rl = recipe_files.read(recipe_files.find(first)), recipe_files.read(recipe_files.find(second))
        assert (sft["method"], rl["method"]) == ("sft", "mirg")
        assert sft["template"] == rl.get("template", "multi_image") == "multi_image"
        assert rl["model"] == f"outputs/{first}/model"
        assert sft["eval_data"] == rl["eval_data"] and sft["freeze"] == rl["freeze"]
        assert set(rl["rewards"]) == {"object", "image", "format"} and len(rl["reward_weights"]) == 3


@pytest.mark.parametrize("name", MIRG)
def test_the_stages_of_mirg_fit_their_machine_with_several_images_a_sample(name: str) -> None:
    path, data = recipe_files.find(name), "haystack_multi:train?n=64&images=4&solutions=true"
    options = recipe_files.read(path)
    given = ["--train_data", data, "--model", "Qwen/Qwen2.5-VL-7B-Instruct"]
    config, _ = make_config(path, options, given)
    found = size_run(config, load_data(config).train, hardware_of(name))
    assert found.memory.peak < 0.9 * found.machine.gpu.memory
    image = 576  # tokens of 672 x 672 pixels
    assert found.tokens.prompt[2] > 4 * image
    assert any(line.startswith("it fits") for line in found.lines())


def test_without_sharding_the_paper_s_run_would_not_fit() -> None:
    config = load("qwen2.5-vl-7b-mgpo")
    samples = load_data(config, unreachable=assumed_samples).train
    found = size_run(config, samples, HardwareTarget(gpu=find_gpu("h100")))
    assert any(line.startswith("it does not fit") for line in found.lines())


def test_the_dry_run_of_the_paper_s_recipe_says_what_it_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    name = "qwen2.5-vl-7b-mgpo-640"
    path = recipe_files.find(name)
    options = recipe_files.read(path)
    print_dry_run(*make_config(path, options, []), read_hardware(options["machine"], {"response_tokens": "100"}))
    text = capsys.readouterr().out
    assert text.count("NOT REACHED") == 3
    for words in ("21690 samples from xinyu1205", "1919 samples", "191 samples", "8 x H100 80 GB, accelerate: zero3"):
        assert words in text
    for words in ("parameters        8,292,166,656", "responses of 100 (assumed", "time (estimate)", "it fits"):
        assert words in text


def test_a_recipe_may_stand_on_another(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("description: one\nbase: haystack-mgpo\nseed: 3\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\nmax_steps: 7\n")
    options = recipe_files.read(tmp_path / "second.yaml")
    assert (options["method"], options["seed"], options["max_steps"]) == ("mgpo", 3, 7)
    assert options["description"] == "one" and "base" not in options
    (tmp_path / "first.yaml").write_text("base: second.yaml\n")
    with pytest.raises(ConfigError, match="base leads back to second.yaml"):
        recipe_files.read(tmp_path / "second.yaml")
    (tmp_path / "first.yaml").write_text("base: haystack-mgop\n")
    with pytest.raises(ConfigError, match=r"first\.yaml: base: .*did you mean 'haystack-mgpo'"):
        recipe_files.read(tmp_path / "first.yaml")


def test_accelerates_configurations_are_yaml() -> None:
    files = list((Path(recipe_files.FOLDER).parent / "accelerate").glob("*.yaml"))
    assert files
    for path in files:
        options = yaml.safe_load(path.read_text())
        assert options["distributed_type"] in ("NO", "MULTI_GPU", "DEEPSPEED", "FSDP")
        assert options["num_processes"] >= 1
