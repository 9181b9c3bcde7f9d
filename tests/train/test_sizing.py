"""`--dry-run` sizes a run from shapes, and agrees with the model that is really built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mgpo_core import EngineError, SampleError
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.episode import Episode
from mgpo_train.config import MGPOConfig
from mgpo_train.data import load_samples
from mgpo_train.dry_run import print_dry_run
from mgpo_train.haystack.architecture import build_model, build_processor, build_tokenizer
from mgpo_train.haystack.base import protocol
from mgpo_train.model import freeze_parts, load_policy, part_of
from mgpo_train.options import ConfigError
from mgpo_train.sizing import Sizing, estimate_memory, planned_steps, size_run

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
    assert sizing.parameters == sum(p.numel() for p in model.parameters())
    assert sizing.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < sizing.trained < sizing.parameters
    assert {part_of(name) for name, _ in model.named_parameters()} == {"vision", "merger", "language"}
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") is not None


def test_prompt_lengths_are_those_of_the_episodes(config: MGPOConfig, sizing: Sizing) -> None:
    _, processor = load_policy(config)
    tokens = TurnTokenizer(processor)
    (sample,) = load_samples("haystack:train?n=1&seed=1")
    episode = Episode(sample, template=config.make_template(), budget=config.budget)
    length = len(tokens.opening(episode.messages))
    assert sizing.prompt_tokens[0] <= length <= sizing.prompt_tokens[2]
    assert sizing.image_tokens == (36, 36, 36)
    assert sizing.sequence_tokens >= length + 2 * 64 + 36


def test_steps_follow_from_samples_and_epochs(config: MGPOConfig, sizing: Sizing) -> None:
    assert (sizing.samples, sizing.prompts_per_step, sizing.rollouts_per_step) == (20, 1, 8)
    assert sizing.steps == 20
    fixed = MGPOConfig(model=config.model, max_steps=3, **PIXELS)
    assert size_run(fixed, load_samples("haystack:train?n=2&seed=1")).steps == 3


def test_memory_grows_with_what_is_kept(config: MGPOConfig) -> None:
    def total(**options: object) -> int:
        changed = MGPOConfig(**{"model": config.model, **PIXELS, **options})
        return sum(estimate_memory(changed, 400, 300, 10_000, 8_000).values())

    assert total(beta=0.01) == total() + 40_000
    assert total(per_device_train_batch_size=16) > 1.9 * total(per_device_train_batch_size=8)
    assert total(gradient_checkpointing=True) < total(gradient_checkpointing=False)
    assert total(dtype="bfloat16") < total(dtype="float32")


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
    assert estimate_memory(config, 400, 300, 10_000, 8_000)["weights"] == 40_000
    config.method = "mgpo"
    assert estimate_memory(config, 400, 300, 10_000, 8_000)["weights"] == 80_000


def test_an_incomplete_last_batch_counts_for_sft_alone() -> None:
    options = {"per_device_train_batch_size": 8, "num_train_epochs": 2}
    assert planned_steps(MGPOConfig(method="sft", **options), 20) == 6
    assert planned_steps(MGPOConfig(method="mgpo", num_generations=2, **options), 22) == 10


def test_freezing_names_parts_that_exist(config: MGPOConfig) -> None:
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"freeze='merger'.*no parameters"):
        freeze_parts(model, ["merger"])
