"""`best/` is right and whole whenever a run is killed: every operation on the disk is tried as the last one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mgpo_train.output.best_checkpoint import Best, BestFolder, best_of, read_best
from mgpo_train.output.metrics import MetricsLog

METRIC = "eval/accuracy"
RUNS = {
    "better and better": ([0.1, 0.2, 0.3, 0.4, 0.5], {2, 4}),
    "worse and worse": ([0.5, 0.4, 0.3, 0.2, 0.1], {2, 4}),
    "equal": ([0.5, 0.5, 0.5], {1}),
    "up and down": ([0.2, 0.4, 0.3, 0.6, 0.5, 0.7], {1, 4}),
    "several between two checkpoints": ([0.1, 0.3, 0.4, 0.5, 0.6, 0.2], {1, 5}),
    "no checkpoint": ([0.1, 0.2, 0.15, 0.3], set()),
    "not a number first": ([float("nan"), 0.2, float("nan"), 0.3], {1}),
}
"""Scores by step, and the steps after which a checkpoint is written."""


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """Lets so many operations happen, and none after that; folders are removed file by file, weights first."""

    def __init__(self, allowed: float) -> None:
        self.allowed = allowed

    def tick(self) -> None:
        if self.allowed <= 0:
            raise Killed
        self.allowed -= 1

    def counted(self, operation: Callable) -> Callable:
        def counting(*args, **kwargs):
            self.tick()
            return operation(*args, **kwargs)

        return counting

    def rmtree(self, folder: Path, **options) -> None:
        for path in sorted(folder.iterdir(), key=lambda path: path.name != "weights"):
            path.unlink()
        self.tick()
        folder.rmdir()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("open", "rename", "replace", "unlink", "mkdir"):
            monkeypatch.setattr(Path, name, self.counted(getattr(Path, name)))
        monkeypatch.setattr(shutil, "rmtree", self.rmtree)


def best_among(values: list[float], last: int) -> int:
    """Brute force: the first step with the highest score up to the last one."""
    return -max((value, -step) for step, value in enumerate(values[: last + 1]) if value == value)[1]


def train(out: Path, values: list[float], saves: set[int], tick: Callable[[], None] = lambda: None) -> None:
    """A run as far as scores go: from its last checkpoint to its end, in the order of `PeriodicEvaluation`."""
    checkpoint = out / "checkpoint"
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    log, folder = MetricsLog(out, keep_to_step=start), BestFolder(out)
    best = folder.resume(start, lambda metric: best_of(log.rows(), metric, METRIC))
    logged = {row["step"] for row in log.rows()}
    if best is not None:
        check(out, values, start)
    for step in range(start, len(values)):
        if step not in logged:
            best = evaluate(folder, log, best, step, values[step], tick)
            if best is not None:
                check(out, values, step)
        if step in saves and step > start:
            checkpoint.write_text(str(step))
            folder.saved(step)


def evaluate(
    folder: BestFolder, log: MetricsLog, best: Best | None, step: int, value: float, tick: Callable[[], None]
) -> Best | None:
    found = Best(step, METRIC, value)
    if value == value if best is None else best.beaten_by(value):
        best = found
        folder.clear_part()
        folder.part.mkdir()
        (folder.part / "weights").write_text(str(step))
        folder.replace(found, {METRIC: value})
    tick()
    log.write(step, {METRIC: value})
    return best


def check(out: Path, values: list[float], step: int) -> None:
    """`best/` holds the best up to this step."""
    expected = best_among(values, step)
    record = {"step": expected, "metric": METRIC, "value": values[expected], "scores": {METRIC: values[expected]}}
    assert read_best(out / "best") == record
    assert int((out / "best" / "weights").read_text()) == expected


def train_until_killed(
    out: Path, values: list[float], saves: set[int], allowed: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Whether a run that may do so many operations on the disk was killed before its end."""
    disk = Disk(allowed)
    with monkeypatch.context() as patch:
        disk.install(patch)
        try:
            train(out, values, saves, disk.tick)
        except Killed:
            return True
    return False


def kills(out: Path, values: list[float], saves: set[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Start the run anew for every number of operations after which it may be killed, until it is not."""
    for allowed in count():
        shutil.rmtree(out)
        out.mkdir()
        if not train_until_killed(out, values, saves, allowed, monkeypatch):
            return
        yield allowed


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_anywhere_goes_on_with_the_best_of_its_checkpoint(name, tmp_path, monkeypatch):
    values, saves = RUNS[name]
    killed = 0
    for allowed in kills(tmp_path, values, saves, monkeypatch):
        killed = allowed
        if (tmp_path / "best").exists():
            record = read_best(tmp_path / "best")
            assert record and int((tmp_path / "best" / "weights").read_text()) == record["step"], "half a folder"
        train(tmp_path, values, saves)
    assert killed > 10, "the run was killed nowhere"
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= {"best", "best.before"}


@pytest.mark.parametrize("second", [0, 1, 2, 3, 5, 8, 13])
def test_a_run_killed_twice_goes_on_too(second, tmp_path, monkeypatch):
    values, saves = RUNS["up and down"]
    for _ in kills(tmp_path, values, saves, monkeypatch):
        train_until_killed(tmp_path, values, saves, second, monkeypatch)
        train(tmp_path, values, saves)


def test_a_folder_that_is_half_removed_does_not_pass_for_whole(tmp_path, monkeypatch):
    train(tmp_path, [0.1], set())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda folder: None)  # killed before it had removed anything
        BestFolder(tmp_path)._remove("best")
    assert (tmp_path / "best.old" / "weights").exists() and not (tmp_path / "best").exists()
    assert read_best(tmp_path / "best.old") is None


def test_a_lost_checkpoint_leaves_what_is_there_until_something_is_better(tmp_path):
    values = [0.1, 0.5, 0.2, 0.9, 0.3]
    train(tmp_path, values, {2, 4})
    (tmp_path / "checkpoint").write_text("2")  # the newest is gone, and with it what was best before its best
    log, folder = MetricsLog(tmp_path, keep_to_step=2), BestFolder(tmp_path)
    best = folder.resume(2, lambda metric: best_of(log.rows(), metric, METRIC))
    assert best == Best(1, METRIC, 0.5)
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 3
    for step in (3, 4):
        best = evaluate(folder, log, best, step, values[step], lambda: None)
        check(tmp_path, values, step)
