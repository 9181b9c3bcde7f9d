"""Evaluation on held-out samples: the same episodes, engine and metrics as in training, plus 95% intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mgpo_core import Sample
from mgpo_core.episodes.episode import Episode
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.samples.repeated_questions import cluster_samples
from mgpo_train.output.metrics import Measured

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig


def evaluate(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    episode: Callable[[Sample], Episode] = Episode,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 512,
    max_model_len: int | None = None,
    autocast: torch.dtype | None = None,
    keep: int = 8,
    progress: str | None = None,
) -> tuple[dict[str, Any], list[Trajectory]]:
    """Play each sample once: the metrics' `aggregate` with its 95% intervals, and the first `keep` trajectories.

    `episode` makes the episode of a sample. Temperature 0 is greedy. The result is a function of the seed, the batch
    size and the number of processes, which share the samples (the trajectories returned are of this process). Intervals
    are by question where several samples ask one of the same images. `autocast` is the type that the training computes
    in, if not the weights' own. `progress` names a bar.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    from mgpo_core.engines.transformers.engine import TransformersEngine

    engine = TransformersEngine(
        model,
        processor,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
        max_model_len=max_model_len,
    )
    processes = PartialState()
    clusters = cluster_samples(samples)
    samples = samples[processes.process_index :: processes.num_processes]
    was_training = getattr(model, "training", False)
    started = time.perf_counter()
    trajectories: list[Trajectory] = []
    with tqdm(total=len(samples), desc=progress, unit="sample", disable=progress is None) as bar:
        for start in range(0, len(samples), batch_size):
            chunk = samples[start : start + batch_size]
            with torch.autocast(processes.device.type, dtype=autocast, enabled=autocast is not None):
                trajectories += engine.run([episode(sample) for sample in chunk])
            for trajectory in trajectories[max(keep, start) :]:
                # the images that the model saw, of thousands of samples, would not fit in memory
                trajectory.messages, trajectory.tokens = [], None
            bar.update(len(chunk))
    if was_training:
        model.train()
    if clusters is not None:  # in the order in which trajectories are gathered
        count = processes.num_processes
        clusters = [key for place in range(count) for key in clusters[place::count]]
    scores = aggregate(gather_object([Measured.of(trajectory) for trajectory in trajectories]), clusters)
    return scores | {"seconds": round(time.perf_counter() - started, 2)}, trajectories[:keep]


def evaluate_policy(
    policy: Any,
    processor: Any,
    samples: Sequence[Sample],
    config: MGPOConfig,
    *,
    temperature: float,
    keep: int,
    progress: str,
) -> tuple[dict[str, Any], list[Trajectory]]:
    """`evaluate` as a run's options say; `progress` names the bar."""
    return evaluate(
        policy,
        processor,
        samples,
        episode=config.episode,
        temperature=temperature,
        seed=config.seed,
        batch_size=config.per_device_eval_batch_size,
        max_new_tokens=config.max_response,
        max_model_len=config.vllm_max_model_length,
        autocast=config.autocast_dtype,
        keep=keep,
        progress=progress if config.progress and config.process_index == 0 else None,
    )
