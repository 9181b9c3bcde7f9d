"""MIG-Bench: answers are scored as published, and an independent reading here must agree."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from mig_fixture import CASES, CLIPPED, INVERTED, RECORDS, generate

from mgpo_core.episodes.intervals import interval
from mgpo_eval import mig_bench
from mgpo_eval.mig_bench import DefectCounts, Record, Score, score, score_played

SPACES = ("absolute", "0-1000")


def told(box: tuple[float, ...], image: int) -> str:
    """A box given in 0-1 as a model would write it that is asked as published, on the image (0-based) it claims."""
    x1, y1, x2, y2 = (value * 1000 for value in box)
    ordinal = ("first", "second", "third", "fourth", "fifth", "sixth")[image]
    return f"It's in the {ordinal} image. <|box_start|>({x1:.12f},{y1:.12f}),({x2:.12f},{y2:.12f})<|box_end|>"


def told_in_json(record: Record, box: tuple[float, ...], image: int | None, space: str) -> str:
    """The same as a model would write it in JSON, in the numbers of its space; without an image where it is None."""
    width, height = generate(record, "").input_sizes[record.target if image is None else image]
    across, down = (width, height) if space == "absolute" else (1000, 1000)
    entry = {"bbox_2d": [box[0] * across, box[1] * down, box[2] * across, box[3] * down], "label": "it"}
    entry |= {} if image is None else {"image": image + 1}
    return f"<think>Image 1 shows it.</think>\n```json\n{json.dumps([entry])}\n```"


# What the records say, read a second time without the code under test.


def oracle_ground_truth(row: dict) -> tuple[float, ...]:
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in row["answer"])
    (x1, x2), (y1, y2) = sorted((left, right)), sorted((top, bottom))
    return x1, y1, x2, y2


def oracle_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(area) - width * height)


def oracle_answer(text: str) -> tuple[tuple[float, ...] | None, int | None]:
    """(box in 0-1, image counted from 1) of a canonical answer to what was asked as published."""
    numbers = re.findall(r"\d+\.\d+", text)
    words = [word for word in ("first", "second", "third", "fourth", "fifth", "sixth") if word in text]
    image = ("first", "second", "third", "fourth", "fifth", "sixth").index(words[0]) + 1 if words else None
    return (tuple(float(n) / 1000 for n in numbers) if len(numbers) == 4 else None), image


def variants(ground_truth: tuple[float, ...], target: int, images: int) -> list[tuple[tuple[float, ...], int]]:
    """(box, image) of answers good and bad."""
    x1, y1, x2, y2 = ground_truth
    wrong = (target + 1) % images
    return [
        (ground_truth, target),
        (ground_truth, wrong),
        ((x1 + 0.04, y1, x2, y2), target),
        ((x1, y1, x2 * 0.8 + x1 * 0.2, y2 * 0.7 + y1 * 0.3), wrong),
        ((x1, y1, x2, y2 * 0.7 + y1 * 0.3), target),
        ((x1, y1, x1 + 0.01, y1 + 0.01), target),
    ]


def test_the_fixture_has_every_task_twice_and_both_defects():
    tasks = [row["task"] for row, _ in CASES]
    assert set(tasks) == set(mig_bench.TASKS) and all(tasks.count(task) >= 2 for task in tasks)
    assert len(mig_bench.TASKS) == 10
    counts = mig_bench.count_defects(RECORDS)
    assert counts == DefectCounts(n=len(CASES), inverted=INVERTED, clipped=CLIPPED, empty=0)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_target_and_ground_truth_are_those_that_the_record_means(index):
    row, target = CASES[index]
    assert RECORDS[index].target == target
    assert RECORDS[index].ground_truth.as_tuple() == pytest.approx(oracle_ground_truth(row))
    x1, y1, x2, y2 = row["answer"]
    assert RECORDS[index].inverted == (x1 > x2 or y1 > y2)
    assert RECORDS[index].clipped == (min(row["answer"]) < 0 or max(row["answer"]) > 1)


@pytest.mark.parametrize("index", range(len(CASES)))
def test_scores_agree_with_an_independent_computation(index):
    record, (row, target) = RECORDS[index], CASES[index]
    ground_truth = oracle_ground_truth(row)
    said = [told(*variant) for variant in variants(ground_truth, target, len(record.images))]
    for text in (*said, "I cannot tell.", ""):
        box, image = oracle_answer(text)
        expected = 0.0 if box is None else oracle_iou(box, ground_truth)
        found = score(record, text)
        assert found.task == row["task"]
        assert found.iou == pytest.approx(expected, abs=1e-9)
        levels = {f"iou_0{level}": float(found.iou >= level / 10) for level in (3, 5, 7)}
        assert found.metrics().items() >= levels.items() and found.metrics()["mean_iou"] == found.iou
        if image is None:  # the published prompt does not ask for it
            assert found.image_accuracy is None and "iou_on_named_image" not in found.metrics()
        else:
            right = image - 1 == target
            assert found.image_accuracy == float(right)
            assert found.iou_on_named_image == pytest.approx(expected if right else 0.0, abs=1e-9)
        assert (found.rejection is None) == (box is not None)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("index", range(len(CASES)))
def test_scores_of_answers_in_json_agree_with_an_independent_computation(index, space):
    record, (row, target) = RECORDS[index], CASES[index]
    ground_truth = oracle_ground_truth(row)
    for box, image in variants(ground_truth, target, len(record.images)):
        found = score_played(record, generate(record, told_in_json(record, box, image, space), space))
        right = image == target
        assert found.iou == pytest.approx(oracle_iou(box, ground_truth) if right else 0.0, abs=1e-6)
        assert (found.image_accuracy, found.named) == (float(right), image)
        assert found.box is not None and found.box.as_tuple() == pytest.approx(box, abs=1e-6)
        levels = {f"iou_0{level}": float(found.iou >= level / 10) for level in (3, 5, 7)}
        assert found.metrics() == levels | {
            "mean_iou": found.iou, "iou_on_named_image": found.iou, "image_accuracy": float(right)
        }  # fmt: skip
    for text in ("I cannot tell.", "", told_in_json(record, ground_truth, None, space), told(ground_truth, target)):
        found = score_played(record, generate(record, text, space))
        assert (found.iou, found.image_accuracy, found.box) == (0.0, 0.0, None) and found.rejection


@given(index=st.integers(0, len(CASES) - 1), data=st.data())
def test_a_perfect_answer_scores_one_for_every_task(index, data):
    record = RECORDS[index]
    corners = st.floats(0, 1, allow_subnormal=False)
    x1, x2 = sorted(data.draw(st.tuples(corners, corners).filter(lambda c: abs(c[0] - c[1]) > 0.01)))
    y1, y2 = sorted(data.draw(st.tuples(corners, corners).filter(lambda c: abs(c[0] - c[1]) > 0.01)))
    record = replace(record, ground_truth=replace(record.ground_truth, x1=x1, y1=y1, x2=x2, y2=y2))
    found = score(record, told((x1, y1, x2, y2), record.target))
    assert found.iou == pytest.approx(1.0, abs=1e-6)
    assert all(value == pytest.approx(1.0, abs=1e-6) for value in found.metrics().values())
    assert len(found.metrics()) == len(mig_bench.METRICS)


def test_thresholds_include_their_own_value():
    record = replace(RECORDS[10], ground_truth=replace(RECORDS[10].ground_truth, x1=0, y1=0, x2=1, y2=1))
    for share, levels in ((300, (1, 0, 0)), (500, (1, 1, 0)), (700, (1, 1, 1)), (299, (0, 0, 0))):
        found = score(record, f"(0,0),(1000,{share})").metrics()
        assert tuple(found[name] for name in ("iou_03", "iou_05", "iou_07")) == levels


def test_a_wrong_image_lowers_only_the_stricter_published_score():
    record = RECORDS[2]  # the first of four images
    box = record.ground_truth.as_tuple()
    unsaid = told(box, 0).removeprefix("It's in the first image. ")
    scores = [score(record, text) for text in (told(box, 0), told(box, 2), unsaid)]
    assert [s.iou for s in scores] == pytest.approx([1.0, 1.0, 1.0])
    assert [s.named for s in scores] == [0, 2, None]
    assert [s.image_accuracy for s in scores] == [1.0, 0.0, None]
    assert [s.iou_on_named_image for s in scores] == [scores[0].iou, 0.0, None]


def test_a_record_of_one_image_is_answered_without_naming_it():
    record = replace(RECORDS[0], images=("a.png",))
    found = score_played(
        record, generate(record, told_in_json(record, record.ground_truth.as_tuple(), None, "absolute"))
    )
    assert found.iou == pytest.approx(1.0) and "image_accuracy" not in found.metrics()


@given(st.text(alphabet="([{}]),:<|>0123456789.- \n\"'imagebox_2dfrst", max_size=80))
def test_no_answer_makes_the_scoring_fail(text):
    for found in (score(RECORDS[6], text), score_played(RECORDS[6], generate(RECORDS[6], text))):
        assert 0 <= found.iou <= 1 and (found.box is not None or found.rejection)


def test_means_per_task_macro_and_micro_are_those_of_the_scores():
    ious = {"region": [0.0, 0.4, 0.6, 0.8], "diff": [1.0], "reasoning": [0.3, 0.7]}
    named = {"region": [1.0, 0.0, None, None], "diff": [None], "reasoning": [1.0, 1.0]}
    scores = [
        Score(task, iou, image_accuracy=right, rejection=None if iou else "no_json")
        for task in ious
        for iou, right in zip(ious[task], named[task], strict=True)
    ]
    found = mig_bench.aggregate(scores)
    assert list(found["tasks"]) == ["region", "diff", "reasoning"]
    for task, values in ious.items():
        means = found["tasks"][task]
        assert means["n"] == len(values)
        assert means["mean_iou"] == pytest.approx(sum(values) / len(values))
        for name, least in (("iou_03", 0.3), ("iou_05", 0.5), ("iou_07", 0.7)):
            passed = [float(value >= least) for value in values]
            assert means[name] == sum(passed) / len(values)
            assert means["intervals"][name] == list(interval(passed))
    assert found["macro"]["mean_iou"] == pytest.approx((0.45 + 1.0 + 0.5) / 3)
    assert found["macro"]["iou_05"] == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert found["macro"]["tasks"] == 3 and len(found["missing"]) == 7 and "multi_view" in found["missing"]
    assert found["micro"]["mean_iou"] == pytest.approx(3.8 / 7) and found["micro"]["n"] == 7
    # naming an image is not defined for every answer: the counts say for how many
    assert "image_accuracy" not in found["tasks"]["diff"]
    assert found["tasks"]["region"]["counts"]["image_accuracy"] == 2
    assert found["tasks"]["region"]["image_accuracy"] == 0.5
    assert found["macro"]["image_accuracy"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["micro"]["iou_on_named_image"] == pytest.approx((0.0 + 0.0 + 0.3 + 0.7) / 4)
    assert found["rejections"] == {"no_json": 1}


def test_the_macro_interval_is_that_of_a_mean_of_independent_means():
    scores = [Score(task, float(i % 4 > 0)) for task in mig_bench.TASKS for i in range(400)]
    found = mig_bench.aggregate(scores)
    low, high = found["macro"]["intervals"]["mean_iou"]
    # ten tasks of 400: as wide as 4,000 records, since all have the same variance
    assert (low, high) == pytest.approx(tuple(found["micro"]["intervals"]["mean_iou"]), abs=1e-3)
    assert low < 0.75 < high and not found["missing"]


def test_nothing_to_aggregate_gives_no_means():
    found = mig_bench.aggregate([])
    assert found["micro"]["n"] == found["macro"]["tasks"] == 0 and "mean_iou" not in found["macro"]
