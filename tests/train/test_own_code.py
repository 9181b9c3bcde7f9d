"""Rewards and a template from files of the user's: trained with, resumed with, evaluated with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import warm_start

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TEMPLATE = "my_templates.py:ThreeTurn"
TRAIN = [
    "-m", "mgpo_train", "haystack-mgpo", "--rewards", "accuracy", "my_rewards.py:short_answer",
    "--reward_weights", "1", "0.1", "--template", TEMPLATE, "--train_data", "haystack:train?n=8&seed=1",
    "--eval_data", "none", "--eval_ood_data", "none", "--max_steps", "2", "--save_steps", "1",
    "--per_device_train_batch_size", "4", "--num_generations", "2", "--max_completion_length", "16",
    "--progress", "false", "--output_dir", "out",
]  # fmt: skip
EVALUATE = ["-m", "mgpo_eval", "--model", "mgpo", "--tasks", "haystack", "--limit", "2", "--model_args"]


def refusal(folder: Path, *command: str) -> str:
    done = warm_start.run(command, folder=folder)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_own_files_train_resume_and_evaluate(tmp_path: Path) -> None:
    rewards, out = tmp_path / "my_rewards.py", tmp_path / "out"
    for name in (rewards.name, "my_templates.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    warm_start.check(TRAIN, folder=tmp_path)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        total = row["rewards/accuracy/mean"] + 0.1 * row["rewards/short_answer/mean"]
        assert row["reward"] == pytest.approx(total, abs=1e-5) and "length/turn3" in row

    shutil.rmtree(out / "checkpoint-2")  # as killed before it was written
    (out / "summary.json").unlink()
    rewards.rename(tmp_path / "moved.py")
    error = refusal(tmp_path, *TRAIN, "--resume")
    assert "rewards='my_rewards.py:short_answer': no such file 'my_rewards.py'" in error
    rewards.write_text((tmp_path / "moved.py").read_text().replace("ENOUGH = 40", "ENOUGH = 4"))
    assert "--resume: my_rewards.py was changed since the run began; restore" in refusal(tmp_path, *TRAIN, "--resume")
    shutil.copy(tmp_path / "moved.py", rewards)
    warm_start.check([*TRAIN, "--resume"], folder=tmp_path)
    again = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["rewards/short_answer/mean"] for line in again] == [
        json.loads(line)["rewards/short_answer/mean"] for line in lines
    ]

    warm_start.check([*EVALUATE, f"pretrained=out/model,template={TEMPLATE}"], folder=tmp_path)
    [log] = (tmp_path / "outputs" / "eval").rglob("*_samples_haystack.jsonl")
    assert log.read_text().count("three_turn") >= 2
