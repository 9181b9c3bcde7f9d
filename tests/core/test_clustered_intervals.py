"""Intervals by question: against Wilson's at the number of questions, a brute-force estimator, and their coverage."""

from __future__ import annotations

import math
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mgpo_core import Sample, Trajectory
from mgpo_core.episodes.intervals import design_effect, interval, mean_interval, standard_error, wilson_interval
from mgpo_core.episodes.metrics import aggregate
from mgpo_core.episodes.trajectory import Turn
from mgpo_core.runs.logged_scores import score_interval
from mgpo_core.samples.repeated_questions import cluster_samples, question_key

BY_QUESTION = [question for question in range(200) for _ in range(4)]
ALIKE = [float(question < 150) for question in BY_QUESTION]
"200 questions in four rotations each, all four right or all four wrong."

rows = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 5)), min_size=2, max_size=30)


def test_rotations_that_agree_count_as_one_question_each():
    assert interval(ALIKE, BY_QUESTION) == wilson_interval(150, 200) == pytest.approx((0.686, 0.805), abs=5e-4)
    assert interval(ALIKE) == wilson_interval(600, 800) == pytest.approx((0.719, 0.779), abs=5e-4)


def test_rotations_that_tell_nothing_of_each_other_count_as_rows(rng):
    values = rng.permutation(ALIKE).tolist()
    assert interval(values, BY_QUESTION) == pytest.approx(interval(values), abs=0.006)


@pytest.mark.parametrize("clusters", [None, list(range(800)), [f"row {i}" for i in range(800)]])
def test_without_repeats_nothing_changes(clusters):
    assert interval(ALIKE, clusters) == wilson_interval(600, 800)
    halves = [value / 2 for value in ALIKE]
    assert interval(halves, clusters) == interval(halves)
    assert mean_interval(halves, clusters) == mean_interval(halves)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_right_or_all_wrong_count_as_questions(value):
    assert interval([value] * 800, BY_QUESTION) == wilson_interval(200 * value, 200)


def test_one_question_alone_is_one_draw():
    assert interval([1.0, 0.0, 1.0, 0.0], ["q"] * 4) == wilson_interval(0.5, 1)
    assert interval([1.0], ["q"]) == wilson_interval(1, 1)
    assert interval([], []) == (0.0, 1.0)


def test_as_many_clusters_as_values_are_needed():
    with pytest.raises(ValueError, match="shorter"):
        interval([1.0, 0.0], ["q"])


@given(rows)
def test_the_variance_is_that_of_question_totals(pairs):
    values, clusters = [value for value, _ in pairs], [key for _, key in pairs]
    n, mean = len(values), statistics.fmean(values)
    totals = {key: sum(value - mean for value, k in pairs if k == key) for key in clusters}
    sizes = [clusters.count(key) for key in totals]
    most = sum(size**2 for size in sizes) / n
    effect = design_effect(values, clusters)
    assert 1.0 <= effect <= most + 1e-12
    if max(sizes) == 1:
        assert effect == 1.0
    elif len(totals) == 1 or len(set(values)) == 1:
        assert effect == most
    else:
        variance = len(totals) / (len(totals) - 1) * sum(total**2 for total in totals.values()) / n**2
        assert effect == pytest.approx(min(most, max(1.0, variance / (statistics.variance(values) / n))))
    plain = statistics.stdev(values) / math.sqrt(n)
    assert standard_error(values, clusters) == pytest.approx(plain * math.sqrt(effect))


