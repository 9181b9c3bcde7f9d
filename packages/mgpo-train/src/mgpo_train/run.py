"""A whole run: samples, model, evaluation, training, evaluation, summary. What `mgpo-train` does.

Relies on `trl.models.utils.unwrap_model_for_generation` (1.16).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed
from trl.models.utils import unwrap_model_for_generation

from mgpo_core import haystack
from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.runs.trajectory_log import TRAJECTORIES_FILE
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.user_errors import worded
from mgpo_train.data.fingerprint import fingerprint
from mgpo_train.data.run_data import Data, load_data
from mgpo_train.data.sources import SampleSet
from mgpo_train.distributed.launch_checks import check_launch, check_trainer
from mgpo_train.distributed.zero3_params import gather_zero3_params
from mgpo_train.evaluation.evaluate import evaluate_policy
from mgpo_train.evaluation.lmms_tasks import LMMSTasks
from mgpo_train.evaluation.periodic import PeriodicEvaluation
from mgpo_train.models.checkpoint import write_model
from mgpo_train.models.lora import lora_config
from mgpo_train.models.policy import load_policy
from mgpo_train.models.universal_checkpoint import load_universal_if_needed
from mgpo_train.output.best_checkpoint import BEST_FOLDER, read_best
from mgpo_train.output.curves import plot_curves
from mgpo_train.output.folder import (
    ADAPTER_FOLDER,
    BEFORE_FILE,
    CURVES_FILE,
    MODEL_FOLDER,
    REPORT_FILE,
    SUMMARY_FILE,
    begin_model,
    check_resume_compatible,
    ensure_fresh_output_dir,
    prepare,
    read_summary,
    releases_folder,
    same_schedule,
    write_own_json,
    writing,
)
from mgpo_train.output.learning_warnings import learning_warnings
from mgpo_train.output.metrics import MetricsLog
from mgpo_train.output.model_card import RunFacts, card_place, write_card
from mgpo_train.output.publishing import Destination, check_login, publish_run
from mgpo_train.output.report import write_run_report
from mgpo_train.output.summary import print_table, print_warnings, timing, versions
from mgpo_train.sizing.sizing import planned_steps
from mgpo_train.training.callbacks import attach, title_of


@releases_folder
def run(config: MGPOConfig, *, resume: bool = False, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run a configuration to its end and return its summary; `overrides` are the options as the user set them.

    With `resume`, go on from the newest whole checkpoint in `output_dir` (from the start when there is none).
    """
    config.check_installed()
    out = Path(str(config.output_dir))
    main = config.process_index == 0
    check_launch(config)
    if config.push_to_hub and main:
        check_login(Destination.of(config))
    finished = _finished(out, config, resume=resume)
    PartialState().wait_for_everyone()  # every process has looked before the first one marks the folder
    if finished is not None and same_schedule(out, config):
        return _nothing_to_do(out, finished, main)
    data = load_data(config)
    _say(main, config.budget_origin)
    if finished is not None and planned_steps(config, len(data.train)) <= finished["steps"]:
        return _nothing_to_do(out, finished, main)
    prints = {"train_data": data.train, "eval_data": data.held_out, "eval_ood_data": data.ood}
    for samples in prints.values():
        if samples is not None:
            _say(main, samples.describe())
    tasks = LMMSTasks(config) if config.eval_tasks else None
    with config.main_process_first(desc="preparing the output folder"):
        checkpoint, step = prepare(
            out,
            config,
            resume=resume,
            settings=overrides or {},
            main=main,
            data={name: fingerprint(samples) for name, samples in prints.items()} if main else None,
        )
    if resume:
        _say(main, f"going on from {checkpoint}" if checkpoint else f"no whole checkpoint in {out}: from the start")
    log = MetricsLog(out, keep_to_step=step, keep_trajectories=config.report_trajectories, write=main)
    model, processor = load_policy(config)
    before, parts = _before(out, config, model, processor, data, resumed=resume)
    if main:
        write_own_json(out, BEFORE_FILE, before)
    set_seed(config.seed)
    trainer = _make_trainer(config, model, processor, data.train, log)
    check_trainer(trainer, config)
    attach(trainer, log, config)
    if config.evaluates_in_training:
        trainer.add_callback(PeriodicEvaluation(trainer, config, processor, data.held_out, tasks, log))
    trainer.card_facts = RunFacts.of(data, _summary(config, log, data, before))
    _train(trainer, config, checkpoint)
    if main:
        begin_model(out, with_adapter=config.use_peft)
    write_model(trainer, config, processor, out / MODEL_FOLDER, out / ADAPTER_FOLDER)
    if log.trajectories:
        parts[f"training, step {log.trajectories_step}"] = log.trajectories
    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as policy:
        after, shown = _evaluate_all(config, policy, processor, data, "after")
    summary = _summary(config, log, data, {**before, **after}) | {"steps": trainer.state.global_step}
    if main:
        summary |= _best(out)
        with writing(out, CURVES_FILE, REPORT_FILE, TRAJECTORIES_FILE):
            curves = plot_curves(log.rows(), out / CURVES_FILE, title=title_of(config))
            write_run_report(
                out / REPORT_FILE, {**shown, **parts}, title=title_of(config), summary=summary, curves=curves
            )
        write_own_json(out, SUMMARY_FILE, summary)
        _write_cards(out, config, RunFacts.of(data, summary))
        print_table(summary)
        print_warnings(summary)
        if config.model == "haystack:base" and config.template == "two_turn":
            print(f"\n{haystack.BASE_WAS_TAUGHT}")
        if best := summary.get("best"):
            print(f"\nbest: {best['metric']} {best['value']:.3f} after step {best['step']}, in {best['folder']}")
        print(f"\n{out / SUMMARY_FILE}, {out / REPORT_FILE}, {out / CURVES_FILE}, {out / MODEL_FOLDER}")
        if config.push_to_hub:
            publish_run(out, config, MODEL_FOLDER, ADAPTER_FOLDER, summary["steps"])
    return summary


