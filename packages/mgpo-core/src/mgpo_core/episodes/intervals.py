"""95% intervals of means and shares, also where rows repeat one question.

Rows that repeat one question (HR-Bench asks each four times, with the choices rotated) are no independent draws of
questions. Given the `clusters` that rows belong to, intervals and standard errors count questions: the variance of the
mean is that of independent rows times the design effect (Kish 1965; for Wilson's interval, the effective sample size of
Korn and Graubard 1998 and Franco et al. 2019). Without clusters, or with one row in each, every row is a draw.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

_Z95 = 1.959963984540054
"Standard normal quantile of a two-sided 95% interval."


Clusters = Sequence[Hashable] | None
"What each value is a repetition of, in the order of the values; None: every value is a draw of its own."


def interval(values: Sequence[float], clusters: Clusters = None) -> tuple[float, float]:
    """95% interval of the mean of values in 0-1: Wilson's when all are 0 or 1 or there is only one, else normal.

    With `clusters`, Wilson's is taken at the effective sample size, `len(values) / design_effect(values, clusters)`.
    """
    if len(values) < 2 or all(value in (0.0, 1.0) for value in values):
        effect = design_effect(values, clusters)
        return wilson_interval(math.fsum(values) / effect, len(values) / effect)
    low, high = mean_interval(values, clusters)
    return max(0.0, low), min(1.0, high)


def design_effect(values: Sequence[float], clusters: Clusters) -> float:
    """The variance of the mean over what it would be if all values were independent draws.

    It is estimated from the data, between 1 (no cluster is more alike than chance; also without clusters) and what
    clusters of equal values give, `sum(size ** 2) / len(values)`: their size, where all have the same. The latter is
    assumed where the values are all equal, which tells nothing of how alike clusters are. ValueError unless there are
    as many clusters as values.
    """
    if clusters is None:
        return 1.0
    n, mean = len(values), math.fsum(values) / max(1, len(values))
    members: dict[Hashable, list[float]] = {}
    for value, key in zip(values, clusters, strict=True):
        members.setdefault(key, []).append(value - mean)
    most = sum(len(deviations) ** 2 for deviations in members.values()) / max(1, n)
    if len(members) == n:
        return 1.0
    spread = math.fsum(deviation**2 for deviations in members.values() for deviation in deviations)
    if len(members) == 1 or len(set(values)) == 1:
        return most
    between = math.fsum(math.fsum(deviations) ** 2 for deviations in members.values())
    few = len(members) / (len(members) - 1) * (n - 1) / n
    return min(most, max(1.0, few * between / spread))


def standard_error(values: Sequence[float], clusters: Clusters = None) -> float:
    """Standard error of the mean of at least two values (unbiased variance), by cluster; ValueError for fewer."""
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} value(s): an interval of the mean needs at least two")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return math.sqrt(design_effect(values, clusters) * variance / n)


def wilson_interval(k: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval for k successes in n trials, counted or effective; (0, 1) for no trials.

    ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials: needs 0 <= k <= n")
    if n == 0:
        return 0.0, 1.0
    share, z2 = k / n, _Z95 * _Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def mean_interval(values: Sequence[float], clusters: Clusters = None) -> tuple[float, float]:
    """Normal 95% interval of the mean of at least two values, by cluster; ValueError for fewer."""
    half = _Z95 * standard_error(values, clusters)
    mean = math.fsum(values) / len(values)
    return mean - half, mean + half
