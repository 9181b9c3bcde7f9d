"""SFT: labels on the response alone, images in place, and a loss that falls on what can be learnt."""

from __future__ import annotations

import pytest
import torch

from mgpo_core import Sample, SampleError, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_train.config.config import MGPOConfig
from mgpo_train.output.metrics import MetricsLog
from mgpo_train.training.callbacks import attach
from mgpo_train.training.sft import AnswerCollator, check_sft_sample, make_trainer


def make_config(folder, **options) -> MGPOConfig:
    settings = {"per_device_train_batch_size": 4, "max_steps": 1, "report_to": "none", "progress": False, **options}
    return MGPOConfig(output_dir=str(folder), method="sft", **settings)


def test_labels_cover_the_boxed_answer_and_the_end_of_turn_alone(tmp_path):
    tokens = TurnTokenizer(load_processor("haystack:base"))
    samples = haystack.make("train", n=3, seed=2)
    batch = AnswerCollator(samples, tokens, make_config(tmp_path))([{"sample": i} for i in range(3)])
    for row, sample in enumerate(samples):
        taught = batch["labels"][row][batch["labels"][row] != -100].tolist()
        assert tokens.decode(taught) == f"\\boxed{{{sample.answer}}}<|im_end|>"
        where = (batch["labels"][row] != -100).nonzero()[:, 0]
        assert torch.equal(batch["input_ids"][row, where], batch["labels"][row, where])
        assert batch["attention_mask"][row, where[-1] + 1 :].sum() == 0
    assert int(batch["mm_token_type_ids"].sum()) == 3 * 36
    assert batch["image_grid_thw"].tolist() == [[1, 12, 12]] * 3


def test_a_sample_without_an_answer_is_refused_by_name():
    with pytest.raises(SampleError, match="'s7'"):
        check_sft_sample(Sample(question="?", images=(), id="s7"), with_box=False)


def test_training_moves_the_loss_and_leaves_frozen_parts_alone(tmp_path):
    from mgpo_train.models.policy import freeze_parts

    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    freeze_parts(model, ["vision"])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    samples = haystack.make("train", n=2, seed=2) * 2  # two answers to learn by heart
    log = MetricsLog(tmp_path)
    config = make_config(tmp_path, max_steps=8, learning_rate=2e-3, save_steps=8)
    trainer = make_trainer(model, processor, config, samples)
    attach(trainer, log, config)
    trainer.train()
    assert (tmp_path / "checkpoint-8" / "trainer_state.json").is_file()
    assert not list(tmp_path.rglob("README.md")), "upstream's model card describes another kind of run"
    losses = [row["loss"] for row in log.rows()]
    assert len(losses) == 8 and losses[-1] < 0.5 * losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and not any(name.startswith("model.visual.") and "merger" not in name for name in moved)
