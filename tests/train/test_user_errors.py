"""What a user can cause at the start of a run ends in one line that names the option and the remedy; bugs do not."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import pytest
import torch

from mgpo_core import haystack
from mgpo_train import cli
from mgpo_train import run as run_module
from mgpo_train.config import recipes as recipe_files
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.option_values import CHOICES, RANGES
from mgpo_train.config.options import ConfigError
from mgpo_train.config.parser import make_config
from mgpo_train.config.trackers import LOGINS, PACKAGES
from mgpo_train.config.user_errors import worded
from mgpo_train.models import policy as model_module

BASE = Path(str(haystack.checkpoint("base")))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is to be loaded, and nobody is logged in anywhere."""
    monkeypatch.setattr(run_module, "load_policy", lambda config: pytest.fail("the model was loaded"))


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without a login."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DISABLED", "WANDB_BASE_URL", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    for login in LOGINS.values():
        monkeypatch.delenv(login.key, raising=False)
        monkeypatch.delenv(login.mode, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a start is refused with."""
    assert cli.main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mgpo-train: error: ") and "Traceback" not in line and len(line) < 700
    return line.removeprefix("mgpo-train: error: ")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--learning_rate -1e-5", "learning_rate=-1e-05: give 0 or more"),
        ("--learning_rate nan", "learning_rate=nan: give a finite number"),
        ("--learning_rate inf", "learning_rate=inf: give a finite number"),
        ("--weight_decay nan", "weight_decay=nan: give a finite number"),
        ("--num_generations 1", "num_generations=1: "),
        ("--per_device_train_batch_size 0", "per_device_train_batch_size=0: give 1 or more"),
        ("--gradient_accumulation_steps -2", "gradient_accumulation_steps=-2: give 1 or more"),
        ("--max_steps 0", "max_steps=0: nothing would be trained; give a positive number, or -1"),
        ("--max_steps -7", "max_steps=-7: "),
        ("--num_train_epochs 0 --max_steps -1", "num_train_epochs=0.0: give a number above 0"),
        ("--temperature 0", "temperature=0.0: rollouts of a group would be the same; give a number above 0"),
        ("--temperature -1", "temperature=-1.0: "),
        ("--top_p 1.5", "top_p=1.5: give a number from 0 to 1, above 0"),
        ("--adam_beta1 1", "adam_beta1=1.0: give a number from 0 to 1, below 1"),
        ("--save_steps 0", "save_steps=0.0: give a number above 0"),
        ("--max_completion_length 0", "max_completion_length=0: give 1 or more"),
        ("--lora_dropout 1 --use_peft true", "lora_dropout=1.0: "),
        ("--seed -1", "seed=-1: give a number from 0 to"),
        ("--beta -0.1", "beta=-0.1: give 0 or more"),
        ("--optim adam8", "optim='adam8': see --help-all"),
        ("--lr_scheduler_type cosin", "lr_scheduler_type='cosin': did you mean 'cosine'?"),
        ("--save_strategy sometimes", "save_strategy='sometimes': known are best, epoch, no, steps"),
        ("--loss_type dap", "loss_type='dap': did you mean 'dapo'?"),
        ("--loss_type ppo", "loss_type='ppo': known are "),
        ("--importance_sampling_level sentence", "importance_sampling_level='sentence': "),
        ("--deepspeed nowhere.json", "deepspeed="),
        ("--dtype float8", "dtype='float8': "),
        ("--report_to wandbb", "report_to=wandbb: did you mean 'wandb'?"),
        ("--report_to tensorbord wandb", "report_to=tensorbord: did you mean 'tensorboard'?"),
        ("--model nowhere/at/all", "model folder 'nowhere/at/all'"),
        ("--train_data nowhere.jsonl", "nowhere.jsonl"),
        ("--generation_batch_size 12", "generation_batch_size"),
        ("--fsdp sometimes", "fsdp="),
    ],
)
def test_a_value_that_cannot_be_is_refused_before_the_model_is_loaded(arguments, words, capsys, tmp_path):
    found = refusal(capsys, "haystack-mgpo", "--output_dir", str(tmp_path / "out"), *arguments.split())
    assert words in found
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir()), "it would block the next start"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"seed:\t1\n\tx: 2\n", "line 1 is not YAML: "),
        (b"seed: 1\nmethod: [\n", "line 3 is not YAML: "),
        (b"- seed\n- method\n", "must hold 'option: value' lines"),
        (b"", "must hold 'option: value' lines"),
        (b"just words\n", "must hold 'option: value' lines"),
        (b"seed: 1\nmethod: grpo\nseed: 2\n", "line 3 is not YAML: 'seed' is there twice"),
        (b"train_data: {path: a, path: b}\n", "'path' is there twice"),
        ("# gr\u00f6\u00dfe\nseed: 1\n".encode("latin-1"), "is not UTF-8 (byte 4): save it as UTF-8"),
        (b"\xff\xfes\x00e\x00", "is not UTF-8"),
        (b"1: 2\n", "must hold 'option: value' lines"),
        (b"learning_rate: .nan\n", "learning_rate=nan: give a finite number"),
        (b"seed: [1, 2]\n", "seed=[1, 2]: give one value, not a list"),
        (b"learning_rate: {a: 1}\n", "learning_rate"),
        (b"seed: !!python/object:os.system x\n", "line 1 is not YAML: "),
    ],
)
def test_a_file_of_options_that_cannot_be_read_is_refused_by_name_and_line(content, words, capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    found = refusal(capsys, str(path))
    assert words in found and ("mine.yaml" in found or "=" in found)


def test_a_folder_is_not_a_file_of_options(capsys, tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    assert "no such file" in refusal(capsys, str(tmp_path / "mine.yaml"))


# --- trackers ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_model", "nobody")
@pytest.mark.parametrize("tracker", ["wandb", "comet_ml", "swanlab", "mlflow", "clearml", "dvclive"])
def test_a_tracker_that_cannot_be_used_is_told_before_the_model_is_loaded(tracker, capsys, tmp_path, monkeypatch):
    installed = {module for name in LOGINS for module in PACKAGES[name]}
    monkeypatch.setattr("mgpo_train.config.trackers.find_spec", lambda module: module in installed or None)
    out = tmp_path / "out"
    found = refusal(capsys, "haystack-mgpo", "--report_to", tracker, "--output_dir", str(out))
    wanted = f"not logged in; run `{LOGINS[tracker].command}`" if tracker in LOGINS else "not installed; pip install"
    assert found.startswith(f"report_to={tracker}: {wanted}") and "--report_to none" in found
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    "login",
    [
        {"WANDB_API_KEY": "0" * 40},
        {"WANDB_MODE": "offline"},
        {"WANDB_MODE": "disabled"},
        {"NETRC": "netrc"},
        {"WANDB_BASE_URL": "https://wandb.example.org", "NETRC": "netrc"},
        {"settings": "mode = offline"},
        {".netrc": ""},
    ],
    ids=lambda login: "+".join(login),
)
def test_a_login_or_a_run_without_the_server_is_let_through(login, nobody, monkeypatch):
    host = "wandb.example.org" if "WANDB_BASE_URL" in login else "api.wandb.ai"
    for name, value in login.items():
        if name == "settings":
            (nobody / "wandb").mkdir()
            (nobody / "wandb" / "settings").write_text(f"[default]\n{value}\n")
        elif name in ("NETRC", ".netrc"):
            (nobody / (value or name)).write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
            (nobody / (value or name)).chmod(0o600)
        if name.isupper():
            monkeypatch.setenv(name, str(nobody / value) if name == "NETRC" else value)
    MGPOConfig(report_to=["wandb", "tensorboard"]).check_installed()


@pytest.mark.usefixtures("nobody")
def test_no_tracker_needs_nothing_and_another_servers_login_does_not_count(nobody, monkeypatch):
    MGPOConfig(report_to="none").check_installed()
    MGPOConfig(report_to=[]).check_installed()
    (nobody / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password x\n")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(ConfigError, match="report_to=wandb: not logged in"):
        MGPOConfig(report_to="wandb").check_installed()


# --- models -----------------------------------------------------------------------------------------------------------


def broken(folder: Path, name: str, content: bytes | None) -> MGPOConfig:
    shutil.copytree(BASE, folder)
    file = folder / name
    if content is None:
        file.unlink()
    else:
        file.unlink()
        file.write_bytes(content)
    return MGPOConfig(model=str(folder), coordinate_space="absolute", progress=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\x10\x00"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"),
        ("model.safetensors", None),
        ("tokenizer.json", b"{"),
    ],
)
def test_a_model_whose_files_are_not_whole_is_named(name, content, tmp_path):
    config = broken(tmp_path / "model", name, content)
    with pytest.raises((ConfigError, model_module.EngineError), match=r"[Cc]ould not load .*model") as told:
        model_module.load_policy(config)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"model_type": "llama", "hidden_size": 64}, "write boxes in"),
        ({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}, "write boxes in"),
        ({"model_type": "not_yet_known"}, "not_yet_known"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_it_is_loaded(described, words, capsys, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(described))
    found = refusal(capsys, "haystack-mgpo", "--model", str(folder), "--output_dir", str(tmp_path / "out"))
    assert words in found


def test_an_attention_kernel_that_there_is_not_is_named(tmp_path):
    with pytest.raises(ConfigError, match="attn_implementation=flash_attention_9: "):
        model_module.load_policy(MGPOConfig(attn_implementation="flash_attention_9"))


# --- while it runs ----------------------------------------------------------------------------------------------------


def test_known_failures_get_a_remedy_and_bugs_a_traceback():
    config = MGPOConfig(report_to="none")
    words = r"out of memory .*lower per_device_train_batch_size \(it is 8\)"
    with pytest.raises(model_module.EngineError, match=words), worded(config):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
    refused = type("CommError", (Exception,), {"__module__": "wandb.errors"})
    with pytest.raises(ConfigError, match="report_to=.*invalid key.*--report_to none"), worded(config):
        raise refused("invalid key\nsecond line")
    for starting in (False, True):
        with pytest.raises(ZeroDivisionError), worded(config, starting=starting):
            1 / 0  # noqa: B018
        with pytest.raises(ValueError, match="of ours") as bug, worded(config, starting=starting):
            raise ValueError("of ours")
        assert type(bug.value) is ValueError
    with pytest.raises(ConfigError, match="probability|dropout"), worded(config, starting=True):
        torch.nn.Dropout(7.0)


def test_the_tables_name_options_and_words_that_trl_has():
    fields = MGPOConfig.__dataclass_fields__
    assert set(RANGES) | set(CHOICES) <= set(fields)
    from mgpo_train.training.trl_grpo import GRPOTrainer

    source = inspect.getsource(GRPOTrainer)
    assert all(f'"{word}"' in source for words in CHOICES.values() for word in words)
    for path in recipe_files.FOLDER.glob("*.yaml"):
        recipe_files.read(path)


# --- what belongs to a model ------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """A model that was trained with its own budget, space, rules and length."""
    folder = tmp_path / "trained"
    shutil.copytree(BASE, folder)
    (folder / "mgpo.json").write_text(
        json.dumps(
            {
                "template": "two_turn",
                "min_pixels": 6272,
                "max_pixels": 50176,
                "coordinate_space": "0-1000",
                "crop_min_side": 14,
                "crop_max_aspect": 50,
                "strict_boxes": True,
                "max_new_tokens": 77,
            }
        )
    )
    return str(folder)


def made(recipe: str | Path, *arguments: str) -> MGPOConfig:
    path = recipe_files.find(str(recipe))
    return make_config(path, recipe_files.read(path), [*arguments, "--use_vllm", "false", "--output_dir", "x"])[0]


def used(config: MGPOConfig) -> tuple:
    rules = config.rules
    return (config.budget.min_pixels, config.budget.max_pixels, config.space.value, rules.min_side, rules.max_aspect,
            config.strict_boxes, config.max_response)  # fmt: skip


@pytest.mark.parametrize("recipe", ["photos", "qwen2.5-vl-7b-mgpo", "qwen2.5-vl-7b-grpo-640", "qwen3-vl-8b-mgpo"])
def test_a_recipe_leaves_what_belongs_to_a_model_to_another_model(recipe, trained):
    config = made(recipe, "--model", trained)
    assert used(config) == (6272, 50176, "0-1000", 14, 50, True, 77)
    assert f"images of 6272 to 50176 pixels (mgpo.json of {trained}); left to the model: " in config.budget_origin


def test_all_recipes_leave_the_budget_to_another_model(trained):
    for recipe in recipe_files.names():
        config = made(recipe, "--model", trained)
        assert (config.budget.min_pixels, config.budget.max_pixels) == (6272, 50176), recipe


def test_what_the_user_sets_wins_over_the_model_and_the_recipe(trained, tmp_path):
    config = made("photos", "--model", trained, "--min_pixels", "3136", "--max_pixels", "28224")
    assert used(config)[:3] == (3136, 28224, "0-1000") and config.max_response == 77
    assert "min_pixels and max_pixels as set" in config.budget_origin
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"base: qwen2.5-vl-7b-mgpo\nmodel: {trained}\nmax-pixels: 100352\nmax_completion_length: 99\n")
    config = made(mine)
    assert used(config) == (6272, 100352, "0-1000", 14, 50, True, 99)
    mine.write_text(f"method: mgpo\nmodel: {trained}\nmin_pixels: 3136\nmax_pixels: 100352\n")
    assert used(made(mine))[:2] == (3136, 100352)


def test_a_recipe_s_settings_hold_for_its_own_model(tmp_path):
    assert used(made("qwen2.5-vl-7b-mgpo-640"))[:3] == (200_704, 501_760, "absolute")
    other = made("qwen2.5-vl-7b-mgpo-640", "--model", "Qwen/Qwen2.5-VL-3B-Instruct")
    assert used(other)[:3] == (200_704, 501_760, "absolute") and other.max_response == 8192
    # the numbers of a family are the family's
    assert made("qwen2.5-vl-7b-mgpo", "--model", "Qwen/Qwen3-VL-8B-Instruct").space.value == "0-1000"
    assert used(made("photos"))[:2] == (3136, 28224)  # of the tiny checkpoint
    assert used(made("photos", "--model", "Qwen/Qwen2.5-VL-3B-Instruct"))[:2] == (200_704, 1_003_520)
