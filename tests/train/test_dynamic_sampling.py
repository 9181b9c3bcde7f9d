"""Groups without an advantage make room for fresh samples, up to a bound, and over-long rollouts teach nothing."""

from __future__ import annotations

import pytest
import torch

from mgpo_core import haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_train.config.config import MGPOConfig
from mgpo_train.rewards import REWARDS
from mgpo_train.training.dynamic_sampling import resample, zero_variance_groups
from mgpo_train.training.grpo import MGPOTrainer

GROUP, GROUPS, SAMPLES = 4, 3, 12


def trainer_of(tmp_path, **options):
    config = MGPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=GROUP * GROUPS,
        num_generations=GROUP,
        max_steps=1,
        seed=3,
        report_to="none",
        **{"max_completion_length": 40, **options},
    )
    trainer = MGPOTrainer(
        load_model("haystack:base"), load_processor("haystack:base"), config, haystack.make("train", n=SAMPLES, seed=11)
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def rows_of(trainer):
    return [trainer.train_dataset[i] for i in range(GROUPS) for _ in range(GROUP)]


def test_flat_groups_are_those_whose_rewards_are_all_equal():
    assert zero_variance_groups([0, 0, 1, 0, 1, 1, 0.5, 0.5], 2) == [0, 2, 3]
    assert zero_variance_groups([0, 1, 1, 0], 2) == []


def test_fresh_samples_are_new_and_equal_on_every_process():
    drawn = resample(3, 10, [0, 1, 2, 2], 7, 1)
    assert drawn == resample(3, 10, [0, 1, 2, 2], 7, 1)
    assert len(set(drawn)) == 3 and not set(drawn) & {0, 1, 2}
    assert resample(3, 10, [0, 1, 2], 7, 2) != drawn
    assert len(resample(5, 4, [0, 1], 7, 1)) == 5


def test_a_flat_group_is_replaced_whole_and_what_stays_flat_is_counted(tmp_path, monkeypatch):
    # sample 0 is hopeless, the others are right every other time
    seen = []

    def reward(trajectory):
        seen.append(trajectory.sample_id)
        return 0.0 if trajectory.sample_id == "haystack-train-11-0" else float(len(seen) % 2)

    monkeypatch.setitem(REWARDS.entries, "accuracy", reward)
    trainer = trainer_of(tmp_path, dynamic_sampling=3)
    output = trainer._generate_and_score_completions(rows_of(trainer))
    ids = [t.sample_id for t in trainer._rollouts.trajectories]
    assert "haystack-train-11-0" not in ids
    assert len(set(ids[:GROUP])) == 1 and ids[GROUP:] == [
        f"haystack-train-11-{i}" for i in (1, 2) for _ in range(GROUP)
    ]
    assert trainer._metrics["train"]["dynamic_sampling/replaced_groups"] == [1]
    assert trainer._metrics["train"]["dynamic_sampling/flat_groups_left"] == [0]
    assert (output["advantages"].reshape(GROUPS, GROUP).abs().max(dim=1).values > 0).all()
    # the ids that the loss sees are those of the replacement
    assert trainer._inputs[0]["sample"] == int(ids[0].rsplit("-", 1)[1])


def test_the_bound_ends_the_search_and_off_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS.entries, "accuracy", lambda trajectory: 0.0)
    trainer = trainer_of(tmp_path / "on", dynamic_sampling=2)
    trainer._generate_and_score_completions(rows_of(trainer))
    assert trainer._metrics["train"]["dynamic_sampling/replaced_groups"] == [2 * GROUPS]
    assert trainer._metrics["train"]["dynamic_sampling/flat_groups_left"] == [GROUPS]
    plain = trainer_of(tmp_path / "off")
    plain._generate_and_score_completions(rows_of(plain))
    assert "dynamic_sampling/replaced_groups" not in plain._metrics["train"]
    assert [t.sample_id for t in plain._rollouts.trajectories[::GROUP]] == [f"haystack-train-11-{i}" for i in range(3)]


def test_rollouts_with_an_overlong_turn_are_masked_whole_and_counted(tmp_path):
    # 17 tokens make about half of the first turns too long
    trainer = trainer_of(tmp_path, mask_truncated_completions=True, max_completion_length=17)
    output = trainer._generate_and_score_completions(rows_of(trainer))
    overlong = [any(turn.finish_reason == "length" for turn in t.turns) for t in trainer._rollouts.trajectories]
    assert 0 < sum(overlong) < len(overlong)
    left = (output["completion_mask"] * output["tool_mask"]).sum(dim=1)
    assert [bool(tokens == 0) for tokens in left] == overlong
    assert trainer._metrics["train"]["overlong_filtered"] == [pytest.approx(sum(overlong) / len(overlong))]


def test_a_truncated_second_turn_keeps_the_batch_s_images(tmp_path, monkeypatch):
    # TRL would take such a rollout out of the attention, image tokens and all, and the next one would get its grid
    plain = trainer_of(tmp_path / "plain", max_logprob_gap=0.0)
    trainer = trainer_of(tmp_path / "masked", mask_truncated_completions=True)
    for one in (plain, trainer):
        torch.manual_seed(3)
        monkeypatch.setattr(one.rollout_backend, "run", cutting_every_other_answer(one.rollout_backend.run))
        inputs = one._generate_and_score_completions(rows_of(one))
        one._compute_loss(one.model, inputs)
    assert len({image.size for t in trainer._rollouts.images for image in t[1:]}) > 1
    for turn in (1, 2):  # the alarm would have gone off; and the rest is scored as without the filter
        assert trainer._metrics["train"][f"logprob_gap/turn{turn}"][-1] < 1e-5
        assert plain._metrics["train"][f"logprob_gap/turn{turn}"][-1] < 1e-5
    assert trainer._metrics["train"]["overlong_filtered"] == [0.5]


def cutting_every_other_answer(run):
    def cut(*arguments):
        trajectories = run(*arguments)
        for trajectory in trajectories[::2]:
            record = trajectory.tokens
            trajectory.turns[-1].finish_reason = "length"
            (start, end) = record.spans[-1]
            record.spans[-1] = (start, end - 1)
            for values in (record.ids, record.mask, record.logprobs, record.texts):
                del values[-1]
        return trajectories

    return cut
