"""Uploads: weights, processor, mgpo.json and the card, once and last; no file of a user's, whatever lies around."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
import trl
from huggingface_hub import ModelCard

from mgpo_core import haystack
from mgpo_train import cli
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.config.parser import make_config
from mgpo_train.models.checkpoint import CheckpointResumeMixin
from mgpo_train.output import publishing
from mgpo_train.output.model_card import MARK, write_card
from mgpo_train.output.publishing import Destination, UploadError, check_login, publish_run, upload, upload_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from fake_hub import TOKEN, FakeHub, fake_hub

SECRET = "a user's own words"
MODEL = {
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "mgpo.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
USERS = (
    *("notes.txt", ".env", "trajectories.jsonl", "report.html", "run.json", "samples.jsonl", "train.parquet"),
    *(
        "images/me.png",
        "data/model.safetensors",
        "my_config.json",
        "config.json.bak",
        "secrets.json",
        "x.safetensors",
    ),
    *("training_args.bin", "optimizer.pt.txt", ".git/config", "best.json", "model.py", "before.json", "train.py"),
)


@pytest.fixture
def hub(monkeypatch):
    with fake_hub(monkeypatch) as found:
        yield found


def put(folder: Path, names, text: str = SECRET) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def config(out: Path, **options) -> MGPOConfig:
    return MGPOConfig(output_dir=str(out), method="sft", report_to="none", push_to_hub=True, **options)


def saved(folder: Path, **options) -> MGPOConfig:
    """A folder of weights as a run writes it, of a few bytes."""
    found = config(folder.parent, **options)
    put(folder, MODEL - {"README.md", "mgpo.json"}, text="{}")
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    found.episode_settings.write(folder)
    write_card(folder, found, None)
    return found


def test_a_run_uploads_its_model_alone_once_and_after_the_final_evaluation(tmp_path: Path, monkeypatch, hub: FakeHub):
    from mgpo_train import run as module

    out, order = tmp_path / "somebody's run", []
    trained, evaluated = module._train, module._evaluate_all

    def train(*arguments):
        put(out, USERS)  # while it runs, in the folder that it writes to
        put(out, ["README.md"], text=SECRET)
        trained(*arguments)

    def evaluate(*arguments):
        order.append((arguments[-1], len(hub.commits)))
        return evaluated(*arguments)

    monkeypatch.setattr(module, "_train", train)
    monkeypatch.setattr(module, "_evaluate_all", evaluate)
    options = {"train_data": "haystack:train?n=4&seed=1", "eval_data": "haystack:val?n=2&seed=7", "max_steps": 1}
    options |= {"per_device_train_batch_size": 2, "progress": False, "save_steps": 1, "max_completion_length": 4}
    made = config(out, hub_model_id="lab/looks", eval_greedy=False, hub_token=TOKEN, **options)
    module.run(made)
    assert order == [("before", 0), ("after", 0)]
    assert hub.commits == [sorted(MODEL)] and len(hub.stored) == 1
    assert hub.files["model.safetensors"] == (out / "model" / "model.safetensors").read_bytes()
    assert json.loads(hub.files["config.json"])["model_type"] == "qwen2_5_vl"
    assert json.loads(hub.files["mgpo.json"])["template"] == "single_turn"
    assert not any(secret in body for body in hub.received for secret in (SECRET.encode(), str(tmp_path).encode()))
    assert not any(TOKEN.encode() in body for body in hub.received)
    assert (out / "README.md").read_text() == SECRET and (out / "notes.txt").read_text() == SECRET
    card = hub.files["README.md"].decode()
    assert 'name = "lab/looks"' in card and "| before, T=1 |" in card and "| after, T=1 |" in card
    assert "after step 1, not the finished model" in (out / "checkpoint-1" / "README.md").read_text()
    assert not [path for path in out.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_no_file_of_a_users_is_sent_from_a_model_folder(tmp_path: Path, hub: FakeHub):
    folder = tmp_path / "run" / "model"
    saved(folder)
    put(folder, USERS)
    put(folder.parent, USERS)
    upload(folder, Destination("tester/looks"), message="x")
    assert set(hub.files) == MODEL
    assert not any(SECRET.encode() in body for body in hub.received)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_readme_of_the_users_is_neither_sent_nor_replaced(tmp_path: Path, hub: FakeHub, where: str):
    folder = tmp_path / "run" / "model"
    if where == "local":
        put(folder, ["README.md"])
    else:
        hub.files["README.md"] = SECRET.encode()
    saved(folder)
    upload(folder, Destination("tester/looks"), message="x")
    if where == "local":
        assert (folder / "README.md").read_text() == SECRET
        assert MARK in hub.files["README.md"].decode()
    else:
        assert hub.files["README.md"] == SECRET.encode()
        assert MARK in hub.files["MODEL_CARD.md"].decode()


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("end", None),
        ("every_save", MODEL),
        ("checkpoint", {f"last-checkpoint/{name}" for name in MODEL | {"optimizer.pt", "trainer_state.json"}}),
        ("all_checkpoints", {f"checkpoint-2/{name}" for name in MODEL | {"optimizer.pt", "trainer_state.json"}}),
    ],
)
def test_checkpoints_are_sent_as_hub_strategy_says(tmp_path: Path, hub: FakeHub, strategy: str, expected):
    folder = tmp_path / "run" / "checkpoint-2"
    made = saved(folder, hub_strategy=strategy, hub_model_id="tester/looks")
    put(folder, USERS)
    put(folder, ["optimizer.pt", "trainer_state.json"], text="{}")
    job = upload_checkpoint(folder, 2, made)
    if job is not None:
        job.result()
    assert (set(hub.files) or None) == expected
    assert not any(SECRET.encode() in body for body in hub.received)


def test_checkpoints_are_not_sent_unless_asked_for():
    assert MGPOConfig().hub_strategy == "end", "transformers would send every one"
    with pytest.raises(ConfigError, match="hub_strategy='every-save': did you mean 'every_save'"):
        MGPOConfig(hub_strategy="every-save")


def test_a_failed_checkpoint_upload_is_told_and_the_training_continues(tmp_path: Path, hub: FakeHub, capsys):
    folder = tmp_path / "run" / "checkpoint-2"
    made = saved(folder, hub_strategy="every_save", hub_model_id="tester/looks")
    hub.refuse["/commit/"] = 403
    job = upload_checkpoint(folder, 2, made)
    assert job is not None and job.result() is None
    told = capsys.readouterr().err.strip().splitlines()[-1]  # behind huggingface_hub's progress bar
    assert told.startswith("mgpo-train: warning: the upload to 'tester/looks' failed (")


def test_a_lora_run_uploads_merged_weights(tmp_path, hub: FakeHub):
    saved(tmp_path / "run" / "model")
    adapter = tmp_path / "run" / "adapter"
    put(adapter, [*USERS, "adapter_model.safetensors"])
    put(adapter, ["adapter_config.json"], text="{}")
    options = {"use_peft": True, "hub_model_id": "tester/looks"}
    publish_run(tmp_path / "run", config(tmp_path / "run", **options), "model", "adapter", 3)
    assert hub.commits == [sorted(MODEL)]
    publish_run(tmp_path / "run", config(tmp_path / "run", hub_strategy="every_save", **options), "model", "adapter", 3)
    assert hub.commits[2] == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]


class Trainer(CheckpointResumeMixin):
    """What the mixin needs of transformers' trainer to upload."""

    def __init__(self, made: MGPOConfig) -> None:
        self.run_config = self.args = made
        self.state = SimpleNamespace(global_step=2)
        self.waited = 0

    def is_world_process_zero(self) -> bool:
        return True

    def _finish_current_push(self) -> None:
        self.waited += 1

    def save_model(self, output_dir: str, _internal_call: bool = False) -> None:
        assert _internal_call
        saved(Path(output_dir))


