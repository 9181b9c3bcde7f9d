"""Liger: its layers are applied where the package is installed, its losses never are."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from mgpo_core import haystack
from mgpo_train.config.config import MGPOConfig
from mgpo_train.models.policy import load_policy
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.sft import make_trainer


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What transformers asks of Liger, by a package that only writes it down."""
    calls: list[dict] = []
    package, layers = ModuleType("liger_kernel"), ModuleType("liger_kernel.transformers")
    package.__spec__, package.__path__ = ModuleSpec("liger_kernel", None), []
    layers._apply_liger_kernel_to_instance = lambda **given: calls.append(given)
    monkeypatch.setitem(sys.modules, "liger_kernel", package)
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", layers)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda *args: True)
    return calls


@pytest.mark.parametrize("method", ["mgpo", "sft"])
@pytest.mark.filterwarnings("ignore:.*use_liger_kernel.*:FutureWarning")
def test_liger_brings_layers_and_leaves_the_loss_to_trl(tmp_path, applied, method):
    config = MGPOConfig(
        output_dir=str(tmp_path), method=method, use_liger_kernel=True, max_steps=1, report_to="none",
        per_device_train_batch_size=4, num_generations=4, max_completion_length=8,
    )  # fmt: skip
    model, processor = load_policy(config)
    trainer = (make_trainer if method == "sft" else MGPOTrainer)(
        model, processor, config, haystack.make("train", n=4, seed=5)
    )
    trainer.train()
    (call,) = applied
    assert call["model"] is model
    # a fused loss would not know of the tokens that the sampler may not choose
    assert call["fused_linear_cross_entropy"] is False
    assert any("loss" in row for row in trainer.state.log_history)


@pytest.mark.gpu
def test_liger_s_own_layers_train_on_a_gpu(tmp_path):
    pytest.importorskip("liger_kernel")
    config = MGPOConfig(
        output_dir=str(tmp_path), use_liger_kernel=True, max_steps=1, report_to="none",
        per_device_train_batch_size=4, num_generations=4, max_completion_length=24,
    )  # fmt: skip
    model, processor = load_policy(config)
    trainer = MGPOTrainer(model, processor, config, haystack.make("train", n=4, seed=5))
    trainer.train()
    found = next(row for row in trainer.state.log_history if "loss" in row)
    assert found["logprob_gap/turn1"] < 0.02
