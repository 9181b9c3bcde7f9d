"""The paper's training and evaluation sets by hub id: fixtures in exactly their layout are read, and train."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import warm_start
from datasets import Dataset, Features, Image, Sequence, Value

from mgpo_core import SampleError, haystack
from mgpo_train.config.config import MGPOConfig
from mgpo_train.data import load_samples
from mgpo_train.sizing.dry_run import PUBLISHED_ROWS, print_dry_run

TRAIN, LITE, VSTAR = (
    "xinyu1205/mme_realworld_train_21690",
    "yifanzhang114/MME-RealWorld-Lite-lmms-eval",
    "lmms-lab-encoder/vstar-bench",
)


def png(sample) -> bytes:
    buffer = io.BytesIO()
    sample.load(0).save(buffer, "PNG")
    return buffer.getvalue()


def lettered(choices) -> list[str]:
    return [f"({letter}) {choice}" for letter, choice in zip("ABCDE", choices, strict=False)]


def mme_row(sample, index: int) -> dict:
    """A row of MME-RealWorld as lmms-eval's copies have it."""
    return {
        "bytes": base64.b64encode(png(sample)).decode(),
        "question": sample.question,
        "multi-choice options": lettered(sample.choices),
        "answer": sample.answer,
        "category": "Perception/OCR",
        "l2-category": "sign",
        "index": str(index),
    }


def vstar_row(sample, index: int) -> dict:
    choices = "\n".join(lettered(sample.choices))
    text = f"{sample.question}\n{choices}\nAnswer with the option's letter from the given choices directly."
    image = {"bytes": png(sample), "path": None}
    return {"image": image, "text": text, "category": "direct", "label": sample.answer, "question_id": str(index)}


MME_FEATURES = Features(
    {
        **{name: Value("string") for name in ("bytes", "question", "answer", "category", "l2-category", "index")},
        "multi-choice options": Sequence(Value("string")),
    }
)
VSTAR_FEATURES = Features(
    {"image": Image(), **{name: Value("string") for name in ("text", "category", "label", "question_id")}}
)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with local copies of the three sets, in folders of their hub ids, as a clone of the hub lays them."""
    folder = tmp_path_factory.mktemp("copies")
    for name, split, row, features, seed in (
        (TRAIN, "train", mme_row, MME_FEATURES, 1),
        (LITE, "train", mme_row, MME_FEATURES, 2),
        (VSTAR, "test", vstar_row, VSTAR_FEATURES, 3),
    ):
        rows = [row(sample, i) for i, sample in enumerate(haystack.make("train", n=4, seed=seed))]
        (folder / name / "data").mkdir(parents=True)
        table = Dataset.from_list(rows, features=features)
        table.to_parquet(folder / name / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(("name", "seed", "split"), [(TRAIN, 1, None), (LITE, 2, "train"), (VSTAR, 3, "test")])
def test_a_copy_under_the_hub_id_is_read_in_full(copies: Path, monkeypatch, name: str, seed: int, split) -> None:
    monkeypatch.chdir(copies)
    read = load_samples({"path": name, "split": split} if split else name)
    for found, sample in zip(read, haystack.make("train", n=4, seed=seed), strict=True):
        assert (found.question, found.choices, found.answer) == (sample.question, sample.choices, sample.answer)
        assert found.load(0).tobytes() == sample.load(0).tobytes()
    assert [found.id for found in read] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "question", "choices"),
    [
        (
            "What is the material of the glove?\n(A) rubber\n(B) cotton (white)\nAnswer with the option's letter.",
            "What is the material of the glove?",
            ("rubber", "cotton (white)"),
        ),
        (
            "Is the dog on the left\nor on the right?\n(A) left\n(B) right",
            "Is the dog on the left\nor on the right?",
            ("left", "right"),
        ),
    ],
)
def test_a_text_is_taken_apart_into_question_and_choices(tmp_path: Path, text, question, choices) -> None:
    sample = haystack.make("train", n=1, seed=1)[0]
    (tmp_path / "a.png").write_bytes(png(sample))
    row = {"image": "a.png", "text": text, "label": "B", "question_id": "7"}
    (tmp_path / "vstar.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = load_samples(str(tmp_path / "vstar.jsonl"))
    assert (found.question, found.choices, found.answer, found.id) == (question, choices, "B", "7")


def test_a_text_without_choices_is_refused(tmp_path: Path) -> None:
    sample = haystack.make("train", n=1, seed=1)[0]
    (tmp_path / "a.png").write_bytes(png(sample))
    row = {"image": "a.png", "text": "What is this?", "label": "B", "question_id": "7"}
    (tmp_path / "vstar.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SampleError, match="column 'text'.*line '.A. ...' for each choice"):
        load_samples(str(tmp_path / "vstar.jsonl"))


def test_a_set_that_cannot_be_reached_is_assumed_by_the_dry_run_alone(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SampleError, match="looked up on the hub"):
        load_samples(TRAIN)
    print_dry_run(MGPOConfig(train_data=TRAIN, eval_data=None), {})
    assert f"train: {PUBLISHED_ROWS[TRAIN]} samples from {TRAIN} (NOT REACHED" in capsys.readouterr().out
    with pytest.raises(SampleError, match="looked up on the hub"):
        print_dry_run(MGPOConfig(train_data="some/other", eval_data=None), {})


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["qwen2.5-vl-7b-mgpo", "qwen2.5-vl-7b-sft", "qwen2.5-vl-7b-mgpo-lora"])
def test_the_paper_s_recipe_trains_on_copies_of_its_data(copies: Path, tmp_path: Path, recipe: str) -> None:
    """Two steps with the tiny model; everything that is not about size stays the recipe's."""
    words = [
        "--model", "haystack:base", "--min_pixels", "3136", "--max_pixels", "28224", "--use_vllm", "false",
        "--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1", "--max_completion_length", "32",
        "--max_steps", "2", "--save_steps", "2", "--progress", "false", "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    if recipe != "qwen2.5-vl-7b-sft":
        words += ["--steps_per_generation", "1"]
    warm_start.check(["-m", "mgpo_train", recipe, *words], folder=copies)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["train_samples"].startswith(f"4 samples from {TRAIN}")
    assert summary["after"]["n"] == summary["ood_after"]["n"] == 4
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()
