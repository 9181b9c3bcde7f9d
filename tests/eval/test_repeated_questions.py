"""HR-Bench asks each question in four rotations: intervals, errors and tests go by question, in scores and reports."""

from __future__ import annotations

import base64
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from report_fixture import CHOICES, Logged, hrbench, rotated, vstar
from report_reader import FIRST, SECOND, one_task, report

from mgpo_core.episodes.intervals import design_effect, interval, mean_interval, wilson_interval
from mgpo_core.runs.evaluation_runs import read_runs
from mgpo_core.runs.sample_log import clusters_of
from mgpo_eval.report.significance import (
    MCNEMAR,
    compare_paired,
    mcnemar,
    paired_permutation,
    paired_proportion_interval,
)
from mgpo_eval.tasks import scoring


def row(question: int, rotation: int, /, **changed: Any) -> dict[str, Any]:
    """A row of HR-Bench; the right choice is the first of the unrotated ones."""
    turned = [*CHOICES[rotation:], *CHOICES[:rotation]]
    return {
        "index": question * 4 + rotation,
        "question": f"What colour is mark {question}?",
        "image": base64.b64encode(b"image %d" % (question // 2)).decode(),
        **dict(zip("ABCD", turned, strict=True)),
        "answer": "ABCD"[-rotation % 4],
        "category": ("single", "cross")[question % 2],
        "cycle_category": str(rotation),
    } | changed


def scored(rows: list[dict[str, Any]], right: Any) -> list[dict[str, Any]]:
    return [scoring.score(r, [r["answer"] if right(r) else "Z"]) for r in rows]


def column(found: list[dict[str, Any]], name: str) -> list[Any]:
    return [metrics[name] for metrics in found if name in metrics]


ROWS = [row(question, rotation) for question in range(200) for rotation in range(4)]


def ends(found: list[dict[str, Any]]) -> tuple[float, float]:
    return scoring.low(column(found, "accuracy_low")), scoring.high(column(found, "accuracy_high"))


@pytest.mark.parametrize("order", ["as published", "shuffled", "by rotation"])
def test_hr_bench_is_scored_by_question_in_any_order(order: str) -> None:
    rows = list(ROWS)
    if order == "shuffled":
        random.Random(0).shuffle(rows)
    elif order == "by rotation":
        rows.sort(key=lambda r: r["cycle_category"])
    found = scored(rows, lambda r: r["index"] < 600)
    assert scoring.mean(column(found, "accuracy")) == 0.75
    assert ends(found) == wilson_interval(150, 200) == pytest.approx((0.686, 0.805), abs=5e-4)
    half = (ends(found)[1] - ends(found)[0]) / 2
    assert 1.96 * scoring.stderr(column(found, "accuracy")) == pytest.approx(half, rel=0.02)
    single = column(found, "accuracy/single")
    assert len(single) == 400 and interval(*scoring._columns(single)) == wilson_interval(75, 100)


def test_rows_that_are_right_at_random_are_nearly_independent() -> None:
    chance = random.Random(1)
    lucky = {r["index"]: chance.random() < 0.75 for r in ROWS}
    found = scored(ROWS, lambda r: lucky[r["index"]])
    assert ends(found) == pytest.approx(interval([float(lucky[r["index"]]) for r in ROWS]), abs=0.006)


@pytest.mark.parametrize("limit", [1, 6, 398])
def test_a_limit_cuts_questions_and_the_rest_still_goes_together(limit: int) -> None:
    found = scored(ROWS[:limit], lambda r: True)
    questions = [r["question"] for r in ROWS[:limit]]
    assert ends(found) == interval([1.0] * limit, questions)
    assert scoring.total(column(found, "skipped")) == 0.0


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"index": 99, "cycle_category": "x"}, True),
        ({"question": " what COLOUR is  mark 0? "}, True),
        ({"question": "What shape is mark 0?"}, False),
        ({"image": base64.b64encode(b"another").decode()}, False),
        ({"image": {"bytes": b"another", "path": None}}, False),
    ],
)
def test_a_question_is_its_words_and_its_image(changed: dict[str, Any], same: bool) -> None:
    first, second = (scoring.score(r, ["A"])["accuracy"]["cluster"] for r in (row(0, 0), row(0, 1, **changed)))
    assert (first == second) is same


def test_an_image_that_lmms_eval_took_away_leaves_words_and_choices() -> None:
    bare = [{name: value for name, value in r.items() if name != "image"} for r in (row(0, 0), row(0, 3), row(1, 0))]
    first, turned, other = (scoring.score(r, ["A"])["accuracy"]["cluster"] for r in bare)
    assert first == turned != other


def log(run_id: str, right: Any, questions: int = 20) -> list[Logged]:
    """A log of the stock `hrbench4k`, which names neither questions nor images."""
    return [
        hrbench(
            question * 4 + turn,
            right(question, turn),
            ("single", "cross")[question % 2],
            cycle=str(turn),
            asked=rotated(f"What colour is mark {question}?", turn),
            run_id=run_id,
            single_turn=True,
            image=Image.new("RGB", (56, 56)),
        )
        for question in range(questions)
        for turn in range(4)
    ]


