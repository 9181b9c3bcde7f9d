"""The gap between rollout engine and trainer is nearly nothing, and a run stops when something breaks it."""

from __future__ import annotations

import math

import pytest
import torch
from training_faults import FAULTS

from mgpo_core import haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_train.config.config import MGPOConfig
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.logprob_gap import LogprobGapError, LogprobGapGuard, TurnGap, gaps_by_turn, turn_numbers


@pytest.fixture(scope="module")
def make_trainer(tmp_path_factory):
    processor, samples = load_processor("haystack:base"), haystack.make("train", n=4, seed=11)

    def make(**options):
        config = MGPOConfig(
            output_dir=str(tmp_path_factory.mktemp("run")),
            per_device_train_batch_size=32,
            num_generations=8,
            max_completion_length=40,
            max_steps=1,
            seed=3,
            report_to="none",
            **options,
        )
        trainer = MGPOTrainer(load_model("haystack:base"), processor, config, samples)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    return make


def score(trainer):
    rows = [{"prompt": trainer.train_dataset[i]["prompt"], "sample": i} for i in range(4) for _ in range(8)]
    trainer._compute_loss(trainer.model, trainer._generate_and_score_completions(rows))
    return {name: values[-1] for name, values in trainer._metrics["train"].items()}


def test_nothing_broken_leaves_a_gap_of_rounding_errors(make_trainer):
    metrics = score(make_trainer())
    assert 0 < metrics["logprob_gap/turn1"] < 1e-5 and 0 < metrics["logprob_gap/turn2"] < 1e-5


@pytest.mark.parametrize("fault", ["crop dropped", "crop shifted by 3 cells", "linear positions"])
def test_a_broken_second_turn_stops_the_run_and_the_first_turn_is_cleared(make_trainer, fault):
    trainer = make_trainer()
    with (
        FAULTS[fault](trainer),
        pytest.raises(LogprobGapError, match=r"step 1: .* about turn 2 by .* inserted image"),
    ):
        score(trainer)
    metrics = trainer._metrics["train"]
    assert metrics["logprob_gap/turn1"][-1] < 1e-5 < 1e-3 < metrics["logprob_gap/turn2"][-1]


def test_a_first_turn_that_was_encoded_again_stops_the_run(make_trainer):
    # hot enough that the policy spells some boxes in pieces that the tokenizer would join
    trainer = make_trainer(temperature=2.5)
    with FAULTS["turn 1 encoded again"](trainer), pytest.raises(LogprobGapError, match="about turn 1"):
        score(trainer)


def test_the_alarm_can_be_switched_off(make_trainer):
    trainer = make_trainer(max_logprob_gap=0.0)
    with FAULTS["linear positions"](trainer):
        assert score(trainer)["logprob_gap/turn2"] > 0.01


def test_turn_gaps_are_means_and_maxima_over_the_tokens_of_each_turn():
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 1, 1]])
    trainer = torch.tensor([[1.0, 2.0, 9.0, 9.0, 0.0], [1.0, 9.0, 9.0, 4.0, 0.0]])
    gaps = gaps_by_turn(trainer, torch.zeros(2, 5), turn_numbers(mask))
    assert gaps == [TurnGap(1, pytest.approx(4 / 3), 2.0, 3), TurnGap(2, pytest.approx(4 / 3), 4.0, 3)]
    assert gaps_by_turn(trainer, trainer, torch.zeros_like(mask)) == []


@pytest.mark.parametrize(
    ("mean", "limit", "alarm"), [(0.1, 0.05, True), (0.01, 0.05, False), (math.nan, 0.05, True), (9.0, 0.0, False)]
)
def test_a_gap_over_the_limit_or_without_a_value_raises(mean, limit, alarm):
    gap = TurnGap(1, mean, mean, LogprobGapGuard.TOKENS)
    if not alarm:
        LogprobGapGuard(limit).add([gap], step=7)
        return
    with pytest.raises(LogprobGapError, match="step 7: .*--max_logprob_gap"):
        LogprobGapGuard(limit).add([gap], step=7)


def test_small_batches_are_judged_together():
    alarm, odd, plain = LogprobGapGuard(0.05), TurnGap(2, 0.3, 3.0, 10), TurnGap(2, 0.01, 0.1, 60)
    alarm.add([odd], step=1)
    alarm.add([plain], step=1)
    alarm.add([plain], step=2)  # 130 tokens, mean 0.03
    for step in range(12):
        alarm.add([odd], step=step)
    with pytest.raises(LogprobGapError, match="turn 2 by 0.3 "):
        alarm.add([odd], step=13)