def test_the_trainers_own_ways_to_upload_send_the_same_files(tmp_path: Path, hub: FakeHub):
    out = tmp_path / "run"
    put(out, USERS)
    trainer = Trainer(config(out, hub_strategy="all_checkpoints", hub_model_id="tester/looks"))
    trainer.init_hf_repo()
    trainer.create_model_card(model_name="x")
    assert not hub.calls and not (out / "README.md").exists()
    trainer.push_to_hub()
    assert set(hub.files) == MODEL
    saved(out / "checkpoint-2")
    trainer._push_from_checkpoint(str(out / "checkpoint-2"))
    assert trainer.waited == 1
    trainer.push_in_progress.wait_until_done()
    assert set(hub.files) == MODEL | {f"checkpoint-2/{name}" for name in MODEL}
    assert not any(SECRET.encode() in body for body in hub.received)


def test_transformers_uploads_nowhere_else():
    """transformers (5.17): of `Trainer`, only the methods that `CheckpointResumeMixin` replaces reach for the hub."""
    replaced = ("init_hf_repo", "push_to_hub", "_push_from_checkpoint", "create_model_card")
    for owner in (transformers.Trainer, trl.GRPOTrainer, trl.SFTTrainer):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            source = inspect.getsource(method)
            if name not in (*replaced, "__init__"):
                assert "upload_f" not in source and "create_repo" not in source and "README" not in source, name
    assert all(name in vars(CheckpointResumeMixin) and hasattr(transformers.Trainer, name) for name in replaced)


def test_the_token_is_neither_printed_nor_written_down(tmp_path: Path):
    made, given = make_config(Path("mine.yaml"), {"hub_token": TOKEN}, ["--push_to_hub", "true"])
    assert made.hub_token == TOKEN and set(given) == {"push_to_hub"}


@pytest.mark.parametrize("key", ["token", "use_auth_token"])
def test_a_token_among_the_models_options_is_refused_without_being_printed(key: str):
    with pytest.raises(ConfigError, match="model_init_kwargs: .*HF_TOKEN") as refusal:
        make_config(Path("mine.yaml"), {"model_init_kwargs": {key: TOKEN}}, [])
    assert TOKEN not in str(refusal.value)


