"""The stock tasks of lmms-eval, on local copies of their data: an oracle scores 100%, and nothing else does."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hub_fixture
from oracle import CONFIG, Oracle

from mgpo_core.episodes.intervals import wilson_interval
from mgpo_core.runs.response_payload import decode_payload
from mgpo_eval.tasks import mig_scoring, scoring

pytestmark = pytest.mark.slow

STOCK = {
    "vstar_bench": (hub_fixture.write_vstar, "vstar_overall_acc", 100.0),
    "mmerealworld_lite": (hub_fixture.write_mme_realworld, "mme_realworld_score", 1.0),
    "hrbench4k": (hub_fixture.write_hr_bench, "average", 1.0),
}
OURS = {
    "mgpo_vstar": (hub_fixture.write_vstar, {"accuracy/direct_attributes", "accuracy/relative_position"}),
    "mgpo_mmerealworld_lite": (
        hub_fixture.write_mme_realworld,
        {"accuracy/Perception", "accuracy/Reasoning", "accuracy/Reasoning/Monitoring"},
    ),
    "mgpo_hrbench4k": (hub_fixture.write_hr_bench, {"accuracy/single", "accuracy/cross"}),
    "mgpo_hrbench8k": (hub_fixture.write_hr_bench, {"accuracy/single", "accuracy/cross"}),
}
MODES = ("two_turn", "single_turn")
TAGS = '[["<think>", "</think>"], ["<analysis>", "</analysis>"]]'
"""The command line's default."""


