"""`freeze` names parts: they stay as they are to the bit, the others move, whatever the method."""

from __future__ import annotations

import pytest
import torch

from mgpo_core import haystack
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import PARTS
from mgpo_train.models.policy import load_policy, part_of
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.sft import make_trainer


def changed_parts(tmp_path, method: str, **options) -> set[str | None]:
    """Parts of which anything has changed after two steps; weight decay, which needs no gradient, is on."""
    settings = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 24, "max_steps": 2}
    config = MGPOConfig(
        output_dir=str(tmp_path), method=method, learning_rate=1e-2, weight_decay=0.1, report_to="none",
        **settings, **options,
    )  # fmt: skip
    model, processor = load_policy(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    samples = haystack.make("train", n=4, seed=5)
    trainer = (make_trainer if method == "sft" else MGPOTrainer)(model, processor, config, samples)
    trainer.train()
    return {part_of(name) for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    "frozen", [[], ["vision"], ["merger"], ["language"], ["vision", "merger"], ["merger", "language"]], ids="+".join
)
def test_frozen_parts_are_unchanged_and_the_others_are_not(tmp_path, frozen):
    assert changed_parts(tmp_path, "sft", freeze=frozen) == set(PARTS) - set(frozen)


@pytest.mark.parametrize("frozen", [["vision"], ["language"]], ids="+".join)
def test_frozen_parts_are_unchanged_after_steps_of_mgpo(tmp_path, frozen):
    # rewards that differ within every group, so that there is something to learn
    options = {"temperature": 1.5, "rewards": ["accuracy", "format", "valid_box"], "seed": 1}
    assert changed_parts(tmp_path, "mgpo", freeze=frozen, **options) == set(PARTS) - set(frozen)


@pytest.mark.parametrize("frozen", [[], ["vision"]], ids=["all", "vision"])
def test_frozen_parts_are_unchanged_under_gradient_checkpointing(tmp_path, frozen):
    found = changed_parts(tmp_path, "sft", freeze=frozen, gradient_checkpointing=True)
    assert found == set(PARTS) - set(frozen)


def test_checkpointing_changes_nothing_but_memory(tmp_path):
    weights = []
    for checkpointing in (False, True):
        config = MGPOConfig(
            output_dir=str(tmp_path), method="sft", max_steps=2, per_device_train_batch_size=4, report_to="none",
            learning_rate=1e-3, gradient_checkpointing=checkpointing,
        )  # fmt: skip
        model, processor = load_policy(config)
        make_trainer(model, processor, config, haystack.make("train", n=8, seed=5)).train()
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)
