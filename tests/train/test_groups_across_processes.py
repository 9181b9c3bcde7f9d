"""Groups may lie across processes: what is measured, drawn again and weighted is what one process would find."""

from __future__ import annotations

import pickle
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from patience import HANG

from mgpo_core import Box, Trajectory
from mgpo_core.episodes.trajectory import Turn
from mgpo_train.training import grpo as module
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.logprob_gap import LogprobGapGuard

SPLITS = [
    # processes, rows of each, rows of a group
    (1, 24, 4),
    (2, 4, 8),  # one group, half on each process
    (2, 6, 4),  # the second of three groups
    (2, 12, 6),  # none: whole groups on each
    (3, 8, 12),  # two groups, the second process has parts of both
    (4, 2, 8),  # one group over all
    (3, 4, 6),
]

MOST_BYTES = 600
"""Of one rollout, sent to the other processes."""


class Processes:
    """`gather_object` between threads that stand for processes: every one gets all lists, in the processes' order."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = count
        self._barrier = threading.Barrier(count, timeout=HANG)
        self._given: dict[int, list] = {}
        self._rank = threading.local()
        monkeypatch.setattr(module, "gather_object", self.gather)

    def gather(self, rows: list) -> list:
        sent = pickle.dumps(rows)
        assert len(sent) <= MOST_BYTES * (1 + len(rows)), "4,096 rollouts must stay a few MB"
        self._given[self._rank.value] = pickle.loads(sent)
        self._barrier.wait()
        found = [row for rank in range(self.count) for row in self._given[rank]]
        self._barrier.wait()
        return found

    def run(self, function) -> list:
        """What the function of a rank returns on each of them, all at once."""

        def on(rank: int):
            self._rank.value = rank
            return function(rank)

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(on, range(self.count)))


def played(row: int) -> Trajectory:
    """A rollout that differs from its neighbours in all that is measured; every third one has no valid box."""
    box = None if row % 3 == 0 else Box(row, row, row + 30, row + 30)
    first = Turn(
        "look " * 500,
        label="all of it" * 99,
        box=box,
        box_original=box,
        rejection=None if box else "no_json",
        tokens=row + 1,
    )
    second = Turn("so", tokens=2 * row, finish_reason="length" if row % 5 == 0 else "stop")
    return Trajectory(
        sample_id=f"{row}",
        ground_truth="A",
        turns=[first, second][: 1 + row % 2],
        true_boxes=(Box(10, 10, 20, 20),),
        original_sizes=((100, 100),),
        sources=(b"image" * 999,),
        messages=[{"role": "user", "content": [{"type": "text", "text": "what is it? " * 99}]}],
        metadata={"thumbnail": b"image" * 999, "extra_info": {"index": row}},
    )


def stub(rank: int, rows: int, group: int, **more) -> SimpleNamespace:
    """What the trainer's methods use of a trainer."""
    found = {
        "accelerator": SimpleNamespace(process_index=rank),
        "num_generations": group,
        "model": SimpleNamespace(training=True),
        "reward_weights": torch.tensor([1.0, 0.5]),
        "state": SimpleNamespace(global_step=3),
        "metrics_log": None,
        "_metrics": {"train": defaultdict(list)},
    }
    return SimpleNamespace(**{**found, **more})


@pytest.mark.parametrize(("processes", "rows", "group"), SPLITS)
def test_a_steps_metrics_are_those_of_all_its_rollouts(processes, rows, group, monkeypatch):
    total = processes * rows
    rewards = torch.tensor([[float(row % 7 > 2 and row >= group), float(row % 2)] for row in range(total)])
    rewards[:group] = 1.0  # one group without an advantage

    def record(rank: int) -> tuple[dict, list]:
        own = [played(rank * rows + row) for row in range(rows)]
        trainer = stub(rank, rows, group, _rollouts=SimpleNamespace(trajectories=own))
        MGPOTrainer._record(trainer, rewards)
        return dict(trainer._metrics["train"]), [trajectory.reward for trajectory in own]

    found = Processes(processes, monkeypatch).run(record)
    expected = module.step_metrics([played(row) for row in range(total)])
    for metrics, _ in found:
        assert {name: metrics[name] for name in expected} == {name: [value] for name, value in expected.items()}
        assert metrics["frac_zero_advantage_groups"] == [
            np.mean(
                [
                    len({(r[0] + r[1] / 2).item() for r in rewards[at : at + group]}) == 1
                    for at in range(0, total, group)
                ]
            )
        ]
    assert [reward for _, own in found for reward in own] == [float(a + b / 2) for a, b in rewards]