def cells(page: Any, kind: str, name: str) -> list[str]:
    head, *rows = page.table(kind)
    place = next(i for i, cell in enumerate(head) if cell.replace(" ◆", "") == name)
    return [r[place] for r in rows]


def test_a_report_takes_the_rotations_of_the_stock_task_together(tmp_path: Path) -> None:
    folder = one_task(tmp_path, log(FIRST, lambda question, turn: question % 4 > 0), task="hrbench4k")
    page = report(folder, tmp_path)
    low, high = wilson_interval(15, 20)
    assert cells(page, "scores", "average")[0] == f"0.750 {low:.3f} to {high:.3f}"
    assert page.table("scores")[1][:2] == ["all", "80 20 questions"]


def test_two_runs_are_compared_by_question(tmp_path: Path) -> None:
    a = one_task(tmp_path / "a", log(FIRST, lambda question, turn: question >= 8), task="hrbench4k")
    b = one_task(tmp_path / "b", log(SECOND, lambda question, turn: question >= 1), task="hrbench4k", run_id=SECOND)
    head, line, *_ = report([a, b], tmp_path).table("differences")
    found = dict(zip(head, line, strict=True))
    assert found["n"] == "80 20 questions" and found["B − A"] == "+0.350"
    assert found["Test"] == "sign permutation by question"
    low, high = paired_proportion_interval(0, 7, 20)
    assert found["95%"].replace("−", "-") == f"{low:+.3f} to {high:+.3f}"
    assert found["p"] == f"{mcnemar(0, 7):.3f}"  # 7 questions that only B has right; of rows it would be < 0.001


def test_the_same_words_about_other_images_are_other_questions(tmp_path: Path) -> None:
    twice = log(FIRST, lambda question, turn: True, questions=2)
    for sample in twice:
        sample.asked = rotated("What colour is the mark?", sample.doc_id % 4)
    [run] = read_runs([one_task(tmp_path, twice, task="hrbench4k")])
    clusters = clusters_of(list(run.tasks["hrbench4k"].samples.values()))
    assert clusters is not None and [clusters.count(key) for key in clusters] == [4] * 8
    assert clusters[0] == clusters[3] != clusters[4]


def test_tasks_that_repeat_nothing_keep_their_rows(tmp_path: Path) -> None:
    samples = [vstar(i, i % 3 > 0, run_id=FIRST) for i in range(6)]
    for sample in samples:
        sample.asked = rotated("What colour is the mark?", 0)
    [run] = read_runs([one_task(tmp_path, samples, task="vstar_bench")])
    assert clusters_of(list(run.tasks["vstar_bench"].samples.values())) is None
    one_each = compare_paired([1.0, 0.0, 1.0], [0.0, 1.0, 1.0], ["p", "q", "r"])
    assert one_each == compare_paired([1.0, 0.0, 1.0], [0.0, 1.0, 1.0]) and one_each.test == MCNEMAR


pairs = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]), st.integers(0, 6)), min_size=2, max_size=24
)


@given(pairs)
def test_questions_are_swapped_as_wholes_and_rows_weigh_the_same(rows: list[tuple[float, float, int]]) -> None:
    a, b, keys = [x for x, _, _ in rows], [y for _, y, _ in rows], [key for _, _, key in rows]
    found = compare_paired(a, b, keys)
    assert found.difference == pytest.approx(sum(y - x for x, y, _ in rows) / len(rows))
    swapped = compare_paired(b, a, keys)
    assert (swapped.p, swapped.table[1:3]) == (pytest.approx(found.p), found.table[2:0:-1])
    assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]))
    if len(set(keys)) == len(rows):
        assert found.questions is None
        return
    sums = [sum(y - x for x, y, k in rows if k == key) for key in dict.fromkeys(keys)]
    assert found.questions == len(sums)
    assert found.p == pytest.approx(paired_permutation([0.0] * len(sums), sums))
    effect = design_effect([y - x for x, y, _ in rows], keys)
    only_a, only_b = found.table[1] / effect, found.table[2] / effect
    assert found.interval == pytest.approx(paired_proportion_interval(only_a, only_b, len(rows) / effect))


def test_graded_scores_are_compared_by_question_too() -> None:
    a, b, keys = [0.1, 0.2, 0.5, 0.4], [0.3, 0.4, 0.4, 0.3], list("ppqq")
    found = compare_paired(a, b, keys)
    assert found.table is None and found.questions == 2 and found.p == 1.0
    assert found.interval == mean_interval([y - x for x, y in zip(a, b, strict=True)], keys)


def test_the_paired_test_by_question_keeps_its_level() -> None:
    """Under no difference, rotations alike: by rows far more than 1 in 20 tests would find one."""
    chance, by_question, by_row = random.Random(3), 0, 0
    keys = [question for question in range(8) for _ in range(4)]
    for _ in range(60):
        kinds = {question: chance.choice([(0.0, 1.0), (1.0, 0.0)]) for question in range(8)}
        a, b = [kinds[key][0] for key in keys], [kinds[key][1] for key in keys]
        by_question += compare_paired(a, b, keys).p < 0.05
        by_row += compare_paired(a, b).p < 0.05
    assert by_question <= 6 and by_row > 12
