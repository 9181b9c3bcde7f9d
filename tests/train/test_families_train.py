"""Training and options by model family: the loss sees what the engine of another family saw; spaces and factors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import PATCH, budget_of, build_model, build_processor, make_tiny, question

from mgpo_core import CoordinateSpace, PixelBudget
from mgpo_core.engines.turn_tokens import message_images
from mgpo_core.errors import EngineError
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.distributed.dummy_image import DummyImage
from mgpo_train.models.policy import load_policy
from mgpo_train.training.grpo import MGPOTrainer

ABSOLUTE, RELATIVE = CoordinateSpace.ABSOLUTE, CoordinateSpace.RELATIVE_1000


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return make_tiny("qwen3_vl", tmp_path_factory.mktemp("qwen3"))


def make_trainer(folder, out, **options):
    """A trainer of four samples, four rollouts each, in the checkpoint's own space and factor."""
    budget = budget_of("qwen3_vl")
    config = MGPOConfig(
        model=str(folder),
        output_dir=str(out),
        min_pixels=budget.min_pixels,
        max_pixels=budget.max_pixels,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=30,
        temperature=0.7,  # valid boxes and others
        rewards=["accuracy", "valid_box"],
        learning_rate=1e-3,
        seed=3,
        report_to="none",
        **options,
    )
    assert config.budget == budget and config.space is RELATIVE
    samples = [question(150 + 60 * index, 400 - 50 * index, index) for index in range(4)]
    return MGPOTrainer(*load_policy(config), config, samples)


def test_training_steps_on_qwen3_vl_move_all_its_parts_and_leave_no_gap(qwen3, tmp_path):
    trainer = make_trainer(qwen3, tmp_path, max_steps=2, beta=0.0)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    seen = []  # images in each pass of the vision tower that the loss learns from
    trainer.model.model.visual.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["grid_thw"])) if torch.is_grad_enabled() else None,
        with_kwargs=True,
    )
    trainer.train()
    rows = [row for row in trainer.state.log_history if "logprob_gap/turn1" in row]
    assert len(rows) == 2
    for row in rows:
        assert row["logprob_gap_max/turn1"] < 1e-4 and row["logprob_gap_max/turn2"] < 1e-4
    assert seen == [32, 32]  # 16 rollouts of two images
    for part in ("visual.patch_embed", "visual.merger", "visual.deepstack_merger_list.1", "language_model.layers.2"):
        moved = [not torch.equal(w, before[n]) for n, w in trainer.model.named_parameters() if part in n]
        assert moved and any(moved), part


def test_log_probabilities_of_the_trainer_and_the_engine_equal_brute_force(qwen3, tmp_path):
    trainer = make_trainer(qwen3, tmp_path, max_steps=1)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [{"prompt": trainer.train_dataset[i]["prompt"], "sample": i} for i in range(4) for _ in range(4)]
    inputs = trainer._generate_and_score_completions(rows)
    names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        inputs["completion_ids"].shape[1],
        **{name: inputs[name] for name in names},
    )
    crops = 0
    for row, trajectory in enumerate(trainer._rollouts.trajectories):
        record, images = trajectory.tokens, message_images(trajectory.messages)
        crops += trajectory.turns[0].box_original is not None
        ids = torch.tensor([record.ids])
        kinds = (ids == trainer.tokens.image_id).int()
        trainer.model.model.rope_deltas = None
        with torch.no_grad():
            output = trainer.model(
                input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **trainer.tokens.pixels(images)
            )
        logits = output.logits[0, :-1] / trainer.temperature
        logits[:, torch.from_numpy(trainer.tokens.forbidden_mask(logits.shape[1]))] = float("-inf")
        own = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[record.prompt_length - 1 :, 0]
        sampled = torch.tensor(record.mask[record.prompt_length :]) > 0
        recorded = torch.tensor(record.logprobs[record.prompt_length :])
        torch.testing.assert_close(logps[row, : len(own)][sampled], own[sampled], atol=1e-4, rtol=0)
        torch.testing.assert_close(recorded[sampled], own[sampled], atol=1e-4, rtol=0)
    assert 0 < crops < 16, "both crops and refused boxes are to be compared"


@pytest.fixture
def described(tmp_path):
    """A function that makes a folder which holds a configuration alone."""

    def folder(config):
        config.save_pretrained(tmp_path / config.model_type)
        return str(tmp_path / config.model_type)

    return folder


@pytest.mark.parametrize(
    ("config", "space"),
    [
        (transformers.Qwen2VLConfig(), RELATIVE),
        (transformers.Qwen2_5_VLConfig(), ABSOLUTE),
        (transformers.Qwen3VLConfig(), RELATIVE),
        (transformers.Qwen3VLMoeConfig(), RELATIVE),
    ],
    ids=list(PATCH),
)
def test_space_and_factor_are_the_models_own(described, config, space):
    options = MGPOConfig(model=described(config))
    assert options.space is space
    assert options.budget == PixelBudget(factor=2 * PATCH[config.model_type])


def test_a_shipped_checkpoint_has_its_familys_space_and_the_worlds_budget():
    config = MGPOConfig(model="haystack:base")
    assert config.space is ABSOLUTE and config.budget.factor == 28


def test_a_model_of_no_known_family_is_refused_until_its_space_is_given(described):
    folder = described(transformers.LlavaConfig())
    with pytest.raises(ConfigError, match=r"absolute pixels of its resized input, or 0-1000\? set coordinate_space"):
        MGPOConfig(model=folder).space  # noqa: B018
    for space in CoordinateSpace:
        assert MGPOConfig(model=folder, coordinate_space=space.value).space is space


def test_a_space_against_the_familys_own_is_taken_and_told(described):
    folder = described(transformers.Qwen3VLConfig())
    with pytest.warns(UserWarning, match="coordinate_space=absolute is given.*write boxes as 0-1000"):
        assert MGPOConfig(model=folder, coordinate_space="absolute").space is ABSOLUTE


def test_a_space_that_agrees_is_not_worth_a_word(described, recwarn):
    folder = described(transformers.Qwen3VLConfig())
    assert MGPOConfig(model=folder, coordinate_space="0-1000").space is RELATIVE
    assert not [warning for warning in recwarn if "coordinate_space" in str(warning.message)]


def test_options_of_an_unreachable_model_fail_only_when_needed():
    config = MGPOConfig(model="nobody/knows-this-model")
    for name in ("space", "budget"):
        with pytest.raises(EngineError, match="configuration of model='nobody/knows-this-model'.*network"):
            getattr(config, name)
    assert MGPOConfig(model="nobody/knows-this-model", coordinate_space="absolute").space is ABSOLUTE


def test_a_budget_smaller_than_a_visual_token_of_the_model_is_refused(described):
    config = MGPOConfig(model=described(transformers.Qwen3VLConfig()), min_pixels=1, max_pixels=1000)
    with pytest.raises(ConfigError, match=r"max_pixels >= factor\*\*2"):
        config.budget  # noqa: B018


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_the_dummy_image_hangs_on_every_parameter_of_the_vision_tower(model_type):
    model = build_model(model_type, build_processor(model_type).tokenizer)
    nothing = DummyImage(model)._nothing()
    nothing.backward()
    assert nothing == 0
    tower = dict(model.model.visual.named_parameters())
    assert len(tower) > 20 and [name for name, weight in tower.items() if weight.grad is None] == []