def test_options_of_the_hub_are_respected(tmp_path: Path, hub: FakeHub):
    folder = tmp_path / "run" / "model"
    made = saved(folder, hub_model_id="lab/looks", hub_private_repo=True, hub_revision="v2", hub_token="hf_other")
    upload(folder, Destination.of(made), message="x")
    assert (hub.made["organization"], hub.made["name"], hub.made["visibility"]) == ("lab", "looks", "private")
    assert "POST /api/models/lab/looks/branch/v2" in hub.calls and "POST /api/models/lab/looks/commit/v2" in hub.calls
    assert Destination.of(config(tmp_path / "my run")).repo == "my run", "the name of the output folder"


@pytest.mark.parametrize(
    ("part", "status"),
    [("/api/repos/create", 403), ("/api/repos/create", 401), ("/preupload/", 404), ("/lfs/", 500), ("/commit/", 403)],
)
def test_a_failed_upload_names_the_model_and_the_remedy(
    tmp_path: Path, monkeypatch, hub: FakeHub, part: str, status: int
):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # of huggingface_hub's retries
    folder = tmp_path / "a run" / "model"
    saved(folder)
    hub.refuse[part] = status
    with pytest.raises(UploadError) as raised:
        upload(folder, Destination("tester/looks", private=True), message="x")
    text = str(raised.value)
    assert f"is whole in {folder}" in text and "\n" not in text and TOKEN not in text
    command = text.partition("later with: ")[2]
    assert command == f"mgpo-train upload '{folder}' tester/looks --private"
    hub.refuse.clear()
    assert cli.main(["upload", str(folder), "tester/looks", "--private"]) == 0
    assert set(hub.files) == MODEL and hub.made["visibility"] == "private"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"HF_TOKEN": ""}, "not logged in to the hub; run `hf auth login` or set HF_TOKEN"),
        ({"offline": True}, "HF_HUB_OFFLINE=1 forbids uploads"),
        ({"refuse": 401}, "the hub refuses the token"),
        ({"refuse": 500}, "does not answer"),
        ({"endpoint": "http://127.0.0.1:9"}, "does not answer .*check the network"),
        ({"role": "read"}, "the token may only read"),
        ({"repo": "somebody/looks"}, "'tester' may not write to 'somebody/looks'.*owners: tester, lab"),
        ({"repo": "my run!"}, "'my run!' cannot be the name of a repository .*set hub_model_id"),
        ({"repo": "a/b/c"}, "'a/b/c' cannot be the name of a repository"),
    ],
)
def test_what_would_fail_is_told_in_one_line_before_training(tmp_path: Path, monkeypatch, hub: FakeHub, change, words):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    if "HF_TOKEN" in change:
        monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", change.get("offline", False))
    monkeypatch.setattr(constants, "ENDPOINT", change.get("endpoint", hub.url))
    hub.role = change.get("role", "write")
    if "refuse" in change:
        hub.refuse["whoami"] = change["refuse"]
    with pytest.raises(ConfigError, match=f"^push_to_hub=true: .*{words}") as raised:
        check_login(Destination(change.get("repo", "tester/looks")))
    assert "\n" not in str(raised.value) and TOKEN not in str(raised.value)
    assert not [call for call in hub.calls if "whoami" not in call], "nothing is made or sent"


def test_a_run_without_a_login_is_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch):
    from mgpo_train import run as module

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(module, "load_data", lambda config: pytest.fail("data were read"))
    with pytest.raises(ConfigError, match="push_to_hub=true: HF_HUB_OFFLINE=1"):
        module.run(config(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_sent_without_a_path_of_this_machine(tmp_path: Path, hub: FakeHub):
    folder = tmp_path / "run" / "adapter"
    put(folder, ["adapter_model.safetensors"], text="weights")
    put(folder, ["adapter_config.json"], text=json.dumps({"base_model_name_or_path": f"{tmp_path}/base/model", "r": 4}))
    upload(folder, Destination("tester/looks"), message="x", within="adapter")
    sent = json.loads(hub.files["adapter/adapter_config.json"])
    assert sent == {"base_model_name_or_path": "model", "r": 4}


@pytest.mark.parametrize(("folder", "words"), [("run", "name .*run/model"), ("run/logs", "name the folder of a model")])
def test_upload_names_the_folder_to_give_it(tmp_path: Path, hub: FakeHub, capsys, folder: str, words: str):
    saved(tmp_path / "run" / "model")
    put(tmp_path / "run", ["logs/notes.txt"])
    assert cli.main(["upload", str(tmp_path / folder), "tester/looks"]) == 2
    assert re.search(words, capsys.readouterr().err) and not hub.calls


def test_the_list_of_files_covers_every_shipped_checkpoint():
    for name in haystack.CHECKPOINTS:
        folder = haystack.checkpoint(name)
        sent = {path.name for path in publishing.published_files(folder)}
        assert sent == {path.name for path in folder.iterdir() if path.is_file()} - {"base.json"}


def test_the_card_that_arrives_is_valid(tmp_path: Path, hub: FakeHub):
    folder = tmp_path / "run" / "model"
    saved(folder)
    upload(folder, Destination("looks"), message="x")
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.pipeline_tag == "image-text-to-text" and card.data.library_name == "transformers"
    assert 'name = "tester/looks"' in card.text
