"""Whatever a command is told to write into, every byte that somebody else put there survives, and is where it was."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mgpo_core.episodes.trajectory import Trajectory
from mgpo_core.errors import MGPOError
from mgpo_core.render import write_report
from mgpo_core.runs.trajectory_log import remove_trajectories, write_trajectories
from mgpo_core.samples.sample import Sample
from mgpo_eval.models.journal import CompletedSample, Journal
from mgpo_eval.output_path import check_output_path
from mgpo_train.config.options import ConfigError, RunOptions
from mgpo_train.distributed.checkpoint_layout import checkpoint_step
from mgpo_train.haystack import commands
from mgpo_train.haystack.checkpoint_folder import checkpoint_folder
from mgpo_train.output.best_checkpoint import Best, BestFolder
from mgpo_train.output.checkpoint_rotation import rotate
from mgpo_train.output.folder import (
    _mark,
    _release,
    begin_model,
    check_folder,
    check_resume_compatible,
    last_checkpoint,
    own_record,
    write_own_json,
    writing,
)
from mgpo_train.output.metrics import MetricsLog
from mgpo_train.output.report import write_run_report
from mgpo_train.reasoning_data.output import OutputFolder

REFUSED = (MGPOError, ConfigError, OSError)

NAMES = [
    "run.json", "config.json", "metrics.jsonl", "summary.json", "before.json", "report.html", "curves.png",
    "trajectories.jsonl", "sft_traces.jsonl", "dropped.jsonl", "report.json", "build.json", "mgpo.json", "base.json",
    "model.safetensors", "tokenizer.json", "README.md", "trajectory.json", "original-0.png", "shown-0.png",
    "summary.tmp", "report.tmp.html", ".DS_Store", "naïve ünïcode.txt", "mgpo", "MODEL",
    "model/config.json", "model/model.safetensors", "model/notes.txt", "model/sub/deep/optimizer.pt",
    "adapter/adapter_model.safetensors", "best/best.json", "best/notes.md", "best.part/model.safetensors",
    "best.before/model.safetensors", "best.old/README.md", "checkpoint-1/trainer_state.json", "checkpoint-2/mine.bin",
    "checkpoint-4/model.safetensors", "checkpoint-4-good/model.safetensors", "checkpoint-9/rng_state.pth",
    "images/0123456789abcdef.png", "images/0123456789abcdef.tmp", "images/mine.png", "images/a-1.png",
    "images/photo.png", "lmms-eval/answers.json", "runs/events.out.tfevents.1", "completions/completions_00001.parquet",
    "vllm-weights/model.safetensors", "mgpo/run/run.json", "mgpo/run/rank0.jsonl", "mgpo/run/images/x.png",
    "pictures/0123456789abcdef.png", "pictures/0123456789abcdef.tmp", "pictures/mine.png", "mgpo/run/pictures/x.png",
]  # fmt: skip
CONTENTS = [b"mine", b"", b"{}", b'{"same_on_resume": {}}', b'{"program": "wandb"}', b'{"id": 1}\n', bytes(range(256))]
KINDS = ["file", "read-only", "link to a file", "link to a folder", "folder"]


@dataclass(frozen=True)
class Entry:
    name: str
    kind: str
    content: bytes


entries = st.lists(
    st.builds(Entry, st.sampled_from(NAMES), st.sampled_from(KINDS), st.sampled_from(CONTENTS)), min_size=1, max_size=5
)


def place(folder: Path, outside: Path, users: list[Entry]) -> None:
    """Put somebody's files into the folder, over what is there, as a person would: files, links, read-only ones."""
    for number, entry in enumerate(users):
        path = folder / entry.name
        with suppress(OSError):  # a name that is a file already cannot be a folder too
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                continue
            path.unlink(missing_ok=True)
            if entry.kind == "folder":
                path.mkdir()
            elif entry.kind.startswith("link"):
                target = outside / f"{number}"
                if entry.kind.endswith("folder"):
                    target.mkdir()
                    (target / "model.safetensors").write_bytes(entry.content)
                else:
                    target.write_bytes(entry.content)
                path.symlink_to(target)
            else:
                path.write_bytes(b"user " + entry.content)
                if entry.kind == "read-only":
                    path.chmod(0o444)


