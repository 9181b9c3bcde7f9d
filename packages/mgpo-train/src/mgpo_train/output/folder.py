"""The folder of a run: whether it may be written, and from where a stopped or a finished run goes on (no torch)."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgpo_core.files.output_folder import MODEL_FILES, RUN_FILE, OutputFolderError, OutputRecord, Owner, open_output
from mgpo_core.runs.run_folder import CONFIG_FILE
from mgpo_core.runs.trajectory_log import TRAJECTORIES_FILE, remove_trajectories
from mgpo_train.config.options import ConfigError
from mgpo_train.config.resume_options import SECRET, check_compatible_options, check_compatible_words, recorded
from mgpo_train.config.resume_options import same_schedule as _same_schedule
from mgpo_train.data.fingerprint import check_same_data
from mgpo_train.distributed.checkpoint_layout import check_layout, checkpoint_step, is_whole
from mgpo_train.output.best_checkpoint import BEST_FOLDER
from mgpo_train.output.best_checkpoint import FOLDERS as BEST_FOLDERS
from mgpo_train.output.metrics import METRICS_FILE
from mgpo_train.output.own_code import check_same_code, code_of
from mgpo_train.output.summary import write_json

if TYPE_CHECKING:
    from mgpo_train.config.config import MGPOConfig

BEFORE_FILE, SUMMARY_FILE, MODEL_FOLDER = "before.json", "summary.json", "model"
CURVES_FILE, REPORT_FILE = "curves.png", "report.html"
ADAPTER_FOLDER = "adapter"
TASKS_FOLDER = "lmms-eval"
"""Where tasks of lmms-eval that write files (submissions) put them."""
SYNC_FOLDER = "vllm-weights"
"""Weights on their way to a vLLM server that cannot take them over NCCL."""

_FILES = (METRICS_FILE, SUMMARY_FILE, BEFORE_FILE, CURVES_FILE, REPORT_FILE, TRAJECTORIES_FILE)
OWNER = Owner(
    "mgpo-train",
    "output_dir",
    files="|".join(name.replace(".", r"\.") for name in _FILES),
    folders={
        rf"checkpoint-\d+|{MODEL_FOLDER}|{ADAPTER_FOLDER}|{SYNC_FOLDER}|best(\.part|\.before|\.old)?": MODEL_FILES,
        TASKS_FOLDER: r".*",
        "runs": r"events\.out\.tfevents\..*",  # TensorBoard's
        "completions": r"completions_\d+\.parquet",  # TRL's log_completions
    },
    renamed=dict.fromkeys(BEST_FOLDERS[1:], BEST_FOLDER) | {"universal.part": "universal"},
)
"""What a run writes into its folder; images of its trajectories are known by their names (`trajectory_log`)."""

_OPEN = (METRICS_FILE, "runs", "completions")
"""What is added to all the time; everything else is recorded whenever it was written."""


def read_summary(out: Path) -> dict[str, Any] | None:
    """The summary of the finished run in a folder; None when there is none."""
    path = out / SUMMARY_FILE
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def run_record(out: Path) -> OutputRecord | None:
    """The record of the run in a folder; None for a new or an empty one.

    OutputFolderError for any other folder; ConfigError for a run of a version before the record.
    """
    _refuse_older_version(out)
    return open_output(out, OWNER)


def _refuse_older_version(out: Path) -> None:
    try:
        written = json.loads((out / CONFIG_FILE).read_text("utf-8")) if not (out / RUN_FILE).exists() else {}
    except (OSError, ValueError):
        return
    if isinstance(written, dict) and "same_on_resume" in written:
        raise ConfigError(
            f"output_dir={str(out)!r} holds a run of an earlier version ({CONFIG_FILE}, no {RUN_FILE}), which "
            "this version can show, but neither resume nor replace: name another --output_dir "
            f"(--model {out / MODEL_FOLDER} starts from its weights)"
        )


def earlier_run(out: Path) -> str | None:
    """What an earlier run left that is worth keeping; None when it did not come to its first step."""
    left = [out / name for name in (METRICS_FILE, SUMMARY_FILE) if (out / name).is_file()]
    named = [path.name for path in left if path.stat().st_size] + [path.name for path in checkpoints(out)]
    return named[0] if named else None


def check_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Raise OutputFolderError or ConfigError when a run must not write into the folder, or cannot; writes nothing."""
    record = run_record(out)
    if record is None:
        return
    left = earlier_run(out)
    if left and not resume and not overwrite:
        raise ConfigError(
            f"output_dir={str(out)!r} holds an earlier run ({left}): resume it (--resume), replace it (--overwrite), "
            "or name another folder (--output_dir)"
        )
    record.refuse_in_the_way(_written_on_resume(out) if resume else None)


