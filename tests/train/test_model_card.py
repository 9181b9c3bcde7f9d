"""The card beside a saved model: valid, true to the run, its code runs, and nothing of this machine in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from mgpo_core import Episode, Sample, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.templates.base import message_text
from mgpo_core.templates.registry import load_template
from mgpo_train.config.config import MGPOConfig
from mgpo_train.models.lora import name_base
from mgpo_train.output.model_card import CARD_FILES, MARK, RunFacts, card_text, find_card, write_card
from mgpo_train.output.public_names import public_source

SCORES = {"accuracy": 0.5, "hit_rate": 0.25, "n": 64, "intervals": {"accuracy": [0.38, 0.62], "hit_rate": [0.16, 0.37]}}
SUMMARY = {
    "before": SCORES,
    "after": SCORES | {"accuracy": 0.75},
    "ood_after": SCORES | {"n": 32},
    "best": {"metric": "eval/accuracy", "value": 0.625, "step": 40},
    "steps": 120,
    "versions": {"mgpo-train": "0.1.0"},
}
FACTS = RunFacts({"train_data": (96, 3), "eval_data": (64, 0)}, SUMMARY)


def make_config(tmp_path: Path, **options: Any) -> MGPOConfig:
    return MGPOConfig(**{"output_dir": str(tmp_path / "out"), "report_to": "none", "learning_rate": 4e-4} | options)


def code_of(text: str) -> str:
    (found,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return found


def test_the_card_says_how_the_model_was_trained_and_how_good_it_is(tmp_path: Path) -> None:
    text = card_text(make_config(tmp_path, freeze=["vision"]), FACTS, adapter=False)
    for line in (
        "method: mgpo",
        "model: haystack:base",
        "learning_rate: 0.0004",
        "- vision",
        "| `train_data` | `haystack:train?n=960&seed=1` | 96 | 3 |",
        "| before, T=1 | 0.500 [0.38, 0.62] | 0.250 [0.16, 0.37] | 64 |",
        "| after, T=1 | 0.750 [0.38, 0.62] | 0.250 [0.16, 0.37] | 64 |",
        "| ood after, T=1 | 0.500 [0.38, 0.62] | 0.250 [0.16, 0.37] | 32 |",
        "Best in training: `eval/accuracy` 0.625 after step 40.",
        "| pixels of an image (and of a crop) | 3,136 to 28,224, sides multiples of 28 |",
        "| coordinates of boxes | `absolute` |",
        "| decoding in training | temperature 1 |",
        haystack.BASE_WAS_TAUGHT,
        "They are from 32 samples",
        "mgpo-train 0.1.0",
    ):
        assert line in text, line


@pytest.mark.parametrize("template", ["two_turn", "single_turn", "multi_image", "multi_image_two_turn"])
def test_the_prompts_are_those_that_the_template_says(tmp_path: Path, template: str) -> None:
    method = {"method": "mirg", "model": "haystack:multi"} if template.startswith("multi") else {}
    text = card_text(make_config(tmp_path, template=template, **method), FACTS, adapter=False).replace("<image>", "")
    sample = Sample("{question}", (Image.new("RGB", (280, 280)),), choices=("{choice A}", "{choice B}"))
    for response in ('```json\n[{"bbox_2d": [0, 0, 99, 99], "image": 1}]\n```', "I see nothing"):
        episode = Episode(sample, template=load_template(template), budget=haystack.BUDGET)
        episode.observe(response)
        said = [message_text(message) for message in episode.messages if message["role"] != "assistant"]
        assert len(said) == 1 + load_template(template).max_turns
        assert all(f"\n{words}\n````" in text for words in said)


def test_the_metadata_are_what_the_hub_reads(tmp_path: Path) -> None:
    data = {"train_data": "somebody/images?split=train", "eval_data": "haystack:val?n=4"}
    made = make_config(tmp_path, **data, coordinate_space="absolute")
    made.model = "Qwen/Qwen2.5-VL-3B-Instruct"
    made.__dict__["_described"] = load_model("haystack:base").config  # of a hub that is not asked
    for adapter, library in ((False, "transformers"), (True, "peft")):
        text = card_text(made, FACTS, adapter=adapter)
        card = ModelCard(text)
        assert card.data.to_dict() == {
            "base_model": made.model,
            "base_model_relation": "adapter" if adapter else "finetune",
            "library_name": library,
            "pipeline_tag": "image-text-to-text",
            "tags": ["mgpo"],
            "datasets": ["somebody/images"],
        }
        assert ("PeftModel.from_pretrained(base, name)" in code_of(text)) is adapter
        assert (f'from_pretrained("{made.model}"' in code_of(text)) is adapter


@pytest.mark.parametrize(
    "options",
    [
        {"train_data": "{home}/patients/scans.jsonl", "eval_data": "{home}/patients"},
        {"train_data": {"path": "{home}/patients/scans.parquet", "columns": {"question": "secret_column"}}},
        {"hub_token": "hf_secret", "push_to_hub": True, "hub_model_id": "secret/repo"},
        {"model": "{home}/secret/base", "coordinate_space": "absolute"},
        {"vllm_options": {"secret": 1}, "model_init_kwargs": {"revision": "secret"}},
        {"report_to": ["tensorboard"], "run_name": "secret run", "project": "secret"},
        {
            "vllm_server_base_url": "http://secret.host:8000",
            "lora_target_modules": ["{home}/secret/layers"],
            "use_peft": 1,
        },
    ],
)
def test_nothing_of_this_machine_is_in_a_card(tmp_path: Path, options: dict[str, Any]) -> None:
    home = tmp_path / "alice"
    (home / "secret").mkdir(parents=True)
    (home / "secret" / "base").symlink_to(haystack.checkpoint("base"))
    filled = json.loads(json.dumps(options).replace("{home}", str(home)))
    text = card_text(make_config(tmp_path, **filled), FACTS, adapter=False)
    assert str(tmp_path) not in text and "secret" not in text and "alice" not in text
    assert ModelCard(text).data.pipeline_tag == "image-text-to-text"
    if "train_data" in options:
        assert "`scans." in text and "local" in text


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("haystack:train?n=96&seed=1", "`haystack:train?n=96&seed=1`"),
        ({"path": "haystack:val", "n": 4, "seed": 2, "difficulty": "ood"}, "`haystack:val?n=4&seed=2&difficulty=ood`"),
        ("somebody/set?split=test&n=5", "`somebody/set?split=test&n=5`"),
        ({"path": "somebody/set", "columns": {"question": "q"}, "images": "/srv/me"}, "`somebody/set`"),
        ("/srv/me/set.jsonl?n=5", "`set.jsonl`, local"),
        ("~/set", "`set`, local"),
        ("../me/set.jsonl", "`set.jsonl`, local"),
        ("data/me/set", "`set`, local"),
    ],
)
def test_data_are_named_without_their_folder(spec: Any, shown: str) -> None:
    assert public_source(spec) == shown


@pytest.mark.parametrize("taken", [(), ("README.md",), ("README.md", "MODEL_CARD.md")])
def test_a_card_replaces_ours_and_no_file_of_a_users(tmp_path: Path, taken: tuple[str, ...]) -> None:
    for name in taken:
        (tmp_path / name).write_text("mine")
    made = make_config(tmp_path)
    first = write_card(tmp_path, made, None, step=3)
    second = write_card(tmp_path, made, FACTS)
    assert all((tmp_path / name).read_text() == "mine" for name in taken)
    free = [name for name in CARD_FILES if name not in taken]
    assert first == second == find_card(tmp_path) == (tmp_path / free[0] if free else None)
    if second is not None:
        assert MARK in second.read_text() and "not the finished model" not in second.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {*taken, *free[:1]}, "nothing half written is left"


def test_a_card_that_a_user_made_theirs_stays(tmp_path: Path) -> None:
    made = make_config(tmp_path)
    path = write_card(tmp_path, made, FACTS)
    assert path is not None
    path.write_text(path.read_text().replace(MARK, "") + "my words")
    assert write_card(tmp_path, made, FACTS) == tmp_path / "MODEL_CARD.md"
    assert path.read_text().endswith("my words")


def test_a_checkpoint_and_a_run_without_evaluation_do_not_claim_scores(tmp_path: Path) -> None:
    made = make_config(tmp_path)
    checkpoint = card_text(made, RunFacts(FACTS.rows, {"before": SCORES}), adapter=False, step=20)
    assert "after step 20, not the finished model" in checkpoint
    assert "The scores after training come with the finished model." in checkpoint and "| before" in checkpoint
    silent = card_text(made, RunFacts(FACTS.rows, {"steps": 5}), adapter=False)
    assert "This run did not evaluate the trained model." in silent and "No score is recorded here." in silent


@pytest.mark.parametrize("adapter", [False, True])
def test_the_code_of_the_card_loads_the_folder_beside_it(tmp_path: Path, monkeypatch, adapter: bool) -> None:
    made, folder = make_config(tmp_path, use_peft=adapter), tmp_path / "saved"
    model = load_model("haystack:base")
    if adapter:
        peft = pytest.importorskip("peft")
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
        (folder / "README.md").unlink()
        name_base(folder, made)
        assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "haystack:base"
    else:
        model.save_pretrained(folder)
    load_processor("haystack:base").save_pretrained(folder)
    path = write_card(folder, made, FACTS)
    assert path is not None
    code = code_of(path.read_text())
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 5
    monkeypatch.chdir(folder)
    loaded: dict[str, Any] = {}
    exec(code, loaded)
    expected = load_model("haystack:base").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded["model"].state_dict().items())
    size = loaded["processor"].image_processor.size
    assert adapter or (size["shortest_edge"], size["longest_edge"]) == (3136, 28224)
