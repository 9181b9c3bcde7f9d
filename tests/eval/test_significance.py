"""Paired tests against enumeration: McNemar, the permutation test, and the coverage of the interval."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mgpo_core.episodes.intervals import mean_interval
from mgpo_eval.report.significance import compare_paired, mcnemar, paired_permutation, paired_proportion_interval

bits = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)


def enumerated_mcnemar(only_a: int, only_b: int) -> Fraction:
    """The chance, over every way to hand the discordant samples to A or B, of one no likelier than what was seen."""
    n = only_a + only_b
    ways = [math.comb(n, k) for k in range(n + 1)]
    return Fraction(sum(way for way in ways if way <= ways[only_a]), 2**n)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (3, 3), (1, 9), (9, 1), (0, 12), (20, 35), (7, 8)])
def test_mcnemar_is_the_share_of_equally_extreme_splits(only_a, only_b):
    assert mcnemar(only_a, only_b) == pytest.approx(float(enumerated_mcnemar(only_a, only_b)), rel=1e-9)


@given(bits)
def test_mcnemar_over_every_assignment_of_the_pairs(pairs):
    discordant = [a - b for a, b in pairs if a != b][:10]
    seen = abs(sum(discordant))
    ways = [abs(sum(signs)) for signs in itertools.product((1, -1), repeat=len(discordant))]
    only_a, only_b = discordant.count(1), discordant.count(-1)
    assert mcnemar(only_a, only_b) == pytest.approx(sum(way >= seen for way in ways) / len(ways))


@given(bits)
def test_binary_scores_get_a_fourfold_table_and_a_difference(pairs):
    a, b = [float(x) for x, _ in pairs], [float(y) for _, y in pairs]
    found = compare_paired(a, b)
    cells = ((1, 1), (1, 0), (0, 1), (0, 0))
    assert found.table == tuple(sum(pair == cell for pair in pairs) for cell in cells)
    assert found.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert found.interval[0] <= found.difference + 1e-12 and found.difference - 1e-12 <= found.interval[1]
    assert found.p == pytest.approx(float(enumerated_mcnemar(found.table[1], found.table[2])))
    swapped = compare_paired(b, a)
    assert swapped.p == pytest.approx(found.p)
    assert swapped.interval == pytest.approx((-found.interval[1], -found.interval[0]))


@pytest.mark.parametrize(("p_a", "p_b"), [(0.1, 0.1), (0.05, 0.2), (0.02, 0.02), (0.3, 0.1)])
@pytest.mark.parametrize("n", [15, 40])
def test_the_interval_of_a_difference_covers_it_95_times_in_100(p_a, p_b, n):
    """Exactly, over every number of samples that A alone and B alone could have right."""
    covered = 0.0
    for only_a, only_b in itertools.product(range(n + 1), repeat=2):
        if only_a + only_b > n:
            continue
        ways = math.comb(n, only_a) * math.comb(n - only_a, only_b)
        chance = ways * p_a**only_a * p_b**only_b * (1 - p_a - p_b) ** (n - only_a - only_b)
        low, high = paired_proportion_interval(only_a, only_b, n)
        covered += chance * (low <= p_b - p_a <= high)
    assert 0.93 <= covered <= 1.0


def test_over_many_samples_the_interval_is_that_of_the_mean_difference():
    differences = [-1.0] * 40 + [1.0] * 140 + [0.0] * 220
    assert paired_proportion_interval(40, 140, 400) == pytest.approx(mean_interval(differences), abs=0.002)


def test_an_interval_keeps_its_width_where_no_sample_changed():
    low, high = paired_proportion_interval(0, 0, 50)
    assert low < -0.03 and high > 0.03
    assert paired_proportion_interval(0, 0, 5_000)[1] < 0.001


values = st.floats(0, 1).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(values, values), min_size=1, max_size=9))
@example([(1.0, 0.0), (0.656, 0.305), (0.82, 0.289), (0.25, 0.094), (0.312, 0.0), (0.406, 0.969), (0.125, 0.875),
          (0.219, 0.984), (0.141, 0.414)])  # fmt: skip
def test_few_pairs_are_permuted_exactly(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    differences = [y - x for x, y in pairs]
    seen = abs(sum(differences))
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    assert paired_permutation(a, b) == pytest.approx(sum(value >= seen - 1e-9 for value in sums) / len(sums))


def test_many_pairs_get_the_same_p_every_time_and_about_that_of_a_normal_mean(rng):
    a = rng.random(400)
    b = a + rng.normal(0.02, 0.2, 400)
    z = np.mean(b - a) / (np.std(b - a, ddof=1) / 20)
    normal = math.erfc(abs(z) / math.sqrt(2))
    assert paired_permutation(a, b) == paired_permutation(a, b)
    assert paired_permutation(a, b) == pytest.approx(normal, abs=0.015)


def test_values_between_0_and_1_get_a_permutation_test_and_no_table():
    found = compare_paired([0.2, 0.4, 0.5, 0.1], [0.3, 0.6, 0.4, 0.7])
    assert found.test == "sign permutation"
    assert found.table is None
    assert found.interval[0] < found.difference < found.interval[1]
    assert compare_paired([0.5], [0.7]).interval is None


def test_equal_runs_do_not_differ():
    assert compare_paired([1.0, 0.0], [1.0, 0.0]).p == 1.0
    assert compare_paired([0.25, 0.5], [0.25, 0.5]).p == 1.0


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0, 0.0])])
def test_what_cannot_be_paired_is_refused(a, b):
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_paired(a, b)
