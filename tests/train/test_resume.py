"""A run that is killed goes on from its last checkpoint and logs what an unkilled run logs, step for step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mgpo_core import EngineError
from mgpo_core.engines.loading import load_model
from mgpo_train.checkpoint import restore_weights

STEPS = 6
OPTIONS = [
    "--max_steps", str(STEPS), "--save_steps", "2", "--train_data", "haystack:train?n=64&seed=1",
    "--per_device_train_batch_size", "16", "--num_generations", "4", "--eval_samples", "0", "--progress", "false",
    "--warmup_steps", "0", "--learning_rate", "1e-3",  # weights that move at once: going on from others would show
]  # fmt: skip


def command(recipe: str, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "mgpo_train", recipe, *OPTIONS, "--output_dir", str(folder), *more]


def rows(folder: Path) -> list[dict]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines if line.endswith("}")
    ]


def test_a_checkpoint_s_weights_come_back_whatever_names_they_are_written_under(tmp_path):
    trained, resumed = load_model("haystack:mgpo"), load_model("haystack:base")
    trained.save_pretrained(tmp_path)
    before = {name: tensor.clone() for name, tensor in resumed.state_dict().items()}
    restore_weights(resumed, tmp_path)
    after = resumed.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in trained.state_dict().items())
    assert any(not torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    model = load_model("haystack:base")
    model.save_pretrained(tmp_path)
    model.model.language_model.norm = torch.nn.LayerNorm(7)
    with pytest.raises(EngineError, match="does not fit"):
        restore_weights(model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["haystack-mgpo", "haystack-mgpo-shuffled"])
def test_a_killed_and_resumed_run_logs_the_same_steps(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(recipe, whole), check=True, timeout=400)
    expected = rows(whole)
    assert [row["step"] for row in expected] == list(range(1, STEPS + 1))
    assert len({row["reward"] for row in expected}) > 1, "nothing varies: equality would show nothing"

    process = subprocess.Popen(command(recipe, killed))
    deadline = time.monotonic() + 300
    while len(rows(killed)) < 3:  # step 3 is past the checkpoint of step 2
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run took too long to reach step 3"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(rows(killed)) < STEPS

    subprocess.run(command(recipe, killed, "--resume"), check=True, timeout=400)
    assert rows(killed) == expected

    # killed once more, now between the last step and the summary: not a step more, and the same weights
    (killed / "summary.json").unlink()
    (killed / "model" / "model.safetensors").unlink()
    subprocess.run(command(recipe, killed, "--resume"), check=True, timeout=400)
    assert rows(killed) == expected
    assert json.loads((killed / "summary.json").read_text(encoding="utf-8"))["steps"] == STEPS
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]