@given(rows, st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_questions_matter(pairs, random):
    shuffled = [(value, f"q{key}") for value, key in pairs]
    random.shuffle(shuffled)
    found = interval([value for value, _ in shuffled], [key for _, key in shuffled])
    assert found == pytest.approx(interval([value for value, _ in pairs], [key for _, key in pairs]))


def test_scores_beyond_0_to_1_are_clustered_too():
    values = [10.0 * value for value in ALIKE]
    low, high = score_interval(values, BY_QUESTION)
    assert (high - low) / 2 == pytest.approx(1.959964 * 2 * statistics.stdev(values) / math.sqrt(800), rel=1e-6)
    assert score_interval([7.0], ["q"]) is None


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("share", [0.5, 0.75, 0.95])
def test_the_interval_covers_the_share_95_times_in_100(alike, share, rng):
    """`alike` is the correlation of two rotations: with that chance a question's four are one draw, else four."""
    questions, turns, sets = 100, 4, 250
    clusters = [question for question in range(questions) for _ in range(turns)]
    one = rng.random((sets, questions, 1)) < alike
    right = np.where(one, rng.random((sets, questions, 1)) < share, rng.random((sets, questions, turns)) < share)
    found = [interval(row, clusters) for row in right.reshape(sets, -1).astype(float).tolist()]
    covered = statistics.fmean(low <= share <= high for low, high in found)
    assert covered >= 0.91
    if alike == 1.0:
        plain = [interval(row) for row in right.reshape(sets, -1).astype(float).tolist()]
        assert statistics.fmean(low <= share <= high for low, high in plain) < 0.8


def played(right: bool, choices: tuple[str, ...] = ("x", "y")) -> Trajectory:
    return Trajectory(choices=choices, ground_truth="A", turns=[Turn(r"\boxed{A}" if right else r"\boxed{B}")])


def test_trajectories_are_averaged_by_question_where_told():
    trajectories = [played(right) for right in (True, True, False, False, True, True)]
    clusters = ["a", "a", "b", "b", "c", "c"]
    found = aggregate(trajectories, clusters)
    assert found["intervals"]["accuracy"] == list(wilson_interval(2, 3))
    assert found["accuracy"] == aggregate(trajectories)["accuracy"]
    assert aggregate(trajectories)["intervals"]["accuracy"] == list(wilson_interval(4, 6))


def test_a_metric_that_some_trajectories_lack_keeps_its_own_clusters():
    unknown = Trajectory(turns=[Turn(r"\boxed{A}")])
    found = aggregate([unknown, played(True), played(True), unknown, played(False), played(False)], list("aabbcc"))
    assert found["counts"]["accuracy"] == 4
    assert found["intervals"]["accuracy"] == list(interval([1.0, 1.0, 0.0, 0.0], list("abcc")))


def draw(color: str) -> Image.Image:
    return Image.new("RGB", (8, 8), color)


SAME, OTHER = b"one image", b"another image"
RED = partial(draw, "red")


@pytest.mark.parametrize(
    ("first", "second", "repeats"),
    [
        (("What?", SAME, ("x", "y")), ("What?", SAME, ("y", "x")), True),
        (("What?", SAME, ("x", "y")), ("  what? ", SAME, ("y", "x", "z")), True),
        (("What?", SAME, ()), ("What?", OTHER, ()), False),
        (("What?", SAME, ()), ("Where?", SAME, ()), False),
        (("What?", "a.jpg", ()), ("What?", Path("a.jpg"), ()), True),
        (("What?", {"bytes": SAME, "path": "a"}, ()), ("What?", SAME, ()), True),
        (("What?", {"bytes": None, "path": "a.jpg"}, ()), ("What?", "a.jpg", ()), True),
        (("What?", draw("red"), ()), ("What?", draw("red"), ()), True),
        (("What?", draw("red"), ()), ("What?", draw("blue"), ()), False),
        (("What?", RED, ()), ("What?", RED, ()), True),
        (("What?", partial(draw, "red"), ()), ("What?", partial(draw, "blue"), ()), False),
    ],
)
def test_samples_repeat_a_question_when_words_and_images_agree(first, second, repeats):
    samples = [
        Sample.of("Who else?", OTHER),
        *(Sample.of(text, image, choices=choices) for text, image, choices in (first, second)),
    ]
    found = cluster_samples(samples)
    assert (found is not None) is repeats
    if found is not None:
        assert found[1] == found[2] != found[0]


def test_the_key_of_a_question_is_its_content_alone():
    key = question_key("What  colour?", [SAME])
    assert key == question_key("what colour? ", [SAME]) and len(key) == 16
    assert len({key, question_key("What colour?", [OTHER]), question_key("What colour?", [SAME, OTHER])}) == 3
    asked = question_key("What colour?", [], ["red", "green "])
    assert asked == question_key("What colour?", [], ["Green", "red"]) != question_key("What colour?", [], ["red"])
    assert question_key("q", ["ab", "c"]) != question_key("q", ["a", "bc"])
