"""Dynamic sampling (DAPO, arXiv 2503.14476): groups that teach nothing give their place to fresh samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def zero_variance_groups(rewards: Sequence[float], group_size: int) -> list[int]:
    """Indices of the groups whose rewards (B,) are all equal; neighbours form a group of `group_size`."""
    values = np.asarray(rewards, dtype=np.float64).reshape(-1, group_size)
    return [int(index) for index in np.flatnonzero(np.ptp(values, axis=1) < 1e-8)]


def resample(count: int, available: int, taken: Sequence[int], *seed: int) -> list[int]:
    """`count` sample indices below `available`, drawn without those already `taken` while there are others.

    A pure function of its arguments, so that every process draws the same.
    """
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(available), np.asarray(taken, dtype=np.int64))
    drawn = rng.permutation(others)[:count]
    missing = count - len(drawn)
    return [int(i) for i in drawn] + [int(i) for i in rng.integers(available, size=missing)]
