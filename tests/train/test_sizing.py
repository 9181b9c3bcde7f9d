"""`--dry-run` sizes a run from shapes, and agrees with the model that is really built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgpo_core import EngineError, SampleError
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episodes.episode import Episode
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.data import load_samples
from mgpo_train.distributed.sharding_plan import ShardingPlan, find_plan, launched_plan
from mgpo_train.haystack.architecture import build_model, build_processor, build_tokenizer
from mgpo_train.haystack.base import protocol
from mgpo_train.models.policy import freeze_parts, load_policy, part_of
from mgpo_train.sizing.dry_run import print_dry_run
from mgpo_train.sizing.hardware import GIB, HardwareTarget, find_gpu, read_hardware
from mgpo_train.sizing.memory import estimate_memory
from mgpo_train.sizing.shapes import ModelShapes, read_shapes
from mgpo_train.sizing.sizing import Sizing, planned_steps, size_run
from mgpo_train.sizing.step_time import estimate_time

PIXELS = {"min_pixels": 4 * 28 * 28, "max_pixels": 168 * 168}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained checkpoint of haystack's architecture."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer(protocol())
    build_model(tokenizer, seed=0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(tiny: Path) -> MGPOConfig:
    return MGPOConfig(model=str(tiny), freeze=["vision"], max_completion_length=64, eval_data=None, **PIXELS)


@pytest.fixture(scope="module")
def sizing(config: MGPOConfig) -> Sizing:
    return size_run(config, load_samples("haystack:train?n=20&seed=1"))


def test_parameters_are_those_of_the_model_that_a_run_loads(config: MGPOConfig, sizing: Sizing) -> None:
    model, processor = load_policy(config)
    shapes = sizing.shapes
    assert shapes.parameters == sum(p.numel() for p in model.parameters())
    assert shapes.trained_parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < shapes.trained_parameters < shapes.parameters
    assert {part_of(name) for name, _ in model.named_parameters()} == {"vision", "merger", "language"}
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") is not None


def test_prompt_lengths_are_those_of_the_episodes(config: MGPOConfig, sizing: Sizing) -> None:
    _, processor = load_policy(config)
    tokens = TurnTokenizer(processor)
    (sample,) = load_samples("haystack:train?n=1&seed=1")
    episode = Episode(sample, template=config.make_template(), budget=config.budget)
    length = len(tokens.opening(episode.messages))
    assert sizing.tokens.prompt[0] <= length <= sizing.tokens.prompt[2]
    assert sizing.tokens.image == (36, 36, 36)
    assert sizing.tokens.longest >= length + 2 * 64 + 36
    assert sizing.tokens.typical(10_000) <= sizing.tokens.longest


def test_steps_follow_from_samples_and_epochs(config: MGPOConfig, sizing: Sizing) -> None:
    assert (sizing.samples, sizing.prompts_per_step, sizing.rollouts_per_step) == (20, 1, 8)
    assert sizing.steps == 20
    fixed = MGPOConfig(model=config.model, max_steps=3, **PIXELS)
    assert size_run(fixed, load_samples("haystack:train?n=2&seed=1")).steps == 3


def shapes_of(parameters: int, trained: int) -> ModelShapes:
    return ModelShapes(
        parts={"language": parameters},
        trained={"language": trained},
        adapters=0,
        layers=4,
        hidden=128,
        vocabulary=400,
        embedding=0,
        attention=128,
        cache=1024,
        vision_layers=3,
        vision_hidden=96,
    )


def memory(machine: HardwareTarget | None = None, **options: object):
    config = MGPOConfig(**{"model": "haystack:base", **PIXELS, **options})
    return estimate_memory(config, shapes_of(10_000, 8_000), 400, machine or HardwareTarget())


def test_memory_grows_with_what_is_kept() -> None:
    assert memory(beta=0.01).peak == memory().peak + 40_000
    assert memory().held == {"weights": 40_000, "gradients": 32_000, "optimiser": 64_000}
    batch = {n: sum(memory(per_device_train_batch_size=n).update.values()) for n in (8, 16)}
    assert batch[16] > 1.9 * batch[8]
    assert memory(gradient_checkpointing=True).peak < memory(gradient_checkpointing=False).peak
    assert memory(dtype="bfloat16").peak < memory(dtype="float32").peak


@pytest.mark.parametrize(
    ("plan", "weights", "gradients", "optimiser"),
    [
        # of 10,000 numbers 8,000 are trained; bytes per device
        (ShardingPlan("one"), 40_000, 32_000, 64_000),
        (ShardingPlan("ddp", 4, "ddp"), 40_000, 64_000, 64_000),  # gradients and the buckets in which they travel
        (ShardingPlan("zero2", 4, "deepspeed", 2), 20_000, 4_000, 24_000),  # bfloat16, and float32 beside the moments
        (ShardingPlan("zero3", 4, "deepspeed", 3), 5_000, 4_000, 24_000),
        (ShardingPlan("fsdp2", 4, "fsdp", 3), 10_000, 8_000, 16_000),
    ],
)
def test_the_layout_divides_what_it_shards(plan: ShardingPlan, weights: int, gradients: int, optimiser: int) -> None:
    held = memory(HardwareTarget(plan), bf16=True).held
    assert (held["weights"], held["gradients"], held["optimiser"]) == (weights, gradients, optimiser)


def test_what_is_offloaded_leaves_the_device_for_the_host() -> None:
    held = HardwareTarget(
        ShardingPlan("zero3-offload", 4, "deepspeed", 3, offload_optimiser=True, offload_weights=True)
    )
    found = memory(held, bf16=True)
    assert not {"weights", "optimiser"} & set(found.held)
    assert found.host == 20_000 + 8_000 * 12


def test_vllm_takes_its_share_of_the_gpu_and_gives_it_back_when_it_sleeps() -> None:
    machine, share = HardwareTarget(gpu=find_gpu("h200")), {"use_vllm": True, "vllm_gpu_memory_utilization": 0.3}
    asleep, awake = memory(machine, vllm_enable_sleep_mode=True, **share), memory(machine, **share)
    assert asleep.rollout["vLLM"] == awake.held["vLLM"] == int(0.3 * 140.4 * GIB)
    assert awake.peak > asleep.peak
    assert "--gpu" in (memory(use_vllm=True).note or "")


def test_adapters_are_counted_as_they_are_built(tiny: Path) -> None:
    plain = read_shapes(MGPOConfig(model=str(tiny), **PIXELS))
    lora = read_shapes(MGPOConfig(model=str(tiny), use_peft=True, lora_r=4, beta=0.01, **PIXELS))
    assert lora.parts == plain.parts
    # rank x (inputs + outputs) of q, o (128, 128), k, v (128, 64), gate, up, down (128, 256), in four layers
    assert lora.adapters == lora.trained_parameters == 4 * 4 * (2 * 256 + 2 * 192 + 3 * 384)
    config = MGPOConfig(model=str(tiny), use_peft=True, lora_r=4, beta=0.01, **PIXELS)
    held = estimate_memory(config, lora, 400, HardwareTarget()).held
    assert "reference model" not in held, "without its adapters the model is its own reference"
    assert held["optimiser"] == 8 * lora.adapters


def test_the_time_follows_the_formula_of_the_documentation() -> None:
    config = MGPOConfig(
        model="haystack:base", use_vllm=True, beta=0.01, gradient_checkpointing=True, bf16=True,
        gradient_accumulation_steps=2, steps_per_generation=4, **PIXELS,
    )  # fmt: skip
    shapes = read_shapes(MGPOConfig(model="haystack:base"))
    tokens = size_run(MGPOConfig(), load_samples("haystack:train?n=4&seed=1")).tokens
    gpu = find_gpu("h100")
    time = estimate_time(config, shapes, tokens, HardwareTarget(gpu=gpu, response_tokens=20))
    length = tokens.typical(20)
    language = 2 * length * (shapes.parts["language"] + 4 * 128 * length)
    vision = 2 * 36 * (4 * shapes.parts["vision"] + shapes.parts["merger"]) * 2
    rows = 8 * 2
    assert time.update == pytest.approx(rows * 4 * (language + vision) / (0.35 * gpu.flops))
    assert time.scoring == pytest.approx(rows * 2 * (language + vision) / (0.35 * gpu.flops))
    assert time.total == pytest.approx(time.rollouts + time.scoring + time.update)
    longer = estimate_time(config, shapes, tokens, HardwareTarget(gpu=gpu, response_tokens=40))
    assert longer.rollouts > 1.5 * time.rollouts
    assert estimate_time(config, shapes, tokens, HardwareTarget()) is None


def test_layouts_are_read_from_accelerates_files_and_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    zero3 = find_plan("zero3")
    assert (zero3.kind, zero3.stage, zero3.share(1), zero3.offload_optimiser) == ("deepspeed", 3, zero3.devices, False)
    assert find_plan("zero3-offload").offload_optimiser
    zero2 = find_plan("zero2")
    assert zero2.share(3) == 1 < zero2.share(2)
    assert find_plan("fsdp2").kind == "fsdp"
    assert find_plan("one-gpu") == ShardingPlan("one-gpu")
    environment = {"WORLD_SIZE": "4", "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}
    assert launched_plan(environment) == ShardingPlan("as launched", 4, "deepspeed", 2)
    assert launched_plan({}) is None
    recipe = {"accelerate": "zero3", "devices": 16, "gpu": "h100"}
    assert read_hardware(recipe, {}).plan.devices == 16
    asked = read_hardware(recipe, {"accelerate": "ddp", "devices": "2", "gpu": "A100-80GB"})
    assert (asked.plan.kind, asked.plan.devices, asked.gpu) == ("ddp", 2, find_gpu("a100-80gb"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert read_hardware(recipe, {}).plan == ShardingPlan("as launched", 2, "ddp")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"accelerate": "zero33"}, "did you mean 'zero3'"),
        ({"gpu": "h10"}, "did you mean 'h100'"),
        ({"devices": "0"}, "devices='0': give a positive whole number"),
    ],
)
def test_a_machine_that_is_not_known_is_refused(asked: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_hardware({}, asked)


def test_the_dry_run_prints_options_data_and_size(config: MGPOConfig, capsys: pytest.CaptureFixture[str]) -> None:
    print_dry_run(config, {"model": config.model, "epsilon": 0.2})
    text = capsys.readouterr().out
    for line in ("method: mgpo", f"model: {config.model}  # given", "epsilon: 0.2  # given", "train: 960 samples"):
        assert line in text
    for word in ("samples  ", "tokens per image  36", "longest sequence", "parameters", "memory (at most)"):
        assert word in text


def test_the_dry_run_tells_budget_and_earlier_run_and_refuses_before_it_prints(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    data = {"train_data": "haystack:train?n=8", "eval_data": None}
    print_dry_run(MGPOConfig(model="haystack:base", output_dir=str(tmp_path), **data), {})
    text = capsys.readouterr().out
    assert "min_pixels: 3136\nmax_pixels: 28224\n" in text
    assert "holds an earlier run (metrics.jsonl)" in text
    with pytest.raises(SampleError, match="no such file or folder"):
        print_dry_run(MGPOConfig(train_data="photos"), {})
    with pytest.raises(EngineError, match="no model folder"):
        print_dry_run(MGPOConfig(model=str(tmp_path / "nowhere"), **PIXELS), {})
    assert capsys.readouterr().out == ""


def test_sft_keeps_no_second_copy_of_the_model() -> None:
    config = MGPOConfig(method="sft")
    config.beta = 0.1
    assert "reference model" not in estimate_memory(config, shapes_of(10_000, 8_000), 400, HardwareTarget()).held
    config.method = "mgpo"
    held = estimate_memory(config, shapes_of(10_000, 8_000), 400, HardwareTarget()).held
    assert held["reference model"] == held["weights"] == 40_000


def test_an_incomplete_last_batch_counts_for_sft_alone() -> None:
    options = {"per_device_train_batch_size": 8, "num_train_epochs": 2}
    assert planned_steps(MGPOConfig(method="sft", **options), 20) == 6
    assert planned_steps(MGPOConfig(method="mgpo", num_generations=2, **options), 22) == 10


def test_freezing_names_parts_that_exist(config: MGPOConfig) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"freeze='merger'.*no parameters"):
        freeze_parts(model, ["merger"])


def test_rollouts_that_serve_several_steps_make_as_many_steps_as_trl_takes() -> None:
    # 8 rollouts = 4 samples a step, 16 rollouts = 8 samples at a time: 21 samples are two rounds of two steps
    options = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 4}
    config = MGPOConfig(method="mgpo", num_generations=2, **options)
    assert planned_steps(config, 21) == 4
    assert planned_steps(config, 21, devices=2) == 2
