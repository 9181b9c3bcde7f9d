"""The trainer's log-probabilities, mask, loss and gradient equal a brute-force computation, one rollout at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch

from mgpo_core import Sample, grade, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.turn_tokens import message_images
from mgpo_train.config.config import MGPOConfig
from mgpo_train.rewards import Reward
from mgpo_train.training.grpo import MGPOTrainer, turn_numbers

RUNS = {
    # diverse rollouts: refused boxes, turns of several lengths; a single-turn answer needs more heat to vary
    "mgpo": {"method": "mgpo", "temperature": 1.3, "max_completion_length": 24},
    "grpo": {"method": "grpo", "temperature": 1.7, "max_completion_length": 24},
    "mirg": {"method": "mirg", "temperature": 1.0, "max_completion_length": 96},
    "mirg_two_turn": {
        "method": "mirg", "template": "multi_image_two_turn", "temperature": 1.2, "max_completion_length": 48,
        "crop_min_side": 8.0,
    },
}  # fmt: skip
WEIGHTS = [1.0, 0.5, 0.1]
"""Of the rewards for object, image and format."""


@pytest.fixture(scope="module", params=list(RUNS))
def step(request, tmp_path_factory):
    """A trainer with one scored batch: 6 samples, 4 rollouts each."""
    several = request.param.startswith("mirg")
    config = MGPOConfig(
        output_dir=str(tmp_path_factory.mktemp("run")),
        model="haystack:multi" if several else "haystack:base",
        reward_weights=WEIGHTS if several else None,
        per_device_train_batch_size=24,
        num_generations=4,
        max_steps=1,
        max_logprob_gap=0.0,  # a test below adds noise to what the engine recorded
        seed=3,
        report_to="none",
        **RUNS[request.param],
    )
    # the checkpoint earns rewards for what it was taught, and varies in length where it was not
    tasks = ("group_grounding", "object_tracking")
    make = partial(haystack.make_multi, tasks=tasks) if several else haystack.make
    samples = make("train", n=6, seed=11)
    model, processor = load_model(config.model), load_processor(config.model)
    with pytest.MonkeyPatch.context() as patch:
        if "two_turn" in request.param:  # no shipped checkpoint answers after a crop: all its rewards are equal
            patch.setattr("mgpo_train.training.grpo.make_rewards", stand_ins)
        trainer = MGPOTrainer(model, processor, config, samples)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [{"prompt": trainer.train_dataset[i]["prompt"], "sample": i} for i in range(6) for _ in range(4)]
    inputs = trainer._generate_and_score_completions(rows)
    return trainer, inputs


def said_box(text: str) -> tuple[int, float, float, float, float] | None:
    """Image (0 where it is not said), and the box in pixels of the original, of the first whole entry."""
    entry = re.search(r'(?:"image": (\d+), )?"bbox_2d": \[(\d+), (\d+), (\d+), (\d+)\][^{}]*\}', text)
    if entry is None:
        return None
    x1, y1, x2, y2 = (4.0 * int(number) for number in entry.groups()[1:])
    return int(entry[1] or 0), x1, y1, x2, y2


def stand_in(text: str) -> float:
    """A reward that varies with what is said last, for those who never earn one."""
    return len(text) % 5 / 4


def stand_ins(names: Sequence[str], **options: Any) -> dict[str, Reward]:
    """`make_rewards` of a run whose every reward is the stand-in."""
    return dict.fromkeys(names, lambda trajectory: stand_in(trajectory.turns[-1].text))


def brute_force_reward(text: str, sample: Sample) -> float:
    """The reward of a last response, from its text and the ground truth alone."""
    if sample.answer is not None:
        return float(grade(text, sample.answer, sample.choices))
    thought, closed, said = text.rpartition("</think>")
    if (found := said_box(said)) is None:
        return 0.0
    image, x1, y1, x2, y2 = found
    [true] = sample.boxes
    object_, right = 0.0, 0.0
    if image == true.image + 1:
        right = 1.0
        common = max(0, min(x2, true.x2) - max(x1, true.x1)) * max(0, min(y2, true.y2) - max(y1, true.y1))
        object_ = common / ((x2 - x1) * (y2 - y1) + true.area - common) if x2 > x1 and y2 > y1 else 0.0
    form = closed and thought.startswith("<think>") and thought != "<think>" and x2 > x1 and y2 > y1
    form = form and 1 <= image <= len(sample.images)
    return WEIGHTS[0] * object_ + WEIGHTS[1] * right + WEIGHTS[2] * bool(form)


def brute_force_logps(trainer: MGPOTrainer, index: int) -> torch.Tensor:
    """(T,) log-probability of every token after the first: batch of one, no padding, whole-sequence positions."""
    trajectory = trainer._rollouts.trajectories[index]
    ids = torch.tensor([trajectory.tokens.ids])
    images = message_images(trajectory.messages)
    pixels = trainer.processing_class.image_processor(images=images, do_resize=False, return_tensors="pt")
    kinds = (ids == trainer.tokens.image_id).int()
    positions, _ = trainer.model.model.get_rope_index(ids, kinds, image_grid_thw=pixels["image_grid_thw"])
    logits = trainer.model(input_ids=ids, position_ids=positions, use_cache=False, **pixels).logits[0, :-1].float()
    logits[:, torch.from_numpy(trainer.tokens.forbidden_mask(logits.shape[1]))] = float("-inf")
    return torch.log_softmax(logits / trainer.temperature, dim=-1).gather(1, ids[0, 1:, None])[:, 0]


def test_the_batch_is_worth_the_comparison(step):
    trainer, inputs = step
    assert inputs["advantages"].abs().max() > 0.1, "all groups have equal rewards: the loss would be zero on both sides"
    lengths = {len(ids) for ids in trainer._rollouts.completion_ids}
    # single-turn answers are all of one length; two turns are not
    assert len(lengths) > 1 or trainer.args.method == "grpo", "no padding anywhere: the comparison would be too easy"


def test_the_mask_is_one_on_sampled_tokens_of_every_turn_and_zero_elsewhere(step):
    trainer, inputs = step
    mask = inputs["completion_mask"] * inputs["tool_mask"]
    for row, trajectory in enumerate(trainer._rollouts.trajectories):
        record = trajectory.tokens
        expected = [any(start <= at < end for start, end in record.spans) for at in range(len(record.ids))]
        assert mask[row, : len(record.ids) - record.prompt_length].tolist() == [
            int(e) for e in expected[record.prompt_length :]
        ]
        assert mask[row, len(record.ids) - record.prompt_length :].sum() == 0
        completion = record.ids[record.prompt_length :]
        assert (
            inputs["completion_ids"][row, : len(completion)].tolist() == completion
        )  # sampled ids, not re-encoded text
        sampled = [record.ids[at] for start, end in record.spans for at in range(start, end)]
        assert trainer.tokens.image_id not in sampled
        assert len(record.spans) == len(trajectory.turns)
        assert [turn.tokens for turn in trajectory.turns] == [end - start for start, end in record.spans]


def test_log_probabilities_loss_and_gradient_equal_brute_force(step):
    trainer, inputs = step
    mask = (inputs["completion_mask"] * inputs["tool_mask"]).float()
    noise = 0.3 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    old = inputs["sampling_per_token_logps"] + noise  # an older policy, so that ratios differ from one and clip
    inputs = {**inputs, "old_per_token_logps": old}

    texts = [trajectory.turns[-1].text for trajectory in trainer._rollouts.trajectories]
    samples = [trainer.samples[index // 4] for index in range(len(texts))]
    rewards = torch.tensor([brute_force_reward(said, sample) for said, sample in zip(texts, samples, strict=True)])
    if trainer.run_config.template == "multi_image_two_turn":
        rewards = sum(WEIGHTS) * torch.tensor([stand_in(said) for said in texts])
        assert len(trainer._rollouts.trajectories[0].turns) == 2
    groups = rewards.view(-1, 4)
    advantages = ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)).view(-1)
    expected_loss = torch.zeros(())
    total = mask.sum()
    logps = []
    for row, trajectory in enumerate(trainer._rollouts.trajectories):
        start = trajectory.tokens.prompt_length
        logp = brute_force_logps(trainer, row)[start - 1 :]
        logps.append(logp.detach())
        weight = mask[row, : len(logp)]
        ratio = torch.exp(torch.where(weight > 0, logp - old[row, : len(logp)], 0.0))
        advantage = advantages[row]
        assert abs(advantage - inputs["advantages"][row]) < 1e-4
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - 0.2, 1 + 0.2) * advantage)
        expected_loss = expected_loss - (gain * weight).sum() / total
    trainer.model.zero_grad()
    expected_loss.backward()
    expected_grad = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}

    trainer.model.zero_grad()
    got_logps, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        inputs["completion_ids"].shape[1],
        **{key: inputs[key] for key in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")},
    )
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()

    for row, logp in enumerate(logps):
        chosen = mask[row, : len(logp)] > 0
        torch.testing.assert_close(got_logps[row, : len(logp)][chosen], logp[chosen], atol=1e-4, rtol=0)
    torch.testing.assert_close(loss, expected_loss, atol=1e-4, rtol=1e-4)
    assert abs(loss.item()) > 1e-3
    for name, parameter in trainer.model.named_parameters():
        if name in expected_grad:
            torch.testing.assert_close(
                parameter.grad, expected_grad[name], atol=1e-4, rtol=1e-3, msg=f"gradient of {name}"
            )


def test_the_engine_sampled_from_the_policy_that_the_loss_sees(step):
    trainer, _ = step
    for row, trajectory in enumerate(trainer._rollouts.trajectories):
        logp = brute_force_logps(trainer, row)
        for start, end in trajectory.tokens.spans:
            recorded = torch.tensor(trajectory.tokens.logprobs[start:end])
            torch.testing.assert_close(recorded, logp[start - 1 : end - 1].detach(), atol=1e-4, rtol=0)


def test_turns_are_numbered_from_the_mask():
    mask = torch.tensor([[1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]])
    assert turn_numbers(mask).tolist() == [[1, 1, 0, 0, 2, 0], [1, 0, 2, 0, 0, 3], [0, 0, 0, 0, 0, 0]]
