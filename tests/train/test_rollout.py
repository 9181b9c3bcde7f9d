"""Rollouts reach the loss whole: copies share images, what was sampled is kept, and what does not add up is refused."""

from __future__ import annotations

import copy

import pytest
import torch

from mgpo_core import TokenAlignmentError, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_train.config.config import MGPOConfig
from mgpo_train.training.grpo import MGPOTrainer, _check_features
from mgpo_train.training.rollout import collect, make_episodes


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Four trajectories (two samples, two rollouts each) and the tokenizer of their engine."""
    config = MGPOConfig(output_dir=str(tmp_path_factory.mktemp("run")), max_completion_length=32, report_to="none")
    first, second = haystack.make("train", n=2, seed=4)
    episodes = make_episodes([first, first, second, second], config)
    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    engine = TransformersEngine(model, processor, max_new_tokens=32, temperature=1.0, seed=0)
    return engine.run(episodes), engine.tokenizer


def test_neighbouring_copies_of_a_sample_share_their_images(tmp_path):
    first, second = haystack.make("train", n=2, seed=4)
    episodes = make_episodes([first, first, second], MGPOConfig(output_dir=str(tmp_path), report_to="none"))
    assert episodes[0].images[0] is episodes[1].images[0]
    assert episodes[0].images[0] is not episodes[2].images[0]
    assert episodes[0].trajectory is not episodes[1].trajectory


def test_completions_are_sampled_tokens_around_the_inserted_turn(played):
    trajectories, tokens = played
    rollouts = collect(trajectories, tokens)
    for row, trajectory in enumerate(trajectories):
        record = trajectory.tokens
        assert rollouts.prompt_ids[row] + rollouts.completion_ids[row] == record.ids
        assert len(rollouts.images[row]) == 2
        assert sum(rollouts.mask[row]) == sum(turn.tokens for turn in trajectory.turns)
        unsampled = [i for i, m in zip(rollouts.completion_ids[row], rollouts.mask[row], strict=True) if not m]
        assert unsampled.count(tokens.image_id) == 36


@pytest.mark.parametrize(
    "damage", ["image token lost", "image lost", "mask too short", "prompt in the mask", "no tokens"]
)
def test_a_trajectory_that_does_not_add_up_is_refused_by_name(played, damage):
    trajectories, tokens = played
    broken = copy.deepcopy(trajectories[2])
    record = broken.tokens
    if damage == "image token lost":
        at = len(record.ids) - 1 - record.ids[::-1].index(tokens.image_id)
        for row in (record.ids, record.mask, record.logprobs):
            del row[at]
    elif damage == "image lost":
        broken.messages[-2]["content"] = [p for p in broken.messages[-2]["content"] if p["type"] == "text"]
    elif damage == "mask too short":
        del record.mask[-1]
    elif damage == "prompt in the mask":
        record.mask[0] = 1
    else:
        broken.tokens = None
    with pytest.raises(TokenAlignmentError, match=broken.sample_id):
        collect([*trajectories[:2], broken], tokens)


def test_a_batch_that_lost_its_images_on_the_way_to_the_loss_is_refused(played):
    trajectories, tokens = played
    rollouts = collect(trajectories, tokens)
    grids = torch.tensor([tokens.grid(image) for images in rollouts.images for image in images])
    width = max(map(len, rollouts.completion_ids))
    completions = torch.tensor([ids + [tokens.pad_id] * (width - len(ids)) for ids in rollouts.completion_ids])
    output = {"prompt_ids": torch.tensor(rollouts.prompt_ids), "completion_ids": completions}
    whole = {**output, "pixel_values": torch.zeros(1), "image_grid_thw": grids}
    _check_features(whole, rollouts, tokens)
    for lost in (output, {**whole, "image_grid_thw": grids[:-1]}):
        with pytest.raises(TokenAlignmentError, match="without the images"):
            _check_features(lost, rollouts, tokens)
    completions[1, completions[1].tolist().index(tokens.image_id)] = tokens.pad_id
    with pytest.raises(TokenAlignmentError, match=trajectories[1].sample_id):
        _check_features(whole, rollouts, tokens)


def test_a_step_whose_images_upstream_drops_is_refused(tmp_path, monkeypatch):
    config = MGPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=8,
        max_steps=1, report_to="none",
    )  # fmt: skip
    trainer = MGPOTrainer(
        load_model("haystack:base"), load_processor("haystack:base"), config, haystack.make("train", n=2, seed=4)
    )
    generate = trainer._generate

    def one_image_short(prompts):
        *rest, images, _ = generate(prompts)
        images = [images[0][:-1], *images[1:]]
        return (*rest, images, images)

    monkeypatch.setattr(trainer, "_generate", one_image_short)
    with pytest.raises(TokenAlignmentError, match="without the images"):
        trainer.train()


def test_the_policy_never_samples_a_token_that_would_break_the_images(tmp_path):
    """Even a policy that wants nothing but image tokens: they are impossible, for the sampler and in the loss."""
    config = MGPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, num_generations=2, max_completion_length=8,
        max_steps=1, learning_rate=1e-4, report_to="none", save_steps=100,
    )  # fmt: skip
    model, processor = load_model("haystack:base"), load_processor("haystack:base")
    tokens = TurnTokenizer(processor)
    with torch.no_grad():
        embedding = model.get_output_embeddings().weight
        embedding[tokens.image_id] = embedding[tokens.end_id] * 4
    trainer = MGPOTrainer(model, processor, config, haystack.make("train", n=2, seed=4))
    trainer.train()
    for trajectory in trainer._rollouts.trajectories:
        sampled = [trajectory.tokens.ids[at] for start, end in trajectory.tokens.spans for at in range(start, end)]
        assert not set(sampled) & set(tokens.forbidden)
    logged = next(row for row in trainer.state.log_history if "logprob_gap/turn1" in row)
    assert logged["logprob_gap/turn1"] < 1e-4 and logged["logprob_gap/turn2"] < 1e-4
