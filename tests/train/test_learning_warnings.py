"""A training that taught nothing says so, with the likely reason; a good one says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mgpo_core import Trajectory
from mgpo_core.episodes.intervals import wilson_interval
from mgpo_core.episodes.trajectory import Turn
from mgpo_train.output.learning_warnings import learning_warnings
from mgpo_train.output.metrics import MetricsLog
from mgpo_train.output.report import write_run_report
from mgpo_train.output.summary import print_warnings

GOOD = {
    "accuracy": 0.4,
    "reward": 0.4,
    "answered_rate": 1.0,
    "valid_box_rate": 0.7,
    "frac_zero_advantage_groups": 0.25,
    "truncated/turn1": 0.0,
    "truncated/turn2": 0.0,
    "loss": 0.01,
    "grad_norm": 0.3,
    "learning_rate": 1e-6,
}
FLAT = GOOD | {"accuracy": 0.0, "reward": 0.0, "frac_zero_advantage_groups": 1.0}


def logged(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"step": number, **step} for number, step in enumerate(steps, 1)]


def scored(k: int, n: int = 64, answered: float = 1.0) -> dict[str, Any]:
    return {
        "accuracy": k / n,
        "answered_rate": answered,
        "n": n,
        "intervals": {"accuracy": list(wilson_interval(k, n))},
    }


def test_nothing_learnt_is_said_with_accuracy_0_and_no_advantage() -> None:
    found = learning_warnings(logged(*[FLAT] * 3), {"before": scored(0), "after": scored(0)})
    assert found[0] == (
        "nothing was learnt: all groups of rollouts had equal rewards, hence no advantage, over 3 steps "
        "(mean reward 0.000)"
    )
    assert len(found) == 2 and found[1].startswith("likely reason: answers were given and hardly any was right; check")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"answered_rate": 0.02}, r"2% of the rollouts gave an answer in its form, such as \boxed{A}; start from"),
        ({"valid_box_rate": 0.0}, "0% of the boxes were valid; check coordinate_space"),
        ({"truncated/turn2": 1.0}, "100% of the responses were cut off at their limit; raise max_completion_length"),
        ({"truncated/turn1": 0.8}, "80% of the responses were cut off"),
        ({"accuracy": 1.0, "reward": 1.0}, "the samples are too easy: 100% of the rollouts were right; choose harder"),
        ({"accuracy": 0.5, "reward": 0.5}, "rollouts of one sample hardly differ; raise temperature"),
        ({"accuracy": 0.0, "reward": 0.5}, "answers were given and hardly any was right"),
    ],
)
def test_the_likely_reason_and_its_remedy_are_named(changed: dict[str, float], reason: str) -> None:
    found = learning_warnings(logged(*[FLAT | changed] * 2), {})
    assert found[0].startswith("nothing was learnt: all groups")
    assert [text for text in found[1:] if reason in text and text.startswith("likely reason: ")]


@pytest.mark.parametrize(
    ("late", "told"),
    [
        ({"reward": 0.0, "accuracy": 0.0, "answered_rate": 0.0}, True),
        ({"reward": 0.1, "accuracy": 0.1, "frac_zero_advantage_groups": 0.95}, True),
        ({"reward": 1.0, "accuracy": 1.0}, False),  # learnt it all
        ({"reward": 0.35, "accuracy": 0.35}, False),
        ({"reward": 0.0, "accuracy": 0.0, "frac_zero_advantage_groups": 0.8}, False),
    ],
)
def test_rewards_that_were_lost_on_the_way_are_a_collapse(late: dict[str, float], told: bool) -> None:
    rows = logged(*[GOOD] * 10, *[FLAT | late] * 10)
    found = learning_warnings(rows, {})
    assert [text.startswith("training collapsed: ") for text in found[:1]] == [True] * told
    assert ("0% of the rollouts gave an answer" in "".join(found)) == ("answered_rate" in late)
    assert learning_warnings(rows[8:13], {}) == []  # too few steps to tell


def test_several_reasons_are_all_named() -> None:
    changed = {"answered_rate": 0.0, "valid_box_rate": 0.0, "truncated/turn2": 0.9}
    assert len(learning_warnings(logged(FLAT | changed), {})) == 4


def test_a_template_without_boxes_is_not_told_of_boxes() -> None:
    single = {name: value for name, value in FLAT.items() if name != "valid_box_rate"}
    assert "box" not in "".join(learning_warnings(logged(single), {})[1:])


def test_almost_all_groups_flat_is_next_to_nothing() -> None:
    few = FLAT | {"frac_zero_advantage_groups": 0.9, "reward": 0.01}
    found = learning_warnings(logged(FLAT, few), {})
    assert found[0].startswith("next to nothing was learnt: 95% of the groups of rollouts had equal rewards")


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"loss": None}, "not a finite number in 2 of 2 steps: the weights may be spoilt; lower learning_rate"),
        ({"grad_norm": None}, "not a finite number in 2 of 2 steps"),
        ({"learning_rate": 0.0}, "nothing was learnt: learning_rate was 0 in all 2 steps"),
        ({"grad_norm": 0.0}, "nothing was learnt: grad_norm was 0 in all 2 steps"),
    ],
)
@pytest.mark.parametrize("kept", [set(GOOD), {"loss", "grad_norm", "learning_rate"}])
def test_steps_that_cannot_teach_are_named_for_every_method(
    changed: dict[str, Any], finding: str, kept: set[str]
) -> None:
    step = {name: value for name, value in (GOOD | changed).items() if name in kept}
    [found] = learning_warnings(logged(step, step), {})
    assert finding in found


@pytest.mark.parametrize("key", ["after", "after_greedy"])
def test_scores_that_fell_or_hold_no_answers_are_named(key: str) -> None:
    before = {key.replace("after", "before"): scored(40)}
    [found] = learning_warnings(logged(GOOD), before | {key: scored(10)})
    assert found.startswith(f"accuracy fell from 0.625 to 0.156 ({key}, the 95% intervals do not overlap)")
    [found] = learning_warnings(logged(GOOD), {key: scored(1, answered=0.05)})
    assert found == f"the trained model answered 5% of the evaluation's samples ({key})"


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {"before": scored(20), "after": scored(40)},
        {"before": scored(30), "after": scored(28)},
        {"before": scored(0), "after": scored(0)},
        {"before": {"n": 3, "intervals": {}}, "after": {"n": 3, "intervals": {}}},
        {"before": None, "after": None},
    ],
)
def test_a_training_with_advantages_is_not_warned_of(scores: dict[str, Any]) -> None:
    rows = [*logged(GOOD, GOOD | {"frac_zero_advantage_groups": 0.8}), {"step": 2, "eval/accuracy": 0.0}]
    assert learning_warnings(rows, scores) == []
    assert learning_warnings([], scores) == []


def test_warmup_and_a_single_step_are_no_findings() -> None:
    assert learning_warnings(logged(GOOD | {"learning_rate": 0.0}, GOOD), {}) == []
    assert learning_warnings(logged(GOOD | {"learning_rate": 0.0}), {}) == []


def test_warnings_reach_the_terminal_and_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, FLAT | {"loss": float("nan")})
    summary = {"warnings": learning_warnings(log.rows(), {}), "n": 1}
    print_warnings(json.loads(json.dumps(summary)))
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("warning: ") == captured.err.count("\n") == 3
    assert "warning: nothing was learnt: all groups" in captured.err
    shown = {"after": [Trajectory(sample_id="s", turns=[Turn("no")])]}
    page = write_run_report(tmp_path / "report.html", shown, title="t", summary=summary)
    assert page is not None and page.read_text().count("<li>likely reason: ") == 1
    print_warnings({})
    page = write_run_report(tmp_path / "report.html", shown, title="t", summary={"warnings": []})
    assert (
        page is not None and "warning" not in page.read_text().partition("<body")[2].partition("trajectories below")[0]
    )
    assert capsys.readouterr().err == ""
