"""Both stages of MIRG-RL train on two processes as on one, however many images each process has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from launching import launch

pytest.importorskip("deepspeed")
HERE = Path(__file__).parent
STEPS = 3


def work(layout: str, processes: int, folder: Path, method: str) -> Path:
    """Run the worker on the same batch of four samples a step, whatever the number of processes."""
    stage = {"plain": 0, "zero3": 3}[layout]
    worker = [str(HERE / "mirg_worker.py"), str(folder), str(4 // processes), str(stage), method]
    folder.mkdir()
    done = launch(layout, processes, *worker)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def logged(folder: Path) -> list[dict[str, float]]:
    rows = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    return [row for row in rows if "loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "mirg"])
def test_two_processes_with_different_numbers_of_images_train_as_one(method: str, tmp_path: Path) -> None:
    """Images per sample, first and second process: 2 2 | 5 5, then 6 2 | 2 3, then 3 3 | 2 6; ZeRO-3."""
    alone, together = work("plain", 1, tmp_path / "alone", method), work("zero3", 2, tmp_path / "together", method)
    expected, found = logged(alone), logged(together)
    assert len(found) == len(expected) == STEPS
    for one, two in zip(expected, found, strict=True):
        names = ["loss", "grad_norm"]
        if method == "mirg":
            names += ["rewards/object/mean", "rewards/image/mean", "rewards/format/mean", "difficulty_weight"]
        for name in names:
            assert two[name] == pytest.approx(one[name], abs=1e-4), (name, one["step"])
    if method == "mirg":
        assert expected[0]["difficulty_weight"] > 1
        assert 0 < expected[0]["rewards/object/mean"] < expected[0]["rewards/image/mean"] < 1
    assert max(abs(row["loss"]) for row in expected) > 1e-3, "a loss of nothing would show nothing"
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (alone, together)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=0, atol=2e-5, msg=name)
