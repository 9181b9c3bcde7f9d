"""The command: quick answers, one parser for files and words, refusals with the nearest right name."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import HANG

from mgpo_train import cli
from mgpo_train.config import recipes as recipe_files
from mgpo_train.config.options import ConfigError, grouped_fields
from mgpo_train.config.parser import make_config
from mgpo_train.output.folder import check_resume_compatible
from mgpo_train.quick_checks import check_quickly


def make(tmp_path: Path, text: str, *arguments: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return make_config(path, recipe_files.read(path), arguments)


def test_help_shows_groups_and_three_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"{title}:" in text for title in grouped_fields())
    assert all(f"--{option.name} " in text for options in grouped_fields().values() for option in options)
    assert text.count("\n  mgpo-train ") >= 3
    assert "--help-all" in text


def test_no_arguments_mean_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "usage: mgpo-train" in capsys.readouterr().out


def test_list_has_a_line_for_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    *lines, empty, configurations = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_files.names()
    assert empty == "" and (Path(configurations.split(": ")[1]) / "zero3.yaml").is_file()
    assert all(len(line.split()) > 5 for line in lines)


def test_a_list_cut_off_by_its_reader_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", buffering=1, encoding="utf-8") as cut_off:
        monkeypatch.setattr(sys, "stdout", cut_off)
        assert cli.main(["--list"]) == 0


@pytest.mark.parametrize("flag", ["--help", "--list"])
def test_quick_answers_do_without_torch(flag: str) -> None:
    code = (
        "import sys; from mgpo_train.cli import main; main([sys.argv[1]]); "
        "sys.exit(3 if {'torch', 'transformers', 'trl'} & set(sys.modules) else 0)"
    )
    started = time.process_time()
    assert subprocess.run([sys.executable, "-c", code, flag], stdout=subprocess.DEVNULL, timeout=HANG).returncode == 0
    assert time.process_time() - started < 1.5


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config, given = make(
        tmp_path,
        "description: mine\nmethod: grpo\nlearning_rate: 1e-5\nfreeze: [vision]\neval_data: null\nbf16: false\n",
        *["--learning-rate", "3e-4", "--seed=7", "--freeze", "merger", "language", "--no-eval-greedy"],
    )
    assert (config.method, config.learning_rate, config.seed) == ("grpo", 3e-4, 7)
    assert config.freeze == ["merger", "language"]
    assert config.eval_data is None
    assert config.eval_greedy is False
    assert config.output_dir == "outputs/mine"
    assert set(given) == {"method", "learning_rate", "freeze", "eval_data", "bf16", "seed", "eval_greedy"}


def test_both_spellings_and_upstreams_options_are_taken(tmp_path: Path) -> None:
    text = "learning-rate: 2.0e-5\nlr_scheduler_kwargs: {num_cycles: 2}\nreport_to: [tensorboard, wandb]\n"
    words = ["--epsilon_high", "0.28", "--adam-beta2", "0.95", "--columns", '{"answer": "label"}']
    config, _ = make(tmp_path, text, *words)
    assert (config.learning_rate, config.epsilon_high, config.adam_beta2) == (2e-5, 0.28, 0.95)
    assert config.lr_scheduler_kwargs == {"num_cycles": 2}
    assert config.columns == {"answer": "label"}
    assert config.report_to == ["tensorboard", "wandb"]


def test_data_may_be_a_mapping_in_the_file(tmp_path: Path) -> None:
    config, _ = make(tmp_path, "train_data:\n  path: my/set\n  n: 10\n  columns: {question: prompt}\n")
    assert config.train_data == {"path": "my/set", "n": 10, "columns": {"question": "prompt"}}


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("learning_rat: 1\n", [], r"mine\.yaml: unknown option 'learning_rat': did you mean 'learning_rate'"),
        ("seed: 1\n", ["--num-generation", "4"], "unknown option --num_generation: did you mean 'num_generations'"),
        ("seed: 1\n", ["--lr=1"], "unknown option --lr: did you mean 'learning_rate'"),
        ("lr: 1\n", [], "unknown option 'lr': did you mean 'learning_rate'"),
        ("seed: 1\n", ["--num-gpus", "8"], "unknown option --num_gpus: accelerate launch --num_processes N"),
        (
            "seed: 1\n",
            ["--trainer.n_gpus_per_node=8"],
            "unknown option --trainer.n_gpus_per_node: accelerate launch --num_processes N",
        ),
        ("seed: 1\n", ["--rollout.n=8"], "unknown option --rollout.n: did you mean 'num_generations'"),
        ("seed: 1\n", ["--resum"], "did you mean 'resume'"),
        ("seed: 1\n", ["4"], "unexpected argument '4'"),
        ("seed: one\n", [], r"mine\.yaml: --seed: invalid int value: 'one'"),
        ("seed: 1\n", ["--learning_rate", "fast"], "learning_rate.*invalid float value: 'fast'"),
        ("seed: 1\n", ["--eval_greedy", "perhaps"], "eval_greedy"),
        ("seed: 1\n", ["--resume_from_checkpoint", "x"], "use --resume"),
        ("method: mpgo\n", [], "did you mean 'mgpo'"),
        ("- a\n- b\n", [], "option: value"),
        ("a: [\n", [], "is not YAML"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_right_one(
    tmp_path: Path, text: str, arguments: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        make(tmp_path, text, *arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["haystack-mgop"], "did you mean 'haystack-mgpo'"),
        (["haystack-mgpo.yaml"], "did you mean the recipe 'haystack-mgpo'"),
        (["nowhere.yaml"], "no such file"),
        (["--seed", "1"], "name a recipe or a YAML file first"),
    ],
)
def test_the_command_tells_what_it_refuses(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_folder_with_an_earlier_run_is_not_written_over(tmp_path: Path) -> None:
    from mgpo_train.output.folder import prepare, writing

    config, given = make(tmp_path, "seed: 1\n", "--output_dir", str(tmp_path / "out"))
    out = tmp_path / "out"
    options = {"config": config, "settings": given, "main": True}
    assert prepare(out, resume=False, **options) == (None, 0)
    (out / "metrics.jsonl").write_text("{}\n")
    (out / "notes.txt").write_text("mine")
    with writing(out, "trajectories.jsonl"):
        (out / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="--resume.*--overwrite.*--output_dir"):
        prepare(out, resume=False, **options)
    config.overwrite = True
    prepare(out, resume=False, **options)
    assert not any((out / name).exists() for name in ("metrics.jsonl", "trajectories.jsonl"))
    assert (out / "notes.txt").exists()


def test_resume_takes_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    from mgpo_train.output.folder import own_record, prepare

    config, given = make(tmp_path, "seed: 1\n", "--output_dir", str(tmp_path / "out"))
    out = tmp_path / "out"
    options = {"config": config, "settings": given, "main": True}
    assert prepare(out, resume=True, **options) == (None, 0)
    for step, state in ((9, {"global_step": 9}), (10, {"global_step": 10})):
        (out / f"checkpoint-{step}").mkdir()
        (out / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
        (out / f"checkpoint-{step}" / "optimizer.pt").touch()
    (out / "checkpoint-11").mkdir()  # killed before its state was written
    own_record(out).begin("checkpoint-12")
    (out / "checkpoint-12").mkdir()
    (out / "checkpoint-12" / "trainer_state.json").write_text('{"global_st')  # killed while it was
    assert prepare(out, resume=True, **options) == (out / "checkpoint-10", 10)
    config.learning_rate = 0.5
    with pytest.raises(ConfigError, match=r"learning_rate was 1e-06 and is 0\.5"):
        prepare(out, resume=True, **options)


def finished_run(tmp_path: Path, *arguments: str):
    """A folder as a run of 3 steps leaves it, and the configuration that asks for the same again."""
    from mgpo_train.output.folder import prepare, write_own_json

    out = tmp_path / "out"
    text = f"max_steps: 3\nlr_scheduler_type: constant\noutput_dir: {out}\n"
    config, given = make(tmp_path, text, *arguments)
    prepare(out, config, resume=False, settings=given, main=True)
    (out / "checkpoint-3").mkdir()
    (out / "checkpoint-3" / "trainer_state.json").write_text('{"global_step": 3}')
    (out / "checkpoint-3" / "optimizer.pt").touch()
    write_own_json(out, "summary.json", {"steps": 3})
    return out, text


def test_resuming_a_finished_run_does_nothing_but_checks_the_options_first(tmp_path: Path) -> None:
    from mgpo_train.run import run

    _, text = finished_run(tmp_path)
    config, given = make(tmp_path, text)
    assert run(config, resume=True, overrides=given) == {"steps": 3}
    config, given = make(tmp_path, text, "--reward_control", "shuffle")
    with pytest.raises(ConfigError, match="reward_control was 'none' and is 'shuffle'"):
        run(config, resume=True, overrides=given)


@pytest.mark.parametrize(
    "change",
    [
        ["--template", "single_turn"],
        ["--strict_boxes"],
        ["--freeze", "vision"],
        ["--min_pixels", "1568"],
        ["--rewards", "accuracy", "format"],
        ["--reward_weights", "2"],
        ["--per_device_train_batch_size", "16"],
        ["--gradient_accumulation_steps", "2"],
        ["--temperature", "0.9"],
        ["--beta", "0.01"],
        ["--lr_scheduler_type", "linear"],
        ["--max_completion_length", "32"],
        ["--columns", "question=prompt"],
        ["--dynamic_sampling", "2"],
        ["--importance_sampling_level", "sequence"],
        ["--top_entropy_quantile", "0.2"],
        ["--min_p", "0.1"],
        ["--repetition_penalty", "1.1"],
        ["--delta", "2.0"],
        ["--label_smoothing_factor", "0.1"],
        ["--optim_args", "foreach=false"],
        ["--disable_dropout"],
        ["--use_vllm"],
        ["--vllm_max_model_length", "600"],  # ends conversations, without vLLM too
        ["--vllm_options", '{"kv_cache_dtype": "fp8"}'],
        ["--accelerator_config", '{"split_batches": true}'],
    ],
)
def test_options_that_change_the_steps_are_refused_when_a_run_goes_on(tmp_path: Path, change: list[str]) -> None:
    out, text = finished_run(tmp_path)
    config, _ = make(tmp_path, text, *change)
    with pytest.raises(ConfigError, match=f"--resume: .*{change[0][2:]} was"):
        check_resume_compatible(out, config)


def quickly(folder: Path, *words: str) -> None:
    path = folder / "mine.yaml"
    check_quickly(path, recipe_files.read(path), list(words), resume=True, dry=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seed", "1", "--beta=0.01"], "--resume: seed was 42 and is 1, beta was 0.0 and is 0.01; give the same"),
        (["--template", "single_turn"], "template was 'two_turn' and is single_turn"),
        (["--bf16=yes"], "bf16 was False and is yes"),
    ],
)
def test_changed_options_are_refused_before_torch_is_needed(tmp_path: Path, change: list[str], message: str) -> None:
    finished_run(tmp_path, "--bf16", "false")
    with pytest.raises(ConfigError, match=re.escape(message)):
        quickly(tmp_path, "--seed", "2", *change)


def test_the_same_options_pass_the_quick_checks(tmp_path: Path) -> None:
    given = ["--seed", "7", "--learning_rate", "1e-4", "--strict-boxes", "yes", "--columns", "question=prompt"]
    given += ["--rewards", "accuracy", "--reward_weights", "2", "--template=two_turn", "--eval_data", "none"]
    given += ["--accelerator_config", '{"split_batches": true}', "--no_eval_greedy", "--optim_args", "foreach=false"]
    given += ["--lr_scheduler_type", "constant", "--save_steps", "5", "--lora_target_modules", "q_proj", "--use_peft"]
    finished_run(tmp_path, *given)
    free = ["--output_dir", str(tmp_path / "out"), "--save_steps", "2", "--max_steps", "9", "--use_cpu"]
    quickly(tmp_path, *given, *free, "--learning_rate=0.0001")


@pytest.mark.parametrize(("option", "name"), [("rewards", ":one"), ("template", ":TwoTurn"), ("plugins", "")])
def test_a_changed_file_of_the_users_is_refused_by_name(tmp_path: Path, option: str, name: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from mgpo_core import TwoTurn\ndef one(trajectory): return 1.0\n")
    spec = f"{file}{name}"
    out, text = finished_run(tmp_path, f"--{option}", spec)
    quickly(tmp_path, f"--{option}", spec)
    file.write_text(file.read_text().replace("1.0", "0.5"))
    with pytest.raises(ConfigError, match=re.escape(f"--resume: {file} was changed since the run began; restore")):
        quickly(tmp_path, f"--{option}", spec)
    with pytest.raises(ConfigError, match=re.escape(f"--resume: {file} was changed")):
        check_resume_compatible(out, make(tmp_path, text, f"--{option}", spec)[0])


def test_what_a_full_memory_needs_may_change(tmp_path: Path) -> None:
    out, text = finished_run(tmp_path)
    changes = ["--per_device_eval_batch_size", "2", "--rollout_batch_size", "2", "--gradient_checkpointing", "true"]
    check_resume_compatible(out, make(tmp_path, text, *changes)[0])


@pytest.mark.parametrize("longer", [["--max_steps", "5"], ["--max_steps", "-1", "--num_train_epochs", "2"]])
def test_a_finished_run_goes_on_when_more_steps_are_wanted(tmp_path: Path, longer: list[str], monkeypatch) -> None:
    from mgpo_train import run as module

    out, text = finished_run(tmp_path)
    config, given = make(tmp_path, text, *longer, "--train_data", "haystack:train?n=960&seed=1")
    reached = []

    def load_policy(config):
        reached.append(json.loads((out / "run.json").read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "load_policy", load_policy)
    with pytest.raises(KeyboardInterrupt):
        module.run(config, resume=True, overrides=given)
    (written,) = reached
    assert not (out / "summary.json").exists()
    assert written["given"]["max_steps"] == 3, "what the first run was given stays"
    assert written["given_on_resume"]["max_steps"] == config.max_steps == written["options"]["max_steps"]


def test_a_planned_learning_rate_holds_a_run_to_its_length(tmp_path: Path) -> None:
    out, text = finished_run(tmp_path, "--lr_scheduler_type", "linear")
    config, _ = make(tmp_path, text, "--lr_scheduler_type", "linear", "--max_steps", "5")
    with pytest.raises(ConfigError, match="max_steps was 3 and is 5, and lr_scheduler_type=linear plans"):
        check_resume_compatible(out, config)
    config, _ = make(tmp_path, text, "--lr_scheduler_type", "linear", "--num_train_epochs", "5")
    check_resume_compatible(out, config)  # epochs count for nothing beside max_steps


def test_a_finished_run_without_a_checkpoint_is_not_started_over_by_resume(tmp_path: Path) -> None:
    from mgpo_train.output.folder import prepare

    out, text = finished_run(tmp_path)
    shutil.rmtree(out / "checkpoint-3")
    config, given = make(tmp_path, text, "--max_steps", "5")
    with pytest.raises(ConfigError, match="no checkpoint is left"):
        prepare(out, config, resume=True, settings=given, main=True)
    assert (out / "summary.json").exists()


def test_the_options_are_those_that_are_known_before_torch_is_imported() -> None:
    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.config.option_names import option_names

    assert option_names() == {option.name for option in dataclasses.fields(MGPOConfig) if option.init}