def _written_on_resume(out: Path) -> list[str]:
    """Names in the folder that a resumed run may write again: all but its checkpoints up to the one it starts from."""
    newest = last_checkpoint(out)
    step = 0 if newest is None else checkpoint_step(newest)
    kept = {path.name for path in checkpoints(out) if checkpoint_step(path) <= step}
    return [path.name for path in out.iterdir() if path.name not in kept]


def ensure_fresh_output_dir(out: Path, config: MGPOConfig) -> None:
    """Raise ConfigError when the folder holds an earlier run that is not to be deleted."""
    check_folder(out, resume=False, overwrite=config.overwrite)


def same_schedule(out: Path, config: MGPOConfig) -> bool:
    """Whether the run in the folder was to be as long as this one."""
    return _same_schedule(_written(out).get("options", {}), config)


def check_resume_compatible(out: Path, config: MGPOConfig, data: Mapping[str, Any] | None = None) -> None:
    """Raise ConfigError, naming options, files or data, when resuming would make another run of that in the folder.

    `data`: the fingerprints of `data_fingerprint`, by option.
    """
    check_folder(out, resume=True, overwrite=False)
    written = _written(out)
    if "options" in written:
        check_compatible_options(written["options"], written.get("given") or {}, config)
    check_same_code(written.get("code") or {}, code_of(_specs(config)), out)
    names = {name: getattr(config, name, None) for name in data or ()}
    check_same_data(written.get("data") or {}, data or {}, names)


def check_resume_quickly(out: Path, words: Mapping[str, str], specs: Sequence[str]) -> None:
    """Raise what `check_resume_compatible` would, as far as it takes no configuration (and no torch) to know.

    `words` are options as written on the command line, `specs` what rewards, template and plugins name.
    """
    written = _written(out)
    check_compatible_words(written.get("options") or {}, words)
    check_same_code(written.get("code") or {}, code_of(specs), out)


def _specs(config: MGPOConfig) -> list[str]:
    return [*(config.rewards or ()), config.template or "", *config.plugins]


def prepare(
    out: Path,
    config: MGPOConfig,
    *,
    resume: bool,
    settings: Mapping[str, Any],
    main: bool,
    data: Mapping[str, Any] | None = None,
) -> tuple[Path | None, int]:
    """(checkpoint to resume from, its step); marks the folder as the run's, and refuses to mix two runs in it."""
    checkpoint = None
    if resume:
        if main:  # when the others come here, it has marked the folder
            check_resume_compatible(out, config, data)
        checkpoint = last_checkpoint(out)
        if checkpoint is not None:
            from mgpo_train.distributed.launch_checks import running_plan  # which imports torch

            check_layout(checkpoint, running_plan(config))
        if checkpoint is None and read_summary(out) is not None:
            raise ConfigError(
                f"--resume: the run in {out} is finished, and no checkpoint is left to resume from: "
                "start a new run (--overwrite, or another --output_dir)"
            )
    if main:
        if not resume:
            ensure_fresh_output_dir(out, config)
        given = {name: value for name, value in settings.items() if name not in SECRET}
        about = {"options": recorded(config), "code": code_of(_specs(config)), "data": dict(data or {})}
        _mark(out, about, given, resume=resume)
    return checkpoint, 0 if checkpoint is None else checkpoint_step(checkpoint)


