r"""The engine's confidence per choice, against one whole sequence at a time through transformers' own forward."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import budget_of, build_model, build_processor, question

from mgpo_core import CoordinateSpace, Episode, SingleTurn, Trajectory, haystack
from mgpo_core.engines.transformers.engine import TransformersEngine
from mgpo_core.episodes.trajectory import Tokens
from mgpo_core.templates.base import message_images

LETTERS = ["A}", "B}", "C}", "D}"]
WORDS = ["horizontal}", "vertical}", "rising}", "falling}"]


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine("haystack:mgpo", max_new_tokens=64, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def played(engine):
    return engine.run([Episode(sample, budget=haystack.BUDGET) for sample in haystack.make("val", 24, seed=7)])


def encode(engine: Any, text: str) -> list[int]:
    return [int(i) for i in engine.tokenizer.tokenizer.encode(text, add_special_tokens=False)]


@torch.no_grad()
def brute_force(engine: Any, trajectory: Trajectory, prefix: list[int], endings: list[str]) -> list[float]:
    """Softmax of the log-probabilities of the endings behind the prefix; whole sequences, no cache, no batch."""
    tokenizer, model = engine.tokenizer, engine.model
    pixels = tokenizer.pixels(message_images(trajectory.messages))
    scores = []
    for ending in endings:
        ids = torch.tensor([prefix + encode(engine, ending)])
        model.model.rope_deltas = None
        kinds = (ids == tokenizer.image_id).int()
        logits = model(input_ids=ids, mm_token_type_ids=kinds, use_cache=False, **pixels).logits[0]
        logits[:, torch.from_numpy(tokenizer.forbidden_mask(logits.shape[-1]))] = -torch.inf
        every = logits.log_softmax(-1)
        scores.append(sum(float(every[at - 1, ids[0, at]]) for at in range(len(prefix), ids.shape[1])))
    return torch.tensor(scores).softmax(0).tolist()


def saying(engine: Any, trajectory: Trajectory, text: str, *, ended: bool = True) -> Trajectory:
    """The trajectory with another last response."""
    changed = copy.copy(trajectory)
    start = trajectory.tokens.spans[-1][0]
    said = encode(engine, text) + [engine.tokenizer.end_id] * ended
    changed.tokens = Tokens(
        ids=trajectory.tokens.ids[:start] + said,
        mask=trajectory.tokens.mask[:start] + [1] * len(said),
        spans=[*trajectory.tokens.spans[:-1], (start, start + len(said))],
    )
    changed.turns = [*trajectory.turns[:-1], copy.copy(trajectory.turns[-1])]
    changed.turns[-1].text = text
    return changed


def assert_equals(engine: Any, trajectory: Trajectory, kept: str, endings: list[str]) -> dict[str, float]:
    found = engine.choice_probabilities(trajectory)
    start = trajectory.tokens.spans[-1][0]
    expected = brute_force(engine, trajectory, trajectory.tokens.ids[:start] + encode(engine, kept), endings)
    assert list(found) == list("ABCD") and sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == pytest.approx(expected, abs=1e-4)
    return found


def test_probabilities_of_sampled_answers_equal_brute_force(engine, played):
    for trajectory in played[:4]:
        # the sampled tokens are "\boxed", "{A", "}": the second holds the beginning of the answer too
        assert_equals(engine, trajectory, "\\boxed", ["{" + letter for letter in LETTERS])


@pytest.mark.parametrize(
    ("text", "kept", "endings"),
    [
        (r"\boxed{rising}", r"\boxed{", WORDS),
        (r"\boxed{ Rising.}", r"\boxed", ["{" + word for word in WORDS]),
        (r"\boxed{A} or rather \boxed{falling}", r"\boxed{A} or rather \boxed{", WORDS),
        (r"\boxed{rising}, so \boxed{C}", r"\boxed{rising}, so \boxed", ["{" + letter for letter in LETTERS]),
        (r"\boxed{grey}", r"\boxed{", LETTERS),
        ("I cannot see it.", "I cannot see it.", ["\n\\boxed{" + letter for letter in LETTERS]),
        ("", "", ["\n\\boxed{" + letter for letter in LETTERS]),
    ],
)
def test_choices_replace_the_answer_in_its_own_wording(engine, played, text, kept, endings):
    assert_equals(engine, saying(engine, played[0], text), kept, endings)


def test_a_box_that_the_limit_cut_off_is_gone_on_with(engine, played):
    assert_equals(engine, saying(engine, played[0], "\\boxed{", ended=False), "\\boxed{", LETTERS)


def test_a_choice_that_is_a_letter_is_no_word(engine, played):
    trajectory = saying(engine, played[0], r"\boxed{B}")
    trajectory.choices = ("D", "C", "B", "A")
    assert_equals(engine, trajectory, "\\boxed", ["{" + letter for letter in LETTERS])


def test_a_single_turn_has_its_own_confidence(engine):
    sample = haystack.make("val", 1, seed=7)[0]
    [trajectory] = engine.run([Episode(sample, template=SingleTurn(), budget=haystack.BUDGET)])
    trajectory = saying(engine, trajectory, r"\boxed{A}")
    assert_equals(engine, trajectory, "\\boxed", ["{" + letter for letter in LETTERS])


def test_deepstack_features_and_an_untaught_model_make_no_difference(tmp_path):
    processor = build_processor("qwen3_vl")
    model = build_model("qwen3_vl", processor.tokenizer).eval().train()
    engine = TransformersEngine(model, processor, max_new_tokens=6)
    budget = budget_of("qwen3_vl")
    [trajectory] = engine.run([Episode(question(300, 170), budget=budget, space=CoordinateSpace.RELATIVE_1000)])
    trajectory = saying(engine, trajectory, r"\boxed{vertical}")
    found = engine.choice_probabilities(trajectory)
    assert model.training
    model.eval()
    assert assert_equals(engine, trajectory, r"\boxed{", WORDS) == pytest.approx(found)


def test_the_right_choice_dominates_and_the_given_answer_is_the_likeliest(engine, played):
    answered = [trajectory for trajectory in played if trajectory.answer is not None]
    found = [engine.choice_probabilities(trajectory) for trajectory in answered]
    assert len(answered) > 20
    assert all(max(each, key=each.get) == t.answer for each, t in zip(found, answered, strict=True))
    right = [each[trajectory.ground_truth] > 0.9 for each, trajectory in zip(found, answered, strict=True)]
    assert sum(right) > 0.8 * len(right)


def test_a_saved_trajectory_gives_the_same(engine, played, tmp_path):
    loaded = Trajectory.load(played[0].save(tmp_path))
    assert engine.choice_probabilities(loaded) == pytest.approx(engine.choice_probabilities(played[0]), abs=1e-6)


def test_what_has_no_tokens_or_no_choices_is_refused_by_name(engine, played):
    def without(**changes: Any) -> Trajectory:
        trajectory = copy.copy(played[0])
        trajectory.__dict__.update(changes)
        return trajectory

    for changes, words in (
        ({"tokens": None}, "has no tokens"),
        ({"done": False}, "has no tokens"),
        ({"choices": ()}, "has 0 choices"),
        ({"choices": ("one",)}, "has 1 choices"),
    ):
        with pytest.raises(ValueError, match=f"sample 'haystack-val-7-0' {words}"):
            engine.choice_probabilities(without(**changes))