def evaluate(engine: Oracle, task: str, **options: Any) -> dict[str, Any]:
    """lmms-eval's own evaluation of one task, in this process."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from mgpo_eval.models import MGPO

    model = MGPO(engine=engine, config=CONFIG, pretrained="the oracle", batch_size=4, **options)
    results = simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(model_name="mgpo"),
        batch_size=4,
        cli_args=argparse.Namespace(reasoning_tags=TAGS, process_with_media=False, output_path=None),
    )
    assert results is not None
    return results


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which data sets of the hub are found by name."""
    from lmms_eval.api import task

    monkeypatch.chdir(tmp_path)
    # datasets of the same name and size in other folders would be taken for this one's
    monkeypatch.setattr(task, "_resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("task", STOCK)
def test_an_oracle_scores_everything_by_the_stock_scorer(task: str, mode: str, hub: Path) -> None:
    write, metric, whole = STOCK[task]
    answers = write(hub)
    results = evaluate(Oracle(answers), task, mode=mode)
    assert results["results"][task][f"{metric},none"] == whole


@pytest.mark.parametrize("task", STOCK)
def test_wrong_answers_score_nothing_by_the_stock_scorer(task: str, hub: Path) -> None:
    write, metric, _ = STOCK[task]
    answers = write(hub)
    results = evaluate(Oracle(answers, right=False), task)
    assert results["results"][task][f"{metric},none"] == 0.0


@pytest.mark.parametrize("task", STOCK)
def test_a_missing_answer_scores_nothing_by_the_stock_scorer(task: str, hub: Path) -> None:
    class Mute(Oracle):
        def _answer(self, episode: Any) -> str:
            return "Based on the image, A is what I see."

    write, metric, _ = STOCK[task]
    results = evaluate(Mute(write(hub)), task)
    assert results["results"][task][f"{metric},none"] == 0.0


@pytest.mark.parametrize("task", OURS)
def test_our_tasks_score_the_oracle_with_every_category(task: str, hub: Path) -> None:
    write, categories = OURS[task]
    scores = evaluate(Oracle(write(hub)), task)["results"][task]
    assert scores["accuracy,none"] == scores["answered_rate,none"] == scores["valid_box_rate,none"] == 1.0
    assert 0.5 < scores["accuracy_low,none"] < scores["accuracy_high,none"] == 1.0
    assert {name.partition(",")[0] for name in scores if "/" in name and "stderr" not in name} >= categories
    assert scores["accuracy_stderr,none"] == scores["valid_box_rate_stderr,none"] == 0.0
    assert all(scores[f"{category},none"] == 1.0 for category in categories)


def standard_errors(entries: list[Any], aggregation: Any, **options: Any) -> dict[str, Any]:
    """What lmms-eval's results hold beside an average, `bootstrap_iters` being its default unless given."""
    import lmms_eval.models  # noqa: F401 - our entry point
    from lmms_eval.evaluator_utils import TaskOutput

    task = SimpleNamespace(aggregation=lambda: {"accuracy": aggregation}, args=None)
    output = TaskOutput(task, "mgpo_hrbench4k", {"cluster_key": "cluster"})
    output.sample_metrics["accuracy", "none"] = entries
    output.calculate_aggregate_metric(**options)
    output.calculate_clt_aggregate_metric()
    return output.agg_metrics


def test_the_stderr_column_of_lmms_eval_is_filled_by_question() -> None:
    entries = [{"score": float(question < 150), "cluster": f"{question}"} for question in range(200) for _ in range(4)]
    found = standard_errors(entries, scoring.mean)
    low, high = wilson_interval(150, 200)
    assert 3.92 * found["accuracy_stderr,none"] == pytest.approx(high - low, rel=0.02)
    assert found["accuracy_stderr_clustered,none"] == pytest.approx(found["accuracy_stderr,none"], rel=0.01)
    plain = standard_errors([entry["score"] for entry in entries], scoring.mean)
    assert plain["accuracy_stderr,none"] == pytest.approx(plain["accuracy_stderr_clt,none"])
    assert plain["accuracy_stderr,none"] == pytest.approx(found["accuracy_stderr,none"] / 2)


def test_the_stderr_of_a_macro_mean_is_that_of_the_tasks_means() -> None:
    scores = {"region": [1.0, 0.0, 1.0], "diff": [0.2, 0.4]}
    entries = [{"score": value, "task": task} for task, values in scores.items() for value in values]
    found = standard_errors(entries, mig_scoring.macro_mean)["accuracy_stderr,none"]
    parts = [statistics.variance(values) / len(values) for values in scores.values()]
    assert found == pytest.approx(math.sqrt(sum(parts)) / 2)
    assert (
        standard_errors([*entries, {"score": 1.0, "task": "new"}], mig_scoring.macro_mean)["accuracy_stderr,none"]
        is None
    )


@pytest.mark.parametrize(
    ("aggregation", "options"), [(scoring.mean, {"bootstrap_iters": 0}), (scoring.low, {}), (scoring.total, {})]
)
def test_what_has_no_standard_error_keeps_none(aggregation: Any, options: dict[str, Any]) -> None:
    assert standard_errors([1.0, 0.0], aggregation, **options)["accuracy_stderr,none"] == "N/A"


def test_choices_are_asked_in_the_second_turn_only(hub: Path) -> None:
    engine = Oracle(hub_fixture.write_vstar(hub))
    evaluate(engine, "vstar_bench")
    assert len(engine.asked) == len(hub_fixture.QUESTIONS)
    for asked, (question, choices, _) in zip(engine.asked, hub_fixture.QUESTIONS, strict=True):
        assert f"Question: {question} The choices are listed below:\n" in asked
        assert all(f"({letter}) {choice}\n" in asked for letter, choice in zip("ABCD", choices, strict=True))
        assert "option's letter" not in asked


def test_a_task_that_nobody_knows_is_read_from_its_own_prompt(hub: Path) -> None:
    engine = Oracle(hub_fixture.write_mme_realworld(hub))
    results = evaluate(engine, "mmerealworld_lite", prompts="task")
    assert results["results"]["mmerealworld_lite"]["mme_realworld_score,none"] == 1.0
    assert "Respond with only the letter" not in "".join(engine.asked)


def test_the_whole_trajectory_stands_in_the_sample_log_behind_the_answer(hub: Path) -> None:
    results = evaluate(Oracle(hub_fixture.write_vstar(hub)), "vstar_bench")
    for sample in results["samples"]["vstar_bench"]:
        assert sample["filtered_resps"][0] in "ABCD"
        trajectory = decode_payload(sample["resps"][0]).trajectory()
        assert trajectory is not None
        box, answer = trajectory.turns
        assert box.box_original is not None and box.shown_size is not None and box.tokens == 20
        assert answer.prompt_tokens == 100 and r"\boxed" in answer.text
        assert trajectory.original_sizes == ((240, 180),)
        assert sample["token_counts"] == [{"input_tokens": 100, "output_tokens": 32}]


def test_the_bare_answer_can_be_asked_for(hub: Path) -> None:
    results = evaluate(Oracle(hub_fixture.write_vstar(hub)), "vstar_bench", response="answer")
    assert all(sample["resps"][0] in "ABCD" for sample in results["samples"]["vstar_bench"])
    assert results["results"]["vstar_bench"]["vstar_overall_acc,none"] == 100.0


def test_a_truncated_image_stops_the_evaluation_or_is_skipped_and_counted(hub: Path) -> None:
    answers = hub_fixture.write_vstar(hub)
    hub_fixture.spoil_image(hub, 0)
    with pytest.raises(ValueError, match="mgpo_vstar/0.*truncated or corrupt.*replace"):
        evaluate(Oracle(answers), "mgpo_vstar")
    results = evaluate(Oracle(answers), "mgpo_vstar", on_bad_sample="skip")
    scores = results["results"]["mgpo_vstar"]
    count = len(hub_fixture.QUESTIONS)
    assert scores["skipped,none"] == 1.0 and scores["accuracy,none"] == pytest.approx((count - 1) / count)
    first = results["samples"]["mgpo_vstar"][0]
    assert "truncated" in str(decode_payload(first["resps"][0][0]).skipped)
