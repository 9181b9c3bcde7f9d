"""Two processes train as one does, whatever their samples, and where a group lies on both; so does one after them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

sys.path.insert(0, str(Path(__file__).parent))
from launching import launch

pytest.importorskip("deepspeed")
HERE = Path(__file__).parent
STEPS, SAVED = 10, 6
ROLLOUTS = 12
"""Of a step: three groups of four, the second of which lies on both of two processes."""
TIMES = ("time", "step_time")
STAGES = {"plain": 0, "ddp": 0, "zero2": 2, "zero3": 3}


def work(layout: str, processes: int, folder: Path, *checkpoint: str) -> Path:
    """Run the worker on the same batch, whatever the number of processes."""
    worker = [
        str(HERE / "distributed_worker.py"),
        str(folder),
        str(ROLLOUTS // processes),
        str(STAGES[layout]),
        *checkpoint,
    ]
    folder.mkdir(exist_ok=True)
    done = launch(layout, processes, *worker)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def logged(folder: Path, after: int = 0) -> list[dict[str, float]]:
    rows = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    return [row for row in rows if "loss" in row and row["step"] > after]


def assert_same(expected: Path, found: Path, after: int = 0) -> None:
    """The same losses after a step, and the same weights at the end."""
    rows = logged(found, after)
    assert len(rows) == STEPS - after
    for one, two in zip(logged(expected, after), rows, strict=True):
        names = {name for name in one if not name.startswith(TIMES)}
        assert names == {name for name in two if not name.startswith(TIMES)}
        assert {"loss", "grad_norm", "entropy"} <= names
        # of every second step, which uses the rollouts of the one before again, there is no more to tell
        assert one["step"] % 2 == 0 or {"accuracy", "frac_zero_advantage_groups", "rejected/outside"} <= names
        for name in names:
            assert two[name] == pytest.approx(one[name], abs=1e-4), (name, one["step"])
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (expected, found)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process logs with the whole batch."""
    folder = work("plain", 1, tmp_path_factory.mktemp("alone"))
    rows = logged(folder)
    losses = [row["loss"] for row in rows]
    assert len(losses) == STEPS and len(set(losses)) == STEPS, "losses that do not vary would show nothing"
    assert [row.get("dynamic_sampling/replaced_groups") for row in rows[:4]] == [1, None, 0, None]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "zero2", "zero3"])
def test_two_processes_train_as_one_and_one_goes_on_from_their_checkpoint(
    layout: str, alone: Path, tmp_path: Path
) -> None:
    """The second process's samples are, in turn: plain, refused boxes, two images each, no image, half without.

    The first step's group that lies on both is given up by both, for the same fresh sample.
    """
    together = work(layout, 2, tmp_path / "together")
    assert_same(alone, together)
    AutoModelForImageTextToText.from_pretrained(together / "model")
    checkpoint = together / f"checkpoint-{SAVED}"
    if layout == "zero3":
        assert_consolidated(checkpoint)
    resumed = work("plain" if layout == "ddp" else layout, 1, tmp_path / "resumed", str(checkpoint))
    assert_same(alone, resumed, after=SAVED)


def assert_consolidated(checkpoint: Path) -> None:
    """DeepSpeed's own tool makes the shards one set of weights: those that the checkpoint holds for AutoModel."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    merged = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=0, msg=name)
