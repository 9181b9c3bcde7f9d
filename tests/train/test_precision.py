"""bfloat16: rollouts, evaluation and loss compute in the same type, so that the loss sees the policy that sampled."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from mgpo_core import Episode, PixelBudget, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_train.config.config import MGPOConfig
from mgpo_train.evaluation.evaluate import evaluate
from mgpo_train.training.grpo import MGPOTrainer


def step(tmp_path, **options) -> dict[str, float]:
    """The metrics of one step."""
    settings = {"per_device_train_batch_size": 16, "num_generations": 4, "max_completion_length": 48, "max_steps": 1}
    config = MGPOConfig(output_dir=str(tmp_path), report_to="none", temperature=1.3, **settings, **options)
    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    trainer = MGPOTrainer(model, processor, config, haystack.make("train", n=4, seed=5))
    seen = {}  # types by whether gradients were on: rollouts are made without
    layer = model.model.language_model.layers[0].mlp
    layer.register_forward_hook(lambda m, i, out: seen.setdefault(torch.is_grad_enabled(), set()).add(out.dtype))
    trainer.train()
    expected = {config.autocast_dtype or torch.float32}
    assert seen == {False: expected, True: expected}
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}, "autocast leaves the weights alone"
    return next(row for row in trainer.state.log_history if "loss" in row)


def test_under_autocast_the_rollouts_compute_as_the_loss_does(tmp_path):
    found = step(tmp_path, bf16=True)
    # bfloat16 has 8 bits of mantissa; batches and caches of other shapes round apart in the last of them
    assert found["logprob_gap/turn1"] < 0.01
    assert found["logprob_gap/turn2"] < 0.01


def test_without_autocast_the_gap_is_rounding_in_float32(tmp_path):
    found = step(tmp_path, bf16=False)
    assert found["logprob_gap_max/turn1"] < 1e-3
    assert found["logprob_gap_max/turn2"] < 1e-3


@pytest.mark.parametrize(("bf16", "fp16", "expected"), [(True, False, torch.bfloat16), (False, False, None)])
def test_the_type_of_autocast_follows_the_options(bf16, fp16, expected):
    assert MGPOConfig(bf16=bf16, fp16=fp16).autocast_dtype is expected


def test_an_evaluation_computes_in_the_type_of_the_training():
    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    seen = []
    hook = model.model.language_model.layers[0].mlp.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    options = {"episode": partial(Episode, budget=PixelBudget(3136, 28224)), "max_new_tokens": 16}
    for autocast in (None, torch.bfloat16):
        seen.clear()
        evaluate(model, processor, haystack.make("val", n=2, seed=1), autocast=autocast, **options)
        assert set(seen) == {autocast or torch.float32}
    hook.remove()
