"""Evaluations in training (`eval_every`, `eval_tasks`): scores beside the training curves, and the best checkpoint.

Decoding is greedy: the held-out samples by `evaluate.py`, tasks of lmms-eval by `lmms_tasks.py`, before the
first step, every N steps and after the last. Training continues as if nothing had happened. The order within a step
lets a killed run resume correctly: first `best/`, then the line in `metrics.jsonl`, then the checkpoint, so that a
checkpoint's line is always there, and what it says is kept.

Relies on `trl.models.utils.unwrap_model_for_generation` (1.16).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from mgpo_core import Sample
from mgpo_core.episodes.trajectory import METRICS
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.evaluation.evaluate import evaluate_policy
from mgpo_train.evaluation.isolation import preserve_rng_state
from mgpo_train.evaluation.lmms_tasks import LMMSTasks, Scores
from mgpo_train.models.checkpoint import write_model
from mgpo_train.output.best_checkpoint import Best, BestFolder, best_of
from mgpo_train.output.folder import ADAPTER_FOLDER, own_record
from mgpo_train.output.metrics import HELD_OUT, TASKS, MetricsLog, is_evaluation

_NO_GOAL = "crop_area_fraction"
"""A metric of held-out samples that is neither good nor bad: tasks of mgpo-eval call a lower one better."""


class PeriodicEvaluation(TrainerCallback):
    """Evaluates, logs and keeps the best checkpoint of a run; acts on all processes alike.

    Raises ConfigError at the first evaluation, before training, when `best_metric` is none of its scores.
    """

    def __init__(
        self,
        trainer: Any,
        config: MGPOConfig,
        processor: Any,
        held_out: Sequence[Sample] | None,
        tasks: LMMSTasks | None,
        log: MetricsLog,
    ) -> None:
        self.trainer, self.config, self.processor = trainer, config, processor
        self.held_out = None if held_out is None else held_out[: config.eval_limit]
        self.tasks, self.log = tasks, log
        self.folder = BestFolder(log.folder, partial(own_record, log.folder))
        self.best: Best | None = None
        self._metric: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step = state.global_step
        self.best, logged = self._from_main(lambda: (self.folder.resume(step, self._best_logged), self._logged(step)))
        if self.best is not None:
            self._metric = self.best.metric
        if not logged:
            self._evaluate_if_due(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._evaluate_if_due(state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.folder.saved(state.global_step)

    def _evaluate_if_due(self, state: Any, control: Any) -> None:
        step, every = state.global_step, self.config.eval_every
        if step in (0, state.max_steps) or (every and step % every == 0):
            with preserve_rng_state():
                scores = self._scores(step)
                self._keep_if_best(step, scores)
            self._write(scores, control)

    def _scores(self, step: int) -> Scores:
        """The policy's scores on the held-out samples and on the tasks."""
        trainer, scores = self.trainer, Scores()
        with unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as policy:
            if self.held_out is not None:
                found, _ = evaluate_policy(
                    policy,
                    self.processor,
                    self.held_out,
                    self.config,
                    temperature=0.0,
                    keep=0,
                    progress=f"evaluation, step {step}",
                )
                values = {HELD_OUT + name: found[name] for name in METRICS if name in found}
                scores |= Scores(values, {HELD_OUT + _NO_GOAL} & values.keys())
            if self.tasks is not None:
                scores |= self.tasks.scores(policy, self.processor)
        return scores

    def _keep_if_best(self, step: int, scores: Scores) -> None:
        if self.best is None:
            self._metric = choose_metric(self.config, scores)
        assert self._metric is not None
        found = Best(step, self._metric, scores.values.get(self._metric, math.nan))
        better = math.isfinite(found.value) if self.best is None else self.best.beaten_by(found.value)
        if not better:
            return
        self.best, part = found, self.folder.part
        main = self.config.process_index == 0
        if main:
            self.folder.clear_part()
        write_model(self.trainer, self.config, self.processor, part, part / ADAPTER_FOLDER)
        if main:
            self.folder.replace(found, scores.values)

    def _write(self, scores: Scores, control: Any) -> None:
        """Into the metrics file and the trackers, past TRL's `log`, which would empty the step's own metrics."""
        should_log = control.should_log
        Trainer.log(self.trainer, {column(name): value for name, value in scores.values.items()})
        control.should_log = should_log  # of the step, which upstream takes for done with any line

    def _logged(self, step: int) -> bool:
        """Whether the first part of a resumed run has evaluated after this step."""
        return any(row["step"] == step and is_evaluation(row) for row in self.log.rows())

    def _best_logged(self, metric: str) -> Best | None:
        return best_of(self.log.rows(), metric, column(metric))

    def _from_main(self, find: Callable[[], Any]) -> Any:
        """What the main process finds in the folder of the run, on every process."""
        found = [find() if self.config.process_index == 0 else None]
        broadcast_object_list(found)
        return found[0]


def column(name: str) -> str:
    """What a score is called in `metrics.jsonl`: `haystack/accuracy` is `eval_haystack/accuracy` there."""
    return name if name.startswith(HELD_OUT) else TASKS + name


def choose_metric(config: MGPOConfig, scores: Scores) -> str:
    """The metric that decides which checkpoint is best; raises ConfigError when `best_metric` cannot be it."""
    possible = [name for name in scores.values if name not in scores.lower]
    wanted = config.best_metric
    if wanted is None:
        first = [f"{task}/" for task in config.eval_tasks[:1]]
        wished = [HELD_OUT + "accuracy", *(name for name in possible if name.startswith(tuple(first))), *possible]
        wanted = next((name for name in wished if name in possible), None)
        if wanted is None:
            raise ConfigError("the evaluations in training give no score: do the samples of eval_data have answers?")
    if wanted in scores.lower:
        raise ConfigError(f"best_metric={wanted}: of it, lower is better; choose one of {', '.join(possible)}")
    if wanted not in possible:
        raise ConfigError(f"best_metric={wanted}: no evaluation of this run gives it; there are {', '.join(possible)}")
    return wanted