def belongings(folder: Path) -> dict[str, bytes | str]:
    """Every file's bytes, and every link's target, below a folder; links are not followed."""
    found: dict[str, bytes | str] = {}
    for at, folders, files in os.walk(folder):
        for name in (*files, *folders):
            path = Path(at, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = os.readlink(path)
            elif path.is_file():
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


class Options(RunOptions):
    world_size, process_index, lr_scheduler_type, warmup_steps = 1, 0, "constant", 0


def trajectory() -> Trajectory:
    from mgpo_core.episodes.episode import Episode
    from mgpo_core.templates.single_image import SingleTurn

    sample = Sample.of("What colour?", Image.new("RGB", (56, 56), "red"), answer="red", id="one")
    episode = Episode(sample, template=SingleTurn())
    episode.observe(r"\boxed{red}", tokens=3)
    return episode.trajectory


@pytest.fixture(scope="module")
def played() -> Trajectory:
    return trajectory()


def train(out: Path, shown: Trajectory, *, resume: bool = False, overwrite: bool = False, killed: bool = False) -> None:
    """All that a run of four steps does in its folder, through the functions by which it does it."""
    config = Options(overwrite=overwrite, output_dir=str(out))
    if resume:
        check_resume_compatible(out, config)
    else:
        check_folder(out, resume=False, overwrite=overwrite)
    _mark(out, {"options": {}, "data": {}}, {}, resume=resume)
    log, best = MetricsLog(out), BestFolder(out, lambda: own_record(out))
    write_own_json(out, "before.json", {})
    best.resume(0, lambda metric: Best(4, metric, 1.0))
    last = last_checkpoint(out)
    for step in range(1 if last is None else checkpoint_step(last) + 1, 5):
        best.clear_part()
        (out / "best.part").mkdir()
        (out / "best.part/model.safetensors").write_bytes(b"%d" % step)
        best.replace(Best(step, "eval/accuracy", step / 4), {})
        log.write(step, {"reward": 1.0})
        with writing(out, f"checkpoint-{step}", fresh=True):
            (out / f"checkpoint-{step}").mkdir(exist_ok=True)
            (out / f"checkpoint-{step}/model.safetensors").write_bytes(b"%d" % step)
            if killed and step == 4:
                raise KeyboardInterrupt
            (out / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps({"global_step": step}))
        rotate(out, step, 2)
        best.saved(step)
    with writing(out, "lmms-eval"):
        (out / "lmms-eval").mkdir(exist_ok=True)
        (out / "lmms-eval/answers.json").write_text("[]")
    begin_model(out, with_adapter=False)
    (out / "model").mkdir(exist_ok=True)
    (out / "model/config.json").write_text("ours")
    (out / "model/model.safetensors").write_bytes(b"ours")
    with writing(out, "report.html", "trajectories.jsonl"):
        write_run_report(out / "report.html", {"after": [shown]}, title="run")
    write_own_json(out, "summary.json", {"steps": 4})
    _release(out)


def build(out: Path, *, overwrite: bool = False) -> None:
    folder = OutputFolder(out, {"seed": 1}, overwrite=overwrite)
    folder.start()
    with folder.recording():
        folder._image(lambda: Image.new("RGB", (8, 8)), "a-1")
        for name in ("sft_traces.jsonl", "dropped.jsonl"):
            folder._write_lines(name, [{}])


def base(out: Path, *, overwrite: bool = False) -> None:
    commands._parsed(commands._parser("haystack-base", ""), ["--output_dir", str(out), *["--overwrite"] * overwrite])
    with checkpoint_folder(out, {"seed": 1}):
        for name in ("config.json", "model.safetensors", "tokenizer.json", "mgpo.json", "base.json"):
            (out / name).write_text("ours")


def evaluate(out: Path, shown: Trajectory) -> None:
    check_output_path(out)
    journal = Journal(out / "mgpo/run", about={"id": "run", "weights": {}})
    journal.add(CompletedSample("key", "text"))


COMMANDS: dict[str, Callable[[Path, Trajectory], object]] = {
    "train": train,
    "train --overwrite": lambda out, shown: train(out, shown, overwrite=True),
    "train --resume": lambda out, shown: train(out, shown, resume=True),
    "build": lambda out, shown: build(out),
    "build --overwrite": lambda out, shown: build(out, overwrite=True),
    "base": lambda out, shown: base(out),
    "base --overwrite": lambda out, shown: base(out, overwrite=True),
    "evaluate": evaluate,
    "report": lambda out, shown: write_report(out / "report.html", [shown], "page"),
    "Trajectory.save": lambda out, shown: shown.save(out),
    "write_trajectories": lambda out, shown: write_trajectories(out, {"after": [shown]}),
    "remove_trajectories": lambda out, shown: remove_trajectories(out),
}


@contextmanager
def scratch() -> Iterator[tuple[Path, Path]]:
    """(a folder to write into, a folder that nobody may touch)."""
    root = Path(tempfile.mkdtemp())
    (root / "out").mkdir()
    (root / "outside").mkdir()
    try:
        yield root / "out", root / "outside"
    finally:
        shutil.rmtree(root)


def run_everything(out: Path, outside: Path, played: Trajectory, mine: dict[str, bytes | str]) -> None:
    """Run every command in the folder, and see that what is the user's, in it and outside, is as it was."""
    theirs = belongings(outside)
    for name, run in COMMANDS.items():
        with suppress(REFUSED):
            run(out, played)
        now = belongings(out)
        lost = {path for path, content in mine.items() if now.get(path) != content}
        assert not lost and belongings(outside) == theirs, f"{name} lost {lost}"


@settings(max_examples=40)
@given(users=entries)
def test_a_folder_with_somebody_s_files_keeps_them_whatever_is_run(played: Trajectory, users: list[Entry]) -> None:
    with scratch() as (out, outside):
        place(out, outside, users)
        run_everything(out, outside, played, belongings(out))


@pytest.mark.parametrize("first", ["train", "killed", "build", "base"])
@settings(max_examples=10)
@given(users=entries)
def test_what_is_put_into_a_folder_of_ours_stays_whatever_is_run_then(
    played: Trajectory, first: str, users: list[Entry]
) -> None:
    with scratch() as (out, outside):
        if first == "killed":
            with suppress(KeyboardInterrupt):
                train(out, played, killed=True)
        else:
            COMMANDS[first](out, played)
        before = belongings(out)
        # of what is being written when a run is killed, its own names are its own
        open_names = ("metrics.jsonl", "runs/", "completions/") if first == "killed" else ()
        place(out, outside, [entry for entry in users if not entry.name.startswith(open_names)])
        mine = {path: content for path, content in belongings(out).items() if before.get(path) != content}
        run_everything(out, outside, played, mine)
