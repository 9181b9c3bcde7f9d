"""Evaluation asks in the words of training: what the prompts say of choices, and how choices, letters are read."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from requests_fixture import StandInTask, table

from mgpo_core import CoordinateSpace, Episode, PixelBudget, Trajectory
from mgpo_core.templates.base import message_text
from mgpo_core.templates.single_image import TwoTurn
from mgpo_eval.models.episode_runner import answer_of
from mgpo_eval.models.options import ModelOptions
from mgpo_eval.models.requests import make_requests
from mgpo_eval.models.templates import choose_templates

BOX = '```json\n[{"bbox_2d": [0, 0, 56, 56], "label": "key image area"}]\n```'
IMAGE = Image.new("RGB", (112, 112))
BUDGET = PixelBudget(min_pixels=56 * 56, max_pixels=112 * 112)


def played(prompt: str, answer: str, mode: str = "two_turn") -> tuple[str, Trajectory]:
    """(everything that is said to the model, its trajectory) for a row with this prompt, as lmms-eval would ask it."""
    stand_in = StandInTask(None, None, None)
    rows = table([{"prompt": prompt, "size": [112, 112]}])
    request: Any = SimpleNamespace(args=("", stand_in.doc_to_messages, {}, 0, "t", "test"), metadata={})
    templates = choose_templates(mode, TwoTurn(), CoordinateSpace.ABSOLUTE)
    [eval_request] = make_requests(
        [request], {"t": {"test": rows}}, ModelOptions("transformers", "a checkpoint"), templates
    )
    episode = Episode(eval_request.sample(), template=eval_request.template, budget=BUDGET)
    while not episode.done:
        episode.observe(BOX if episode.wants_box else answer)
    return "\n".join(map(message_text, episode.messages)), episode.trajectory


@pytest.mark.parametrize("mode", ["two_turn", "single_turn"])
@pytest.mark.parametrize(
    ("count", "named"),
    [(0, ""), (2, " (A, B, C, D, or E)"), (5, " (A, B, C, D, or E)"), (7, " (A, B, C, D, E, F, or G)")],
)
def test_the_prompts_name_the_letters_that_there_are(count: int, named: str, mode: str) -> None:
    lines = "".join(f"\n{letter}. thing {letter}" for letter in "ABCDEFG"[:count])
    said, trajectory = played(f"What is it?{lines}\nAnswer with the letter.", r"\boxed{A}", mode)
    assert said.count(f"provide the final answer{named} enclosed") == (2 if mode == "two_turn" else 1)
    assert said.count("provide the final answer") == said.count(f"provide the final answer{named} enclosed")
    assert len(trajectory.choices) == count and "Answer with" not in said


def test_choices_within_a_line_are_read_and_an_unknown_instruction_is_left_out() -> None:
    said, trajectory = played("What colour? Options: A: red, B: green, C: blue\nThink hard.", r"\boxed{答案：B}")
    assert trajectory.choices == ("red", "green", "blue") and "Think hard" not in said
    assert "(A) red\n(B) green\n(C) blue\n" in said and answer_of(trajectory) == "B"


@pytest.mark.parametrize(
    ("answer", "returned"),
    [
        (r"\boxed{\text{(C)}}", "C"),
        (r"\boxed{C.}", "C"),
        (r"\boxed{a cat}", "a cat"),
        (r"\boxed{c}", "c"),
        (r"\boxed{C. blue}", "C. blue"),
        ("None.", "None."),
    ],
)
def test_a_letter_is_returned_bare_where_the_choices_are_not_known(answer: str, returned: str) -> None:
    assert answer_of(played("Which of the things in the table is it?", answer)[1]) == returned


@pytest.mark.parametrize(
    ("parts", "question"),
    [
        (["", "Which?"], "Which?"),
        (["Which?", ""], "Which?"),
        (["", "<image 1>Which?"], "Which?"),
        (["", "", "Is <image 1> like <image 2>?"], "Is image 1 like image 2?"),
        (["Is", "", "like", "", "in colour?"], "Is image 1\nlike image 2\nin colour?"),
        (["Image 1:", "", "Image 2:", "", "Which?"], "Which?"),
        (["", "What does <img> <img> draw?"], "What does <img> <img> draw?"),
    ],
)
def test_images_between_a_tasks_texts_are_spoken_of_there(parts: list[str], question: str) -> None:
    content = [{"type": "text", "text": text} if text else {"type": "image", "url": IMAGE} for text in parts]
    request: Any = SimpleNamespace(
        args=("", lambda row: [{"role": "user", "content": content}], {}, 0, "t", "test"), metadata={}
    )
    templates = choose_templates("two_turn", TwoTurn(), CoordinateSpace.ABSOLUTE)
    rows = table([{"prompt": ""}])
    [eval_request] = make_requests(
        [request], {"t": {"test": rows}}, ModelOptions("transformers", "a checkpoint"), templates
    )
    sample = eval_request.sample()
    assert sample.question == question and len(sample.images) == parts.count("")
