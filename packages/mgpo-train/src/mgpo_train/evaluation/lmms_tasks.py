"""Tasks of lmms-eval, run by the policy in training: the one file that touches lmms-eval.

Relies on lmms-eval 0.7.3, imported when a run names `eval_tasks`: `models.get_model`, `tasks.TaskManager` with
`all_tasks` and `all_subtasks`, and `evaluator.simple_evaluate`, which takes the samples of its process (RANK,
WORLD_SIZE) and gives on the first one `results` (task -> "metric,filter" -> value) and `higher_is_better`. The model
`mgpo` there is mgpo-eval's, found by its entry point: this package knows it by its name and by the arguments of its
constructor alone. tests/train/test_periodic_evaluation.py fails when one of these moves.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from PIL import ImageFile

from mgpo_core.boxes.plain_text import THINK
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.messages.suggest import nearest
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.output.folder import TASKS_FOLDER, writing

_MODEL = "mgpo"

_REASONING = json.dumps([THINK, ("<analysis>", "</analysis>")])
"""What lmms-eval's command cuts out of a response before a stock task reads it; mgpo-eval relies on it."""

_ERRORS = re.compile(r"_stderr(_\w+)?$")


@dataclass
class Scores:
    """Scores of one evaluation by name (`eval/accuracy`, `haystack/accuracy`), in the order they came in."""

    values: dict[str, float] = field(default_factory=dict)
    lower: set[str] = field(default_factory=set)
    """Those of which a lower value is better."""

    def __or__(self, other: Scores) -> Scores:
        return Scores(self.values | other.values, self.lower | other.lower)


class LMMSTasks:
    """The `eval_tasks` of a run; raises ConfigError for a name that lmms-eval does not know."""

    def __init__(self, config: MGPOConfig) -> None:
        self.config = config
        with _process_settings_kept():
            from lmms_eval import evaluator
            from lmms_eval.models import get_model
            from lmms_eval.tasks import TaskManager

            self._evaluate, self._model_class = evaluator.simple_evaluate, get_model(_MODEL)
            self._manager = TaskManager("WARNING", model_name=_MODEL)
        for name in config.eval_tasks:
            if name not in self._manager.all_tasks:
                hint = nearest(name, self._manager.all_tasks, "`mgpo-eval tasks` lists them")
                raise ConfigError(f"eval_tasks={name!r}: lmms-eval has no such task: {hint}")

    def scores(self, policy: Any, processor: Any) -> Scores:
        """Greedy scores of the policy on every task, the same on every process; for all processes to call."""
        config = self.config
        engine = TransformersEngine(
            policy, processor, max_new_tokens=config.max_response, batch_size=config.per_device_eval_batch_size
        )
        device = PartialState().device.type
        with (
            data_sets_told(config.eval_tasks),
            _process_settings_kept(),
            writing(Path(str(config.output_dir)), TASKS_FOLDER, main=config.process_index == 0),
            torch.autocast(device, dtype=config.autocast_dtype, enabled=config.autocast_dtype is not None),
        ):
            results = self._evaluate(
                model=self._runner(engine, policy),
                tasks=list(config.eval_tasks),
                limit=config.eval_limit,
                batch_size=config.per_device_eval_batch_size,
                bootstrap_iters=0,
                log_samples=False,
                task_manager=self._manager,
                cli_args=Namespace(
                    output_path=str(Path(str(config.output_dir)) / TASKS_FOLDER),
                    reasoning_tags=_REASONING,
                    process_with_media=False,
                ),
            )
        found = [None if results is None else read_scores(results)]
        broadcast_object_list(found)  # lmms-eval gives the results to the first process
        assert found[0] is not None
        self._check(found[0])
        return found[0]

    def _check(self, scores: Scores) -> None:
        """Raise ConfigError for a task that gave no number; a group's numbers are its tasks'."""
        for name in set(self.config.eval_tasks) & set(self._manager.all_subtasks):
            if not any(score.startswith(f"{name}/") for score in scores.values):
                raise ConfigError(f"eval_tasks={name!r}: lmms-eval gives no number for it; leave it out")

    def _runner(self, engine: Any, policy: Any) -> Any:
        """lmms-eval's model `mgpo` on the engine at hand."""
        config = self.config
        return self._model_class(
            engine=engine,
            config=policy.config,
            settings=config.episode_settings,
            pretrained=config.model,
            mode="two_turn" if config.make_template().max_turns > 1 else "single_turn",
            batch_size=config.per_device_eval_batch_size,
            keep_images=0,
        )


def read_scores(results: Mapping[str, Any]) -> Scores:
    """The numbers among lmms-eval's results, without standard errors; a filter's name is kept unless it is `none`."""
    scores = Scores()
    for task, found in results["results"].items():
        better = results["higher_is_better"].get(task, {})
        for key, value in found.items():
            metric, comma, filtered = key.rpartition(",")
            if not comma or _ERRORS.search(metric) or isinstance(value, bool) or not isinstance(value, Real):
                continue
            name = f"{task}/{metric}" if filtered == "none" else f"{task}/{metric},{filtered}"
            scores.values[name] = float(value)
            if better.get(metric) is False:
                scores.lower.add(name)
    return scores


@contextlib.contextmanager
def data_sets_told(tasks: Sequence[str]) -> Iterator[None]:
    """Raise ConfigError, with reason and remedy, for a data set of the tasks that could not be loaded.

    lmms-eval loads data sets with tenacity's retry, whose RetryError hides the reason.
    """
    from tenacity import RetryError

    try:
        yield
    except RetryError as error:
        cause = error.last_attempt.exception()
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ConfigError(
            f"eval_tasks={','.join(tasks)}: a data set could not be loaded: {reason:.240}; check the network and the "
            "login (hf auth login), or put a copy into a folder of its name below the working folder"
        ) from error


_ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"


@contextlib.contextmanager
def _process_settings_kept() -> Iterator[None]:
    """Put back what lmms-eval changes for the whole process, when it is imported and when it loads a task.

    Broken images would pass for whole ones, warnings would be silenced, and a process that waits in vain for another
    would wait for 24 hours. Hidden meanwhile: the launcher's `gradient_accumulation_steps: auto` for DeepSpeed, at
    which the `Accelerator` (1.15) that lmms-eval and its model make for themselves fails.
    """
    groups: Any = torch.distributed.distributed_c10d if torch.distributed.is_available() else None
    truncated, timeout = ImageFile.LOAD_TRUNCATED_IMAGES, getattr(groups, "default_pg_timeout", None)
    accumulation = os.environ.pop(_ACCUMULATION, None)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = truncated
            if groups is not None:
                groups.default_pg_timeout = timeout
            if accumulation is not None:
                os.environ[_ACCUMULATION] = accumulation
