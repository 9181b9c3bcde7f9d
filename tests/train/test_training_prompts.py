"""What training says to the model, from a row of a data set to the prompt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mgpo_core import Episode, PixelBudget
from mgpo_core.cropping import CropOutcome
from mgpo_core.templates import message_text
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
