"""MIRG-RL as a method: its options, its data, what its first stage teaches and what its second one logs."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from mgpo_core import Box, Episode, SampleError, haystack
from mgpo_core.engines.loading import load_model, load_processor
from mgpo_core.engines.turn_tokens import TurnTokenizer
from mgpo_core.templates.multi_image import MultiImage, has_reasoning, solution_text
from mgpo_train.config.config import MGPOConfig
from mgpo_train.config.options import ConfigError
from mgpo_train.data import load_samples
from mgpo_train.evaluation.evaluate import evaluate
from mgpo_train.output.curves import plot_curves
from mgpo_train.output.metrics import MetricsLog
from mgpo_train.output.summary import table_rows
from mgpo_train.training.callbacks import attach
from mgpo_train.training.grpo import MGPOTrainer
from mgpo_train.training.sft import AnswerCollator, make_trainer, sft_target

DATA = "haystack_multi:train?n=10&seed=5&images=3"


def make_config(folder: Path, **options: object) -> MGPOConfig:
    settings = {
        "model": "haystack:multi", "train_data": DATA, "max_steps": 1, "report_to": "none", "progress": False,
        "output_dir": str(folder),
    }  # fmt: skip
    return MGPOConfig(**settings | options)


def test_the_method_brings_its_template_and_its_rewards() -> None:
    config = MGPOConfig(method="mirg")
    assert (config.template, config.rewards) == ("multi_image", ["object", "image", "format"])
    assert MGPOConfig().rewards == ["accuracy"] == MGPOConfig(method="grpo").rewards
    assert MGPOConfig(method="mirg", template="multi_image_two_turn").make_template().max_turns == 2
    assert MGPOConfig(method="sft", template="multi_image").template == "multi_image"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "mirg", "template": "two_turn"}, "use multi_image or multi_image_two_turn"),
        ({"method": "sft", "template": "multi_image_two_turn"}, "trains on answers in one turn"),
        ({"rewards": ["object"]}, "'object' needs a box as the answer"),
        ({"rewards": ["accuracy", "image"]}, "'image' needs a box as the answer"),
        ({"method": "mirg", "rewards": ["objekt"]}, "did you mean 'object'"),
        ({"method": "mirg", "object_threshold": 1.5}, "object_threshold=1.5 is an IoU"),
        ({"method": "mirg", "object_threshold": 0.0}, "above 0"),
        ({"method": "mirg", "object_threshold": float("nan")}, "object_threshold=nan"),
        ({"method": "mirg", "object_threshold": 0.5, "rewards": ["image"]}, "has no effect without the object reward"),
        ({"difficulty_weighting": True}, "difficulty_weighting needs a box as the answer"),
        ({"method": "mirg", "rewards": ["object", "image"], "reward_weights": [1.0]}, "1 numbers for 2 rewards"),
        ({"method": "sft", "template": "multi_image", "rewards": ["object"]}, "has no effect with method=sft"),
        ({"method": "sft", "template": "multi_image", "difficulty_weighting": True}, "has no effect with method=sft"),
    ],
)
def test_options_that_clash_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MGPOConfig(**options)


ROW = {
    "question": "What is at <region> of image 1 is where in image 2?",
    "images": ["a.png", "b.png"],
    "boxes": [{"image": 1, "bbox_2d": [10, 10, 40, 30]}],
    "regions": [{"image": 0, "bbox_2d": [0, 0, 20, 20]}],
    "solution": {
        "reasoning": "It is the cup at <region>.",
        "regions": [{"image": 1, "bbox_2d": [10, 10, 40, 30]}],
        "box": {"image": 1, "bbox_2d": [10, 10, 40, 30]},
        "label": "cup",
    },
    "task": "region",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40)).save(tmp_path / name)
    return tmp_path


def written(folder: Path, *rows: dict) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "rows.jsonl")


def test_rows_of_trajectories_are_read_with_regions_and_solution(folder: Path) -> None:
    [sample] = load_samples(written(folder, ROW), answers_with_box=True)
    box = Box(10, 10, 40, 30, image=1)
    assert sample.boxes == (box,) and sample.regions == (Box(0, 0, 20, 20),) and sample.answer is None
    assert sample.solution is not None
    assert (sample.solution.box, sample.solution.label, sample.solution.regions) == (box, "cup", (box,))
    assert sample.metadata == {"task": "region"}
    bare = {name: ROW[name] for name in ("images", "boxes")} | {"question": "Where?"}
    [other] = load_samples(written(folder, bare), answers_with_box=True)
    assert other.solution is None and other.regions == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": []}, "'boxes' holds no true box"),
        ({"boxes": None}, "'boxes' holds no true box"),
        ({"boxes": [{"image": 2, "bbox_2d": [1, 1, 2, 2]}]}, r"names image 2 of 2 \(counted from 0\)"),
        ({"regions": [{"image": 0, "bbox_2d": [0, 0, 61, 20]}]}, "'regions' holds .* 60x40 original"),
        ({"regions": []}, None),  # then the marker is text like any other
        ({"regions": ROW["regions"] * 2}, "2 regions for 1 <region>"),
        ({"solution": "It is there."}, "'solution' is .*: give reasoning, regions, box and label"),
        ({"solution": {"reasoning": "x"}}, "it has no box"),
        ({"solution": ROW["solution"] | {"regions": []}}, None),
        ({"solution": ROW["solution"] | {"reasoning": "x"}}, "1 regions for 0 <region>"),
        ({"solution": ROW["solution"] | {"box": {"image": 1, "bbox_2d": [9, 9, 3, 3]}}}, "'solution' holds"),
    ],
)
def test_a_bad_row_is_refused_by_line_and_column(folder: Path, change: dict, words: str | None) -> None:
    path = written(folder, ROW, ROW | change)
    if words is None:
        assert len(load_samples(path, answers_with_box=True)) == 2
        return
    with pytest.raises(SampleError, match="line 2|region") as caught:
        load_samples(path, answers_with_box=True)
    assert caught.match(words)


def test_a_table_without_true_boxes_is_refused_where_the_answer_is_one(folder: Path) -> None:
    rows = written(folder, {"question": "Where?", "images": ["a.png", "b.png"], "answer": "A"})
    with pytest.raises(SampleError, match="no column holds the boxes"):
        load_samples(rows, answers_with_box=True)
    with pytest.raises(SampleError, match="no column holds the answer"):
        load_samples(written(folder, ROW))


def test_made_sets_are_data_with_solutions_where_they_are_wanted() -> None:
    plain, solved = load_samples(DATA), load_samples(DATA + "&solutions=true&tasks=diff,region")
    assert len(plain) == 10 and all(sample.solution is None for sample in plain)
    assert {sample.metadata["task"] for sample in solved} == {"diff", "region"}
    assert all(sample.solution is not None and sample.solution.box == sample.boxes[0] for sample in solved)
    assert "haystack_multi:train (seed 5)" in plain.describe()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("haystack_multi:test", "no split 'test'"),
        ("haystack_multi:train?image=3", "'image' is not a valid option for .*: did you mean 'images'"),
        ("haystack_multi:train?images=9", "from 2 to 6"),
        ("haystack_multi:train?tasks=difs", "did you mean 'diff'"),
        ("haystack_multi:train?columns=question=q", "its samples are made, not read"),
        ("haystack_multi:train?split=val", "write haystack_multi:val"),
        ("haystack_multi:train?n=0", "give a positive whole number"),
        ("haystack_multi:train?solutions=perhaps", "solutions='perhaps': write true or false"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(spec: str, words: str) -> None:
    with pytest.raises(SampleError, match=words):
        load_samples(spec)


def test_the_first_stage_teaches_the_solution_and_nothing_else(tmp_path: Path) -> None:
    config = make_config(tmp_path, method="sft", template="multi_image")
    samples = load_samples(DATA + "&solutions=true")
    tokens = TurnTokenizer(load_processor("haystack:multi"))
    batch = AnswerCollator(samples, tokens, config)([{"sample": i} for i in range(5)])
    images = 0
    for row, sample in enumerate(samples[:5]):
        labels = batch["labels"][row]
        taught = labels[labels != -100]
        episode = Episode(sample, template=MultiImage(), budget=config.budget, space=config.space)
        assert sample.solution is not None
        expected = solution_text(sample.solution, episode.view)
        assert tokens.decode(taught.tolist()) == expected + "<|im_end|>" == sft_target(episode) + "<|im_end|>"
        assert torch.equal(batch["input_ids"][row][labels != -100], taught)
        episode.observe(expected)
        assert episode.trajectory.answer_iou > 0.8 and has_reasoning(expected)
        images += len(sample.images)
    assert batch["image_grid_thw"].tolist() == [[1, 12, 12]] * images
    assert int(batch["mm_token_type_ids"].sum()) == 36 * images


def test_the_numbers_that_are_taught_are_of_the_budget_and_the_space() -> None:
    [sample] = load_samples("haystack_multi:train?n=1&solutions=true")
    texts = set()
    for pixels, space in ((112 * 112, "absolute"), (224 * 224, "absolute"), (112 * 112, "0-1000")):
        config = MGPOConfig(
            method="sft", template="multi_image", model="Qwen/Qwen2.5-VL-7B-Instruct", coordinate_space=space,
            min_pixels=3136, max_pixels=pixels,
        )  # fmt: skip
        with pytest.warns(UserWarning, match="is given") if space == "0-1000" else contextlib.nullcontext():
            episode = Episode(sample, template=MultiImage(), budget=config.budget, space=config.space)
        texts.add(sft_target(episode))
        episode.observe(sft_target(episode))
        assert episode.trajectory.answer_iou > 0.8
    assert len(texts) == 3


def test_a_sample_without_a_solution_is_refused_by_name_before_training(tmp_path: Path) -> None:
    config = make_config(tmp_path, method="sft", template="multi_image")
    model, processor = load_model("haystack:multi"), load_processor("haystack:multi")
    with pytest.raises(SampleError, match="'haystack_multi-train-5-0' has no solution to teach.*solutions=true"):
        make_trainer(model, processor, config, load_samples(DATA))


@pytest.mark.parametrize("template", ["multi_image", "multi_image_two_turn"])
def test_a_step_logs_every_reward_apart_and_weighs_hard_groups(template: str, tmp_path: Path) -> None:
    config = make_config(
        tmp_path, method="mirg", template=template, per_device_train_batch_size=12, num_generations=4,
        max_completion_length=120, difficulty_weighting=True, reward_weights=[1.0, 0.5, 0.1], temperature=1.2,
    )  # fmt: skip
    log = MetricsLog(tmp_path)
    model, processor = load_model("haystack:multi"), load_processor("haystack:multi")
    trainer = MGPOTrainer(model, processor, config, load_samples(DATA), log)
    attach(trainer, log, config)
    trainer.train()
    [row] = log.rows()
    parts = [row[f"rewards/{name}/mean"] for name in ("object", "image", "format")]
    assert row["reward"] == pytest.approx(parts[0] + 0.5 * parts[1] + 0.1 * parts[2], abs=1e-5)
    assert 1 <= row["difficulty_weight"] <= 2.72
    assert row["mean_iou"] == pytest.approx(parts[0], abs=1e-6)
    assert row["image_accuracy"] == pytest.approx(parts[1], abs=1e-6)
    assert row["logprob_gap/turn1"] < 1e-4
    turns = 1 if template == "multi_image" else 2
    assert f"length/turn{turns}" in row and f"length/turn{turns + 1}" not in row
    assert plot_curves(log.rows(), tmp_path / "curves.png") is not None


def test_weights_of_hard_groups_scale_the_advantages(tmp_path: Path) -> None:
    found = []
    for weighted in (False, True):
        config = make_config(
            tmp_path / str(weighted), method="mirg", per_device_train_batch_size=8, num_generations=4,
            max_completion_length=100, difficulty_weighting=weighted, temperature=1.2, seed=3,
        )  # fmt: skip
        torch.manual_seed(0)
        trainer = MGPOTrainer(
            load_model("haystack:multi"), load_processor("haystack:multi"), config, load_samples(DATA)
        )
        trainer.model.train()
        rows = [{**trainer.train_dataset[i], "sample": i} for i in range(2) for _ in range(4)]
        found.append((trainer._generate_and_score_completions(rows)["advantages"], trainer._rollouts.trajectories))
    (plain, played), (scaled, again) = found
    assert [t.turns[0].text for t in played] == [t.turns[0].text for t in again]
    means = torch.tensor([t.answer_iou for t in played]).view(2, 4).mean(1).repeat_interleave(4)
    assert plain.abs().max() > 0.1
    torch.testing.assert_close(scaled, plain * torch.exp(1 - means))


def test_the_table_of_a_run_says_that_accuracy_is_by_overlap() -> None:
    scores = {"accuracy": 0.5, "image_accuracy": 0.75, "mean_iou": 0.4, "n": 8}
    scores["intervals"] = {name: [0.1, 0.9] for name in scores if name != "n"}
    assert table_rows({"after": scores, "answers_with_box": True})[0][:3] == ["", "IoU >= 0.5", "right image"]
    assert table_rows({"after": scores})[0][1] == "accuracy"


def test_an_evaluation_says_how_often_the_image_was_right() -> None:
    """Of a loaded model as of any other: `evaluate` lets go of the images before it averages."""
    model, processor = load_model("haystack:multi"), load_processor("haystack:multi")
    samples = load_samples(DATA)
    scores, [shown] = evaluate(
        model, processor, samples, episode=partial(Episode, template=MultiImage(), budget=haystack.BUDGET),
        temperature=0.0, keep=1, max_new_tokens=48,
    )  # fmt: skip
    assert scores["counts"]["image_accuracy"] == scores["n"] == 10
    assert scores["image_accuracy"] >= scores["accuracy"]
    assert shown.metrics()["image_accuracy"] in (0, 1)
