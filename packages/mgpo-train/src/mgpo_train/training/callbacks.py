"""What happens around a training step: the metrics file, the progress bar, the curves and the report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from mgpo_core.runs.trajectory_log import TRAJECTORIES_FILE
from mgpo_train.output.curves import plot_curves
from mgpo_train.output.folder import CURVES_FILE, REPORT_FILE, writing
from mgpo_train.output.metrics import TIMING, MetricsLog, is_evaluation
from mgpo_train.output.report import write_run_report

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

SHOWN = {"accuracy": "accuracy", "hit_rate": "hit rate", "valid_box_rate": "valid boxes", "loss": "loss"}
"""Metrics in the progress bar with the words for them."""

TIMED = ("step_time",)
"""Metrics of TRL's that are wall-clock times: they move under `time/`."""


def attach(trainer: Any, metrics_log: MetricsLog, config: MGPOConfig) -> None:
    """Have a transformers `Trainer` (TRL's included) write to the log, in place of its own printing and bar."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(RunCallback(metrics_log, config))


class RunCallback(TrainerCallback):
    """Writes `metrics.jsonl` at every log, and draws curves and report every N steps, in the main process."""

    def __init__(self, metrics_log: MetricsLog, config: MGPOConfig) -> None:
        self.log = metrics_log
        self.config = config
        self.bar: Any = None
        self._mark = 0.0
        self._seconds = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.config.progress:
            from tqdm.auto import tqdm

            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.config.method, unit="step")
        self._mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # from the end of the step before: SFT makes its batch before the step begins, GRPO its rollouts after
        now = time.perf_counter()
        self._seconds += now - self._mark
        self._mark = now
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # transformers logs a summary of the whole run at its end: that belongs to summary.json
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        if is_evaluation(logs):
            self.log.write(state.global_step, logs)
            self._mark = time.perf_counter()  # it is not part of a step
            return
        metrics = {(TIMING + name if name in TIMED else name): value for name, value in logs.items()}
        metrics[TIMING + "seconds"], self._seconds = self._seconds, 0.0
        self.log.write(state.global_step, metrics)
        if self.bar is not None:
            shown = {SHOWN[name]: f"{logs[name]:.2f}" for name in SHOWN if isinstance(logs.get(name), float)}
            self.bar.set_postfix(shown)
        self._redraw(state.global_step)
        self._mark = time.perf_counter()  # figures and checkpoints are not part of a step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._mark = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def _redraw(self, step: int) -> None:
        out = self.log.folder
        if self.config.plot_every and step % self.config.plot_every == 0:
            with writing(out, CURVES_FILE):
                plot_curves(self.log.rows(), out / CURVES_FILE, title=title_of(self.config))
        if self.config.report_every and step % self.config.report_every == 0:
            parts = {f"training, step {self.log.trajectories_step}": self.log.trajectories}
            with writing(out, REPORT_FILE, TRAJECTORIES_FILE):
                write_run_report(out / REPORT_FILE, parts, title=title_of(self.config))


def title_of(config: MGPOConfig) -> str:
    """One line that names a run on its figures."""
    control = "" if config.reward_control == "none" else f", rewards: {config.reward_control}"
    return f"{config.method}, {config.template}{control}, {config.model}, seed {config.seed}"
