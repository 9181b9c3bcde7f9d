"""A run that is killed goes on from its last checkpoint and logs what an unkilled run logs, step for step."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
import warm_start

from mgpo_core import EngineError
from mgpo_core.engines.loading import load_model
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.config.parser import make_config
from mgpo_train.models.checkpoint import restore_weights
from mgpo_train.output.folder import check_resume_compatible, prepare

STEPS = 6
OPTIONS = [
    "--max_steps", str(STEPS), "--save_steps", "2",
    "--per_device_train_batch_size", "16", "--num_generations", "4", "--eval_samples", "0", "--progress", "false",
    "--warmup_steps", "0", "--learning_rate", "1e-3",  # weights that move at once: going on from others would show
]  # fmt: skip


RECIPES = {
    "haystack-mgpo": ["--train_data", "haystack:train?n=64&seed=1"],
    # the control deals rewards out by seed and step: they must be dealt the same after the kill
    "haystack-mirg-rl": [
        "--train_data", "haystack_multi:train?n=64&seed=1", "--model", "haystack:multi", "--reward_control", "shuffle",
        "--difficulty_weighting", "true", "--max_completion_length", "48",
    ],
}  # fmt: skip


def command(recipe: str, folder: Path, *more: str, script: tuple[str, ...] = ("-m", "mgpo_train")) -> list[str]:
    options = [*OPTIONS, *RECIPES[recipe]]
    return [*script, recipe, *options, "--output_dir", str(folder), *more]


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


def config_of(folder: Path, method: str, rows: int, accumulation: int, processes: int, monkeypatch):
    """A run's configuration as one of so many processes would make it."""
    options = {
        "method": method, "output_dir": str(folder), "max_steps": 1, "num_generations": 4,
        "per_device_train_batch_size": rows, "gradient_accumulation_steps": accumulation,
    }  # fmt: skip
    monkeypatch.setattr(MGPOConfig, "world_size", processes)
    return make_config(folder / "mine.yaml", options, [])[0]


@pytest.mark.parametrize("method", ["mgpo", "sft"])
def test_the_number_of_processes_may_change_and_the_batch_of_all_may_not(method, tmp_path, monkeypatch):
    prepare(tmp_path, config_of(tmp_path, method, 8, 1, 2, monkeypatch), resume=False, settings={}, main=True)
    for rows, accumulation, processes in [(8, 1, 2), (4, 1, 4), (8, 2, 1), (16, 1, 1), (4, 2, 2)]:
        check_resume_compatible(tmp_path, config_of(tmp_path, method, rows, accumulation, processes, monkeypatch))
    with pytest.raises(
        ConfigError, match=r"world_size was 2 and is 1: .*16 rows .*has 8; --gradient_accumulation_steps 2"
    ):
        check_resume_compatible(tmp_path, config_of(tmp_path, method, 8, 1, 1, monkeypatch))
    with pytest.raises(ConfigError, match=r"had 16 rows .*has 36; give the same options"):
        check_resume_compatible(tmp_path, config_of(tmp_path, method, 12, 1, 3, monkeypatch))


def test_a_folder_that_recorded_less_is_not_refused_for_it(tmp_path, monkeypatch):
    config = config_of(tmp_path, "mgpo", 8, 1, 2, monkeypatch)
    prepare(tmp_path, config, resume=False, settings={}, main=True)
    written = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    del written["options"]["world_size"], written["options"]["top_entropy_quantile"]
    written["options"]["of_another_version"] = 1
    (tmp_path / "run.json").write_text(json.dumps(written), encoding="utf-8")
    check_resume_compatible(tmp_path, config_of(tmp_path, "mgpo", 8, 2, 1, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_killed_and_resumed_run_logs_the_same_steps(recipe, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    warm_start.check(command(recipe, whole))
    expected = rows(whole)
    assert [row["step"] for row in expected] == list(range(1, STEPS + 1))
    assert len({row["reward"] for row in expected}) > 1, "nothing varies: equality would show nothing"

    # killed by its own hand, so that it is the same step on every machine: step 3 is past the checkpoint of step 2
    failing = command(recipe, killed, script=(str(Path(__file__).with_name("failing_run.py")), "kill"))
    ended = warm_start.run(failing, FAIL_AFTER="3")
    assert ended.returncode == -signal.SIGKILL
    assert len(rows(killed)) == 3 and (killed / "checkpoint-2").is_dir()

    warm_start.check(command(recipe, killed, "--resume"))
    assert rows(killed) == expected
    if recipe == "haystack-mirg-rl":
        return  # what follows is the same code for every recipe

    # killed once more, now between the last step and the summary: not a step more, and the same weights
    (killed / "summary.json").unlink()
    (killed / "model" / "model.safetensors").unlink()
    warm_start.check(command(recipe, killed, "--resume"))
    assert rows(killed) == expected
    assert json.loads((killed / "summary.json").read_text(encoding="utf-8"))["steps"] == STEPS
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, killed)]
    assert weights[0] == weights[1]
