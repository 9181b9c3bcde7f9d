"""Step metrics against plain counting; a log that a killed run can go on with; curves and the summary's table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hostile_text import HOSTILE, assert_shown_as_text
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Box, Trajectory
from mgpo_core.boxes.parse import Rejection
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.episodes.trajectory import Turn
from mgpo_train.output.curves import plot_curves, smooth
from mgpo_train.output.metrics import Measured, MetricsLog, step_metrics
from mgpo_train.output.summary import table_rows, timing

TRUE_BOX = Box(40, 40, 60, 60)


def played(
    correct: bool, box: Box | None, rejection: str | None = None, lengths: tuple[int, ...] = (5, 9)
) -> Trajectory:
    first = Turn("...", box=box, box_original=None if rejection else box, rejection=rejection, tokens=lengths[0])
    second = Turn(r"\boxed{A}" if correct else "no", tokens=lengths[1], finish_reason="stop" if correct else "length")
    return Trajectory(
        sample_id="s",
        choices=("x", "y"),
        ground_truth="A",
        turns=[first, second],
        true_boxes=(TRUE_BOX,),
        original_sizes=((100, 100),),
        input_sizes=((100, 100),),
    )


BATCH = [
    played(True, Box(30, 30, 70, 70), lengths=(5, 9)),
    played(False, Box(0, 0, 30, 30), lengths=(7, 11)),
    played(True, None, "no_json", lengths=(9, 3)),
    played(False, Box(70, 70, 30, 30), "reversed", lengths=(3, 1)),
]


def test_step_metrics_agree_with_counting_by_hand() -> None:
    found = step_metrics(BATCH, rewards=[1, 0, 1, 0], group_size=2)
    assert found["accuracy"] == 0.5
    assert found["valid_box_rate"] == 0.5
    assert found["hit_rate"] == 0.25
    assert found["mean_iou"] == pytest.approx(400 / 1600 / 4)
    assert found["crop_area_fraction"] == pytest.approx((0.16 + 0.09) / 2)
    assert (found["length/turn1"], found["length/turn2"]) == (6, 6)
    assert (found["truncated/turn1"], found["truncated/turn2"]) == (0, 0.5)
    assert (found["reward"], found["reward_std"]) == (0.5, pytest.approx(math.sqrt(1 / 3)))
    assert found["frac_zero_advantage_groups"] == 0
    rejected = {name: value for name, value in found.items() if name.startswith("rejected/")}
    assert rejected == {f"rejected/{reason.value}": 0.0 for reason in Rejection} | {
        "rejected/no_json": 0.25,
        "rejected/reversed": 0.25,
    }


def test_step_metrics_use_the_names_of_an_evaluation() -> None:
    found = step_metrics(BATCH)
    scores = aggregate(BATCH)
    for name in ("accuracy", "valid_box_rate", "hit_rate", "mean_iou", "crop_area_fraction", "answered_rate"):
        assert found[name] == pytest.approx(scores[name])


def test_what_processes_send_each_other_has_the_metrics_of_the_trajectories() -> None:
    told = [Measured.of(trajectory) for trajectory in BATCH]
    assert step_metrics(told, rewards=[1, 0, 1, 0], group_size=2) == step_metrics(
        BATCH, rewards=[1, 0, 1, 0], group_size=2
    )
    assert aggregate(told) == aggregate(BATCH)


def test_a_single_turn_batch_has_no_box_metrics() -> None:
    turn = Turn(r"\boxed{A}", tokens=4, seconds=0.5)
    found = step_metrics([Trajectory(ground_truth="A", choices=("x", "y"), turns=[turn])])
    lengths = {"length/turn1": 4.0, "truncated/turn1": 0.0, "time/turn1": 0.5}
    assert found == {"answered_rate": 1.0, "accuracy": 1.0} | lengths


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4), min_size=1, max_size=8))
def test_groups_without_advantage_are_those_whose_rewards_are_all_equal(groups: list[list[float]]) -> None:
    rewards = [reward for group in groups for reward in group]
    found = step_metrics([BATCH[0]] * len(rewards), rewards=rewards, group_size=4)
    assert found["frac_zero_advantage_groups"] == sum(len(set(group)) == 1 for group in groups) / len(groups)


def test_an_empty_step_is_an_error() -> None:
    with pytest.raises(ValueError, match="without trajectories"):
        step_metrics([])


def test_a_resumed_log_is_the_log_of_an_unkilled_run(tmp_path: Path) -> None:
    def metrics(step: int) -> dict[str, float]:
        return {"accuracy": 1 / (step + 3), "loss": step * 0.1}

    whole = MetricsLog(tmp_path / "whole")
    for step in range(1, 11):
        whole.write(step, metrics(step))
    killed = MetricsLog(tmp_path / "killed")
    for step in range(1, 8):
        killed.write(step, metrics(step))
    with killed.path.open("a") as file:
        file.write('{"step": 8, "accur')  # the kill came in the middle of a line
    resumed = MetricsLog(tmp_path / "killed", keep_to_step=4)
    assert resumed.latest["step"] == 4
    for step in range(5, 11):
        resumed.write(step, metrics(step))
    assert resumed.path.read_text() == whole.path.read_text()


def test_a_new_run_starts_with_an_empty_log(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(1, {"loss": 1.0})
    assert MetricsLog(tmp_path).rows() == []


def test_the_log_is_json_even_where_a_metric_is_not_a_number(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"a": math.nan, "b": math.inf, "c": np.float32(0.5), "d": None})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    row = json.loads(log.path.read_text(), parse_constant=refuse)
    assert row == {"step": 1, "a": None, "b": None, "c": 0.5, "d": None}


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    MetricsLog(tmp_path / "run", write=False)
    assert not (tmp_path / "run").exists()


def test_trajectories_for_the_report_are_spread_over_the_batch(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, keep_trajectories=3)
    log.keep(7, [played(True, None, "no_json", (i, 0)) for i in range(9)])
    assert [trajectory.turns[0].tokens for trajectory in log.trajectories] == [0, 3, 6]
    log.keep(8, [])
    assert log.trajectories == []


def test_curves_are_drawn_from_what_was_logged(tmp_path: Path) -> None:
    assert plot_curves([{"step": 1, "other": 2.0}], tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()
    rows = [
        {"step": i, "valid_box_rate": i / 60, "accuracy": None if i == 3 else 0.5, "loss": 0.1} for i in range(1, 61)
    ]
    path = plot_curves(rows, tmp_path / "curves.png", title="a run")
    assert path is not None
    with Image.open(path) as image:
        assert image.width > 900
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 20
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.integers(1, 15))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[float], width: int) -> None:
    half = width // 2
    expected = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    assert smooth(np.array(values), width) == pytest.approx(expected, abs=1e-9)


def test_the_table_shows_every_evaluation_with_its_interval() -> None:
    scores = aggregate(BATCH)
    rows = table_rows({"before": scores, "after": scores, "after_greedy": scores, "ood_before": scores, "steps": 3})
    assert [row[0] for row in rows] == ["", "before, T=1", "after, T=1", "after, greedy", "ood before, T=1"]
    assert rows[0][1:4] == ["accuracy", "hit rate", "valid boxes"]
    assert rows[1][1] == "0.500 [0.15, 0.85]"
    assert {row[-1] for row in rows[1:]} == {"4"}


def test_time_is_summed_over_the_parts_of_a_resumed_run() -> None:
    rows = [{"step": step, "time/seconds": 2.0} for step in range(1, 5)]
    assert timing(rows) == {"steps": 4, "seconds": 8.0, "seconds_per_step": 2.0}
    assert timing([]) == {"steps": 0, "seconds": 0.0, "seconds_per_step": None}


def test_step_seconds_exclude_figures_and_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from mgpo_train.config.config import MGPOConfig
    from mgpo_train.training import callbacks

    clock = [100.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: clock[0])
    config = MGPOConfig(output_dir=str(tmp_path), progress=False, plot_every=0, report_every=0)
    callback = callbacks.RunCallback(MetricsLog(tmp_path), config)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0, max_steps=2)
    callback.on_train_begin(None, state, None)
    for step in (1, 2):
        clock[0] += 3.0  # the batch is made
        callback.on_step_begin(None, state, None)
        clock[0] += 4.0
        state.global_step = step
        callback.on_step_end(None, state, None)
        callback.on_log(None, state, None, logs={"loss": 0.0})
        clock[0] += 50.0  # a checkpoint is written
        callback.on_save(None, state, None)
    assert [row["time/seconds"] for row in callback.log.rows()] == [7.0, 7.0]


def test_a_report_of_several_parts_has_no_averages_over_them(tmp_path: Path) -> None:
    from mgpo_train.output.report import write_run_report

    one = write_run_report(tmp_path / "one.html", {"training": BATCH, "after": []}, title="a run")
    two = write_run_report(tmp_path / "two.html", {"before": BATCH, "after": BATCH}, title="a run")
    assert one is not None and two is not None
    assert "<dt>Accuracy</dt>" in one.read_text() and "tiles above" in one.read_text()
    assert "<dt>Accuracy</dt>" not in two.read_text() and "tiles above" not in two.read_text()


def test_hostile_text_above_the_cards_of_a_run_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mgpo_train.output import report

    monkeypatch.setattr(report, "table_rows", lambda summary: [[HOSTILE], [HOSTILE]])
    summary = {"warnings": [HOSTILE]}
    page = report.write_run_report(tmp_path / "run.html", {HOSTILE: [Trajectory()]}, title="a run", summary=summary)
    assert page is not None
    text = page.read_text()
    assert text.count("onerror") == 5  # the warning, the table's head and body, the part, the sample
    assert_shown_as_text(text, scripts=1)
