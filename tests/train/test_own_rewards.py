"""Rewards of a user's own: how each form is called, how they are named, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mgpo_core import Sample, Trajectory
from mgpo_core.episodes.trajectory import Turn
from mgpo_core.errors import RegistryError
from mgpo_train.config import recipes
from mgpo_train.config.options import ConfigError
from mgpo_train.quick_checks import check_quickly
from mgpo_train.rewards import accuracy_reward, make_rewards, takes_trajectory
from mgpo_train.training.reward_functions import reward_function

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def annotated(played: Trajectory) -> float:
    return 0.5


def trl_style(prompts: list[Any], completions: list[Any], completion_ids: Any = None, **columns: Any) -> list[Any]:
    texts = [completion[-1]["content"] for completion in completions]
    return [
        None if source is None else float(text == source) for text, source in zip(texts, columns["src"], strict=True)
    ]


def test_the_first_parameter_says_how_a_reward_is_called() -> None:
    assert all(map(takes_trajectory, (accuracy_reward, annotated, partial(annotated), lambda trajectory: 0.0)))
    assert not any(map(takes_trajectory, (trl_style, lambda completions, **rest: [0.0], lambda: 0.0)))


def test_both_forms_score_a_batch() -> None:
    samples = [Sample("What?", (), metadata={"src": "a"}), Sample("Who?", (), metadata={"other": 1})]
    played = [Trajectory(sample_id="x", turns=[Turn(text="b")]), Trajectory(sample_id="y", turns=[Turn(text="b")])]
    messages = [[{"role": "assistant", "content": "b"}]] * 3
    batch = {"prompts": [], "completions": messages, "completion_ids": [], "log_extra": None}
    found = reward_function("mine", trl_style, samples)(sample=[0, 1, 0], trajectory=[*played, played[0]], **batch)
    assert found == [0.0, None, 0.0]
    own = reward_function("annotated", annotated, samples)
    assert own.__name__ == "annotated" and own(sample=[0, 1], trajectory=played, **batch) == [0.5, 0.5]
    with pytest.raises(ValueError, match="'x' has no answer"):
        reward_function("accuracy", accuracy_reward, samples)(sample=[0, 1], trajectory=played, **batch)


def test_rewards_are_named_for_their_functions() -> None:
    spec = f"{EXAMPLES}/my_rewards.py:short_answer"
    assert list(make_rewards(["accuracy", spec, partial(annotated)])) == ["accuracy", "short_answer", "annotated"]


async def later(prompts: Any, completions: Any) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["acuracy"], "rewards='acuracy': did you mean 'accuracy'"),
        ([annotated, partial(annotated)], "two rewards have this name"),
        ([later], "async functions"),
        ([torch.nn.Linear(1, 1)], "rewards='Linear': models"),
        ([0.5], "values"),
    ],
)
def test_what_is_no_reward_is_refused(given: list[Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        make_rewards(given)


def test_a_recipe_names_files_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, start = tmp_path / "recipe", tmp_path / "start"
    folder.mkdir(), start.mkdir()
    monkeypatch.chdir(start)
    (folder / "mine.py").write_text("def short(trajectory): return 1.0\ndef read(row): return {}\n")
    data = {"path": "rows.jsonl", "layout": "mine.py:read"}
    (folder / "run.yaml").write_text(
        json.dumps(
            {
                "rewards": ["accuracy", "mine.py:short"],
                "plugins": ["mine.py"],
                "train_data": data,
                "eval_data": "rows.jsonl?n=3&layout=mine.py:read",
            }
        )
    )
    options = recipes.read(folder / "run.yaml")
    assert options["rewards"] == ["accuracy", f"{folder}/mine.py:short"] and options["plugins"] == [f"{folder}/mine.py"]
    assert options["train_data"]["layout"] == f"{folder}/mine.py:read"
    assert options["eval_data"] == f"rows.jsonl?n=3&layout={folder}/mine.py:read"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rewards", "gone.py:f"], "rewards='gone.py:f': no such file"),
        (["--template", "twoturn"], "template='twoturn': did you mean 'two_turn'"),
        (["--plugins", "gone.py"], "plugins='gone.py': no such file"),
        (["--train_data", "rows.jsonl?layout=plane"], "layout='plane': did you mean 'plain'"),
    ],
)
def test_names_are_checked_before_torch_is_needed(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        check_quickly(tmp_path / "run.yaml", {}, words, resume=False, dry=True)
