"""Whether two runs differ on the samples that both were asked: paired differences, their intervals, their p-values.

Where samples repeat a question, questions are what is drawn: they are swapped as wholes and counted as such.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mgpo_core.episodes.intervals import Clusters, design_effect, mean_interval

__all__ = ["PairedDifference", "compare_paired", "mcnemar", "paired_permutation", "paired_proportion_interval"]

MCNEMAR = "McNemar, exact"
PERMUTATION = "sign permutation"
BY_QUESTION = "sign permutation by question"

RESAMPLES = 9_999
"How often all signs are drawn where trying every combination takes longer; the smallest p-value is then 0.0002."

_MOST_SIGNS = 20_000_000
"Beyond this many signs in all (2,000 pairs) they are drawn less often, so that a test takes a second or two."

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class PairedDifference:
    """One score of two runs over the samples for which both have it."""

    n: int
    mean_a: float
    mean_b: float
    interval: tuple[float, float] | None
    "95% interval of `difference`; None for one pair of values that are not 0 or 1."
    p: float
    "Two-sided p-value of no difference."
    test: str
    table: tuple[int, int, int, int] | None = None
    "Samples with (1 in both, 1 only in A, 1 only in B, 0 in both); None unless every value is 0 or 1."
    questions: int | None = None
    "How many questions the samples ask, where they repeat some; None where each asks its own."

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.mean_b - self.mean_a


def compare_paired(a: Sequence[float], b: Sequence[float], clusters: Clusters = None) -> PairedDifference:
    """Compare two runs' values of the same samples, in the same order; ValueError without any or unless as many.

    Values that are all 0 or 1 get McNemar's exact test and Bonett and Price's interval; any others a permutation test
    of the signs of the differences and the normal interval of their mean. Where `clusters` say that samples repeat a
    question, the test permutes the signs of the questions' sums of differences, and the interval is taken at the
    effective sample size of the differences; the difference itself stays the mean over samples.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired: it takes as many of both, at least one")
    n, mean_a, mean_b = len(a), math.fsum(a) / len(a), math.fsum(b) / len(b)
    differences = [y - x for x, y in zip(a, b, strict=True)]
    sums = _sums(differences, clusters)
    effect = design_effect(differences, clusters)
    table = None
    interval: tuple[float, float] | None
    if all(value in (0.0, 1.0) for value in (*a, *b)):
        cells = [sum(pair == cell for pair in zip(a, b, strict=True)) for cell in ((1, 1), (1, 0), (0, 1), (0, 0))]
        both, only_a, only_b, neither = cells
        table = both, only_a, only_b, neither
        interval = paired_proportion_interval(only_a / effect, only_b / effect, n / effect)
        if len(sums) == n:
            return PairedDifference(n, mean_a, mean_b, interval, mcnemar(only_a, only_b), MCNEMAR, table)
    else:
        interval = mean_interval(differences, clusters) if n > 1 else None
    p = paired_permutation([0.0] * len(sums), sums)
    if len(sums) == n:
        return PairedDifference(n, mean_a, mean_b, interval, p, PERMUTATION)
    return PairedDifference(n, mean_a, mean_b, interval, p, BY_QUESTION, table, len(sums))


def _sums(differences: Sequence[float], clusters: Clusters) -> list[float]:
    """The differences, those of one question added up."""
    members: dict[Hashable, list[float]] = {}
    for difference, key in zip(differences, range(len(differences)) if clusters is None else clusters, strict=True):
        members.setdefault(key, []).append(difference)
    return [math.fsum(values) for values in members.values()]


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that a sample which one run alone has right is as likely to be A's as B's."""
    if only_a + only_b == 0:
        return 1.0
    from scipy.stats import binomtest  # type: ignore[import-untyped]  # takes seconds

    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_proportion_interval(only_a: float, only_b: float, n: float) -> tuple[float, float]:
    """95% interval of the difference B - A of two paired proportions over n > 0 samples, counted or effective.

    Bonett and Price's adjusted Wald interval (2012), which Fagerland, Lydersen and Laake (2014) recommend: unlike the
    plain one it keeps a width where no sample, or every one, changed.
    """
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = share_b - share_a
    half = _Z95 * math.sqrt((share_a + share_b - centre * centre) / (n + 2))
    return max(-1.0, centre - half), min(1.0, centre + half)


def paired_permutation(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of the mean difference when every pair may be swapped; exact for up to 13 pairs that differ.

    Equal pairs are left out: swapping them changes nothing. Beyond 13 pairs, swaps are drawn at random with the seed:
    `RESAMPLES` times, fewer for more than 2,000 pairs, never less than 999 times.
    """
    differences = np.asarray(b, dtype=float) - np.asarray(a, dtype=float)
    differences = differences[differences != 0]
    if len(differences) < 2:  # one pair, either way round, is as extreme as the other
        return 1.0
    from scipy.stats import permutation_test

    result = permutation_test(
        (differences,),
        lambda values, axis: np.sum(values, axis=axis).round(9),  # swaps that come to the same sum must tie with it
        permutation_type="samples",
        vectorized=True,
        n_resamples=min(RESAMPLES, max(999, _MOST_SIGNS // len(differences))),
        batch=max(1, 2_000_000 // len(differences)),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)
