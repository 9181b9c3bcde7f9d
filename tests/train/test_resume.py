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

STEPS = 6
OPTIONS = [
    "--max_steps", str(STEPS), "--save_steps", "2", "--train_data", "haystack:train?n=64&seed=1",
    "--per_device_train_batch_size", "16", "--num_generations", "4", "--eval_samples", "0", "--progress", "false",
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


@pytest.mark.slow
def test_a_killed_and_resumed_run_logs_the_same_steps(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command("haystack-mgpo", whole), check=True, timeout=400)
    expected = rows(whole)
    assert [row["step"] for row in expected] == list(range(1, STEPS + 1))
    assert len({row["reward"] for row in expected}) > 1, "nothing varies: equality would show nothing"

    process = subprocess.Popen(command("haystack-mgpo", killed))
    deadline = time.monotonic() + 300
    while len(rows(killed)) < 3:  # step 3 is past the checkpoint of step 2
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run took too long to reach step 3"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(rows(killed)) < STEPS

    subprocess.run(command("haystack-mgpo", killed, "--resume"), check=True, timeout=400)
    assert rows(killed) == expected