@pytest.mark.parametrize(("processes", "rows", "group"), SPLITS)
def test_flat_groups_are_replaced_by_the_same_samples_on_all_processes(processes, rows, group, monkeypatch):
    total, samples = processes * rows, 40

    def replace(rank: int) -> list[int]:
        rank_rows = range(rank * rows, rank * rows + rows)
        trainer = stub(
            rank,
            rows,
            group,
            args=SimpleNamespace(dynamic_sampling=3, seed=5),
            samples=[None] * samples,
            train_dataset=[{"sample": index} for index in range(samples)],
            _inputs=[{"sample": row // group} for row in rank_rows],
        )
        trainer._generate_trajectories = lambda indices: [Trajectory(sample_id=str(index)) for index in indices]
        # the first sample is hopeless; every other rollout has a reward of its own
        own_rewards: dict[int, float] = {}
        trainer._totals = lambda rollouts: [
            0.0 if t.sample_id == "0" else own_rewards.setdefault(id(t), len(own_rewards) + rank / 10 + 1.0)
            for t in rollouts
        ]
        own = MGPOTrainer._replace_zero_variance_groups(
            trainer, trainer._generate_trajectories([row["sample"] for row in trainer._inputs])
        )
        counts = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        assert counts["dynamic_sampling/replaced_groups"] >= 1
        assert [row["sample"] for row in trainer._inputs] == [int(t.sample_id) for t in own]
        return [int(t.sample_id) for t in own]

    ids = [index for own in Processes(processes, monkeypatch).run(replace) for index in own]
    groups = [ids[at : at + group] for at in range(0, total, group)]
    assert all(len(set(members)) == 1 for members in groups), "a group would hold rollouts of two samples"
    assert groups[0][0] >= len(groups), "the hopeless sample is still there"


@pytest.mark.parametrize(("processes", "rows", "group"), SPLITS)
def test_advantages_are_weighted_by_the_overlap_of_the_whole_group(processes, rows, group, monkeypatch):
    total = processes * rows
    overlaps = np.random.default_rng(0).random(total)

    def weigh(rank: int) -> torch.Tensor:
        own = [SimpleNamespace(answer_iou=overlaps[rank * rows + row]) for row in range(rows)]
        output = {"advantages": torch.ones(rows, dtype=torch.float64)}
        MGPOTrainer._weight_by_difficulty(stub(rank, rows, group), output, own)
        return output["advantages"]

    weights = torch.cat(Processes(processes, monkeypatch).run(weigh)).tolist()
    for row, weight in enumerate(weights):
        at = row // group * group
        assert weight == pytest.approx(np.exp(1 - overlaps[at : at + group].mean()))


@pytest.mark.parametrize(("processes", "rows"), [(1, 6), (2, 3), (3, 2)])
def test_gaps_and_entropies_are_means_over_the_tokens_of_all_processes(processes, rows, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    logps, engine, entropies = torch.rand(3, 6, 5, generator=generator)
    mask = (torch.rand(6, 5, generator=generator) > 0.4).int()
    mask[1] = 0  # a rollout that teaches nothing

    def log(rank: int) -> dict:
        part = slice(rank * rows, rank * rows + rows)
        inputs = {"completion_mask": mask[part], "tool_mask": mask[part], "sampling_per_token_logps": engine[part]}
        trainer = stub(rank, rows, 6, _gap_guard=LogprobGapGuard(0))
        MGPOTrainer._log_turns(trainer, inputs, logps[part], entropies[part])
        return {name: value for name, (value,) in trainer._metrics["train"].items()}

    turns = module.turn_numbers(mask)
    for found in Processes(processes, monkeypatch).run(log):
        for turn in range(1, int(turns.max()) + 1):
            gaps = (logps - engine).abs()[turns == turn]
            assert found[f"logprob_gap/turn{turn}"] == pytest.approx(gaps.mean().item(), rel=1e-5)
            assert found[f"logprob_gap_max/turn{turn}"] == pytest.approx(gaps.max().item())
            assert found[f"entropy/turn{turn}"] == pytest.approx(entropies[turns == turn].mean().item(), rel=1e-5)