def _mark(out: Path, about: dict[str, Any], given: dict[str, Any], *, resume: bool) -> None:
    record = run_record(out)
    if record is None:
        record = OutputRecord.create(out, OWNER, {"given": given, **about})
    elif resume:
        record.done()  # what a kill left open
        record.update(**about, given_on_resume=given)
        record.remove(SUMMARY_FILE)  # of a run that was finished and is resumed now
    else:
        record.clear()
        remove_trajectories(out)
        record.data.pop("given_on_resume", None)
        record.update(given=given, **about)
    for name in _OPEN:
        record.begin(name, fresh=False)


def releases_folder(run: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of a run: when it ends, however it does, what it wrote is recorded."""

    @functools.wraps(run)
    def running(config: MGPOConfig, **options: Any) -> Any:
        try:
            return run(config, **options)
        finally:
            if config.process_index == 0:
                _release(Path(str(config.output_dir)))

    return running


def _release(out: Path) -> None:
    with contextlib.suppress(OSError, ConfigError, ValueError):  # the error that ended the run is the one to report
        record = open_output(out, OWNER, probe=False)
        if record is not None and record.is_mine:
            record.done()


def own_record(out: Path) -> OutputRecord | None:
    """The record of the run that writes into the folder; None where there is none: a trainer used on its own."""
    with contextlib.suppress(OutputFolderError):
        return open_output(out, OWNER, probe=False) if (out / RUN_FILE).is_file() else None
    return None  # somebody has put another file in its place: a run is not stopped for it


@contextlib.contextmanager
def writing(out: Path, *names: str, main: bool = True, fresh: bool = False) -> Iterator[None]:
    """Around a block that writes files or folders of the run's: what it writes is recorded. For all processes to call.

    With `fresh`, what the run wrote there before is removed first.
    """
    if main and (record := own_record(out)):
        for name in names:
            record.begin(name, fresh=fresh)
    try:
        yield
    finally:
        if main and (record := own_record(out)):  # read again: the block may have recorded more
            record.done(*names)


def write_own_json(out: Path, name: str, data: Mapping[str, Any]) -> None:
    """Write a JSON file of the run's, and record it; for the main process."""
    with writing(out, name):
        write_json(out / name, data)


def begin_model(out: Path, *, with_adapter: bool) -> None:
    """Say that the trained model is about to be written; what is in its folder when the run ends is the run's."""
    record = own_record(out)
    for name in (MODEL_FOLDER, *([ADAPTER_FOLDER] if with_adapter else [])):
        if record is not None:
            record.begin(name)


def what_is_left(out: Path) -> str:
    """For somebody who interrupted a run: what there is to resume from, and what to do."""
    if not (out / RUN_FILE).is_file():
        return f"interrupted before anything was written into {out}: give the same command again"
    if read_summary(out) is not None:
        return f"interrupted; the run in {out} is finished (--resume shows that nothing is left to do)"
    checkpoint = last_checkpoint(out)
    if checkpoint is not None:
        return f"interrupted; --resume continues from {checkpoint}"
    again = "with --overwrite added" if earlier_run(out) else "again"
    return (
        f"interrupted before the first checkpoint: there is nothing to resume from in {out}; give the same command "
        f"{again} (save_steps says when checkpoints are written)"
    )


def _written(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / RUN_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def checkpoints(out: Path) -> list[Path]:
    """The folders of checkpoints, newest first."""
    found = [p for p in out.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit() and p.is_dir()]
    return sorted(found, key=checkpoint_step, reverse=True)


def last_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint that was written to its end; what a kill cut short is passed over.

    Older checkpoints are removed only when a new one is complete.
    """
    return next((p for p in checkpoints(out) if is_whole(p)), None)