def _write_cards(out: Path, config: MGPOConfig, facts: RunFacts) -> None:
    """The cards of what a finished run leaves, with its scores."""
    best = read_best(out / BEST_FOLDER)
    places: list[tuple[Path, Path, dict[str, Any] | None]] = [(out / MODEL_FOLDER, out / ADAPTER_FOLDER, None)]
    if best is not None:
        places.append((out / BEST_FOLDER, out / BEST_FOLDER / ADAPTER_FOLDER, best))
    for folder, adapter, record in places:
        for written in (folder, adapter) if config.use_peft else (folder,):
            place = card_place(written)
            if place is not None:
                with writing(out, place.relative_to(out).as_posix()):
                    write_card(written, config, facts, best=record)


def _finished(out: Path, config: MGPOConfig, *, resume: bool) -> dict[str, Any] | None:
    """The summary of a finished run that is to be resumed; refuses what cannot be, before the data are read."""
    if resume:
        check_resume_compatible(out, config)
        return read_summary(out)
    ensure_fresh_output_dir(out, config)
    return None


def _nothing_to_do(out: Path, finished: dict[str, Any], main: bool) -> dict[str, Any]:
    _say(main, f"{out} holds a finished run of {finished['steps']} steps: nothing to resume")
    return finished


def _train(trainer: Any, config: MGPOConfig, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        load_universal_if_needed(checkpoint, trainer, config)
    with worded(config):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _make_trainer(config: MGPOConfig, model: Any, processor: Any, samples: SampleSet, log: MetricsLog) -> Any:
    if config.method == "sft":
        from mgpo_train.training.sft import make_trainer

        with worded(config, starting=True):
            return make_trainer(model, processor, config, samples)
    from mgpo_train.training.grpo import MGPOTrainer

    with worded(config, starting=True):
        return MGPOTrainer(
            model=model,
            processor=processor,
            args=config,
            samples=samples,
            metrics_log=log,
            peft_config=lora_config(config),
        )


def _before(
    out: Path, config: MGPOConfig, model: Any, processor: Any, data: Data, *, resumed: bool
) -> tuple[dict[str, Any], dict[str, list[Trajectory]]]:
    """Scores of the start model; a resumed run reads those that its first part measured."""
    if resumed and (out / BEFORE_FILE).is_file():
        return json.loads((out / BEFORE_FILE).read_text("utf-8")), {}
    with gather_zero3_params(model), worded(config):
        return _evaluate_all(config, model, processor, data, "before")


def _evaluate_all(
    config: MGPOConfig, model: Any, processor: Any, data: Data, when: str
) -> tuple[dict[str, Any], dict[str, list[Trajectory]]]:
    """Scores by their key in summary.json, and trajectories to show by heading."""
    scores, shown = {}, {}
    for prefix, samples in (("", data.held_out), ("ood_", data.ood)):
        if samples is None:
            continue
        for suffix, temperature in (("", 1.0), *((("_greedy", 0.0),) if config.eval_greedy else ())):
            key = f"{prefix}{when}{suffix}"
            scores[key], shown[key] = evaluate_policy(
                model,
                processor,
                samples,
                config,
                temperature=temperature,
                keep=config.report_trajectories,
                progress=key,
            )
    return scores, shown


def _best(out: Path) -> dict[str, Any]:
    """The best checkpoint, for summary.json; nothing where none is kept."""
    best = read_best(out / BEST_FOLDER)
    if best is None:
        return {}
    return {"best": {name: best[name] for name in ("step", "metric", "value")} | {"folder": str(out / BEST_FOLDER)}}


def _summary(config: MGPOConfig, log: MetricsLog, data: Data, scores: Mapping[str, Any]) -> dict[str, Any]:
    weights = config.reward_weights or [1.0] * len(config.rewards or ())
    return {
        "method": config.method,
        "template": config.template,
        "answers_with_box": config.make_template().answers_with_box,
        "rewards": None if config.method == "sft" else dict(zip(config.rewards or (), weights, strict=True)),
        "reward_control": config.reward_control,
        "model": config.model,
        **timing(log.rows()),
        "seed": config.seed,
        "devices": config.world_size,
        "prompts_per_step": config.prompts_per_step,
        "num_generations": config.num_generations if config.method != "sft" else None,
        "pixels": [config.budget.min_pixels, config.budget.max_pixels],
        "coordinate_space": config.space.value,
        "max_new_tokens": config.max_completion_length,
        "train_samples": data.train.describe(),
        "skipped_rows": data.train.skipped,
        "eval_samples": None if data.held_out is None else data.held_out.describe(),
        "versions": versions(),
        **scores,
        "warnings": learning_warnings(log.rows(), scores),
    }


def _say(main: bool, text: str) -> None:
    if main:
        print(text)
        sys.stdout.flush()
