"""None waits when another process fails; after a kill they go on to the same end, or one alone with the same batch."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import HANG
from safetensors.torch import load_file

from mgpo_train.distributed.checkpoint_layout import is_whole
from mgpo_train.distributed.sharding_plan import PLANS
from mgpo_train.output.metrics import METRICS_FILE, read_metrics

sys.path.insert(0, str(Path(__file__).parent))
from launching import launch

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow
FAILING = str(Path(__file__).parent / "failing_run.py")
STEPS, KILLED = 4, 3
OPTIONS = [
    "haystack-mgpo", "--max_steps", str(STEPS), "--save_steps", "1", "--train_data", "haystack:train?n=64&seed=1",
    "--num_generations", "4", "--eval_samples", "0", "--progress", "false", "--max_completion_length", "48",
    "--warmup_steps", "0", "--learning_rate", "1e-3", "--lr_scheduler_type", "constant",
]  # fmt: skip


def words(processes: int, folder: Path, *more: str) -> list[str]:
    """The recipe and options of a run with 16 rollouts a step."""
    rows = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", str(2 // processes)]
    return [*OPTIONS, *rows, "--output_dir", str(folder), *more]


def finish(processes: int, folder: Path, *more: str) -> None:
    """A run that must end well."""
    done = launch("zero2", processes, "-m", "mgpo_train", *words(processes, folder, *more))
    assert done.returncode == 0, done.stderr[-3000:]


def metrics(folder: Path) -> list[dict[str, float]]:
    rows = read_metrics(folder / METRICS_FILE)
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in rows]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, stderr) of a run under `accelerate launch` whose second process was killed in its third step."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    plan = ["--config_file", str(PLANS / "cpu-2-zero2.yaml"), "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *plan, FAILING, "kill", *words(2, folder)]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=HANG)
    assert ended.returncode != 0
    assert [row["step"] for row in metrics(folder)] == list(range(1, KILLED)), ended.stderr[-3000:]
    return folder, ended.stderr


def test_when_one_process_is_killed_the_other_ends_and_names_it(killed: tuple[Path, str]) -> None:
    assert re.search(r"mgpo-train: error: rank 0 ends, because rank 1 exited without an error message", killed[1]), (
        killed[1][-3000:]
    )


def test_when_one_process_raises_the_other_ends_and_names_it_and_the_reason(tmp_path: Path) -> None:
    ended = launch("zero2", 2, FAILING, "raise", *words(2, tmp_path / "run"))
    assert ended.returncode != 0
    named = r"mgpo-train: error: rank 0 ends, because rank 1 .*OSError: no space left"
    assert re.search(named, ended.stderr), ended.stderr[-3000:]


def test_the_same_processes_go_on_as_if_nothing_had_been_killed(killed: tuple[Path, str], tmp_path: Path) -> None:
    preserve_rng_state, resumed = tmp_path / "preserve_rng_state", tmp_path / "resumed"
    finish(2, preserve_rng_state)
    expected = metrics(preserve_rng_state)
    assert len(expected) == STEPS and len({row["reward"] for row in expected}) > 1

    shutil.copytree(killed[0], resumed)
    finish(2, resumed, "--resume")
    for one, two in zip(expected, metrics(resumed), strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    assert_same_weights(preserve_rng_state, resumed, atol=1e-5)

    # one process, which has nothing left to do, ends the run of two with their weights
    for written in ("summary.json", "model/model.safetensors"):
        (resumed / written).unlink()
    finish(1, resumed, "--resume")
    assert [row["step"] for row in metrics(resumed)] == list(range(1, STEPS + 1))
    assert_same_weights(preserve_rng_state, resumed, atol=1e-5)


def test_one_process_goes_on_with_the_same_batch_from_the_last_whole_checkpoint(
    killed: tuple[Path, str], tmp_path: Path
) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(killed[0], resumed)
    (shard,) = resumed.glob("checkpoint-2/global_step2/*zero_pp_rank_1_*optim_states.pt")
    shard.unlink()  # as if a machine had gone down with it
    assert not is_whole(resumed / "checkpoint-2") and is_whole(resumed / "checkpoint-1")

    finish(1, resumed, "--resume")
    found = metrics(resumed)
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert found[0] == metrics(killed[0])[0]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in found)


def assert_same_weights(one: Path, two: Path, atol: float) -> None:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=0, atol=atol, msg=name)
