"""What training says to the model, from a row of a data set to the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mgpo_core import Episode, PixelBudget
from mgpo_core.images.crop import CropOutcome
from mgpo_core.templates.base import message_text
from mgpo_train import MGPOConfig
from mgpo_train.data import load_samples

BUDGET = PixelBudget(min_pixels=56 * 56, max_pixels=112 * 112)


@pytest.mark.parametrize("method", ["mgpo", "grpo", "sft"])
@pytest.mark.parametrize(
    ("count", "named"),
    [(0, ""), (2, " (A, B, C, D, or E)"), (5, " (A, B, C, D, or E)"), (7, " (A, B, C, D, E, F, or G)")],
)
def test_the_prompts_name_the_letters_that_there_are(count: int, named: str, method: str, tmp_path: Path) -> None:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    row = {"question": "What is it?", "image": "a.png", "answer": "A"}
    row |= {"choices": [f"{letter}. thing {letter}" for letter in "ABCDEFG"[:count]]} if count else {}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    [sample] = load_samples(str(tmp_path / "data.jsonl"))
    template = MGPOConfig(method=method, output_dir=str(tmp_path / "out")).make_template()
    episode = Episode(sample, template=template, budget=BUDGET)
    again = template.follow_up(sample, episode.images, CropOutcome(None, None, "no_json"), 0)
    messages = [*episode.messages, *([again] if again else [])]
    said = "\n".join(map(message_text, messages))
    assert said.count(f"provide the final answer{named} enclosed") == len(messages) - 1  # all but the first turn's ask
    assert said.count("provide the final answer") == said.count(f"provide the final answer{named} enclosed")
    assert sample.choices == tuple(f"thing {letter}" for letter in "ABCDEFG"[:count])


@pytest.mark.parametrize("method", ["mgpo", "grpo", "sft"])
@pytest.mark.parametrize(
    ("row", "question", "choices"),
    [
        ({"question": "这是什么颜色？请选出正确答案。A.红色 B.绿色"}, "这是什么颜色？", ("红色", "绿色")),
        ({"question": "读出招牌。", "Options": ["Ａ．红", "Ｂ．蓝"]}, "读出招牌。", ("红", "蓝")),
        (
            {"question": "Find the red door. Give the letter on it.", "选项A": "Q", "选项B": "R"},
            "Find the red door. Give the letter on it.",
            ("Q", "R"),
        ),
    ],
)
def test_the_prompts_hold_the_question_once_and_its_choices_apart(
    row: dict, question: str, choices: tuple[str, ...], method: str, tmp_path: Path
) -> None:
    Image.new("RGB", (112, 112)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text(json.dumps(row | {"image": "a.png", "answer": "A"}) + "\n")
    [sample] = load_samples(str(tmp_path / "data.jsonl"))
    template = MGPOConfig(method=method, output_dir=str(tmp_path / "out")).make_template()
    episode = Episode(sample, template=template, budget=BUDGET)
    again = template.follow_up(sample, episode.images, CropOutcome(None, None, "no_json"), 0)
    asked = "".join(map(message_text, [*episode.messages, *([again] if again else [])]))
    listed = "".join(f"({letter}) {text}\n" for letter, text in zip("AB", choices, strict=True))
    assert asked.count(f"Question: {question} The choices are listed below:\n{listed}Carefully") == 1
    assert asked.count(f"Question: {question} Out the coordinates") == asked.count("Question: ") - 1
    assert sample.choices == choices
