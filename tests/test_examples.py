"""Every example runs: rewards, template and layout by their specs, training from Python, asking a server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mgpo_core import Episode, haystack
from mgpo_core.registry import load_module
from mgpo_core.templates.registry import load_template
from mgpo_train.data import load_samples

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_every_example_is_listed_and_short() -> None:
    listed = set(re.findall(r"^- \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text(), flags=re.MULTILINE))
    files = {file.name: len(file.read_text().splitlines()) for file in EXAMPLES.glob("*.py")}
    assert listed == set(files) and max(files.values()) <= 70


def test_the_template_plays_three_turns() -> None:
    template = load_template(f"{EXAMPLES}/my_templates.py:ThreeTurn")
    [sample] = haystack.make("train", n=1, seed=1)
    episode = Episode(sample, template=template, budget=haystack.BUDGET)
    for text in ('[{"bbox_2d": [8, 8, 60, 60]}]', "no box", r"\boxed{A}"):
        episode.observe(text)
    assert episode.done and episode.trajectory.template == "three_turn" and episode.trajectory.answer == "A"
    assert [turn.box_original is not None for turn in episode.trajectory.turns] == [True, False, False]


def test_the_layout_reads_a_row(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    row = {"shot": "a.png", "caption": "Street. Q: Which colour is the car?", "options": "red|blue", "right": "blue"}
    (tmp_path / "shots.jsonl").write_text(json.dumps(row))
    [sample] = load_samples(f"{tmp_path}/shots.jsonl?layout={EXAMPLES}/my_layout.py:read")
    assert (sample.question, sample.choices, sample.answer) == ("Which colour is the car?", ("red", "blue"), "B")


def test_training_from_python_and_asking_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES.parent / "tests" / "core"))
    from chat_server import chatting

    size: dict[str, Any] = {"max_steps": 1, "per_device_train_batch_size": 4, "num_generations": 2, "report_to": "none"}
    train = load_module(f"{EXAMPLES}/train_from_python.py").train
    trainer = train(tmp_path, max_completion_length=24, dynamic_sampling=1, **size)
    [logged] = [row for row in trainer.state.log_history if "rewards/accuracy/mean" in row]
    total = logged["rewards/accuracy/mean"] + 0.2 * logged["rewards/looked_closer/mean"]
    assert logged["reward"] == pytest.approx(total, abs=1e-5)
    serve, image, model = load_module(f"{EXAMPLES}/serve_with_vllm.py"), tmp_path / "image.png", tmp_path / "model"
    assert serve.serve_command(model)[:3] == ["vllm", "serve", str(model)]
    Image.new("RGB", (448, 448)).save(image)
    with chatting(monkeypatch) as server:
        trajectory = serve.ask(server.url, model, image, "What is number 7?")
    assert len(trajectory.turns) == 2 and trajectory.answer == "7"
