"""The command: quick answers, one parser for files and words, refusals with the nearest right name."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mgpo_train import cli, recipe_files
from mgpo_train.command_line import make_config
from mgpo_train.options import ConfigError, grouped_fields


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
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == recipe_files.names()
    assert all(len(line.split()) > 5 for line in lines)


@pytest.mark.parametrize("flag", ["--help", "--list"])
def test_quick_answers_do_without_torch(flag: str) -> None:
    code = (
        "import sys; from mgpo_train.cli import main; main([sys.argv[1]]); "
        "sys.exit(3 if {'torch', 'transformers', 'trl'} & set(sys.modules) else 0)"
    )
    started = time.process_time()
    assert subprocess.run([sys.executable, "-c", code, flag], stdout=subprocess.DEVNULL, timeout=120).returncode == 0
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
        ("seed: 1\n", ["--lr=1"], "unknown option --lr"),
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
        (["nowhere.yaml"], "there is no file"),
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
    from mgpo_train.run import _prepare_output

    config, given = make(tmp_path, "seed: 1\n", "--output_dir", str(tmp_path / "out"))
    out = tmp_path / "out"
    prepare = {"config": config, "settings": given, "main": True}
    assert _prepare_output(out, resume=False, **prepare) == (None, 0)
    (out / "metrics.jsonl").write_text("{}\n")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="--resume.*--overwrite.*--output_dir"):
        _prepare_output(out, resume=False, **prepare)
    config.overwrite = True
    _prepare_output(out, resume=False, **prepare)
    assert not (out / "metrics.jsonl").exists()
    assert (out / "notes.txt").exists()


def test_resume_takes_the_newest_checkpoint_that_is_whole(tmp_path: Path) -> None:
    from mgpo_train.run import _prepare_output

    config, given = make(tmp_path, "seed: 1\n", "--output_dir", str(tmp_path / "out"))
    out = tmp_path / "out"
    prepare = {"config": config, "settings": given, "main": True}
    assert _prepare_output(out, resume=True, **prepare) == (None, 0)
    for step, state in ((9, {"global_step": 9}), (10, {"global_step": 10})):
        (out / f"checkpoint-{step}").mkdir()
        (out / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    (out / "checkpoint-11").mkdir()  # killed before its state was written
    (out / "checkpoint-12").mkdir()
    (out / "checkpoint-12" / "trainer_state.json").write_text('{"global_st')  # killed while it was
    assert _prepare_output(out, resume=True, **prepare) == (out / "checkpoint-10", 10)
    config.learning_rate = 0.5
    with pytest.raises(ConfigError, match=r"learning_rate was 1e-06 and is 0\.5"):
        _prepare_output(out, resume=True, **prepare)
