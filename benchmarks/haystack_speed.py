"""How fast haystack samples are made and drawn on one core: samples per second, the median of several rounds.

uv run benchmarks/haystack_speed.py --n 100 --rounds 7
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence

from mgpo_core import haystack


def seconds_of_round(split: str, n: int, seed: int) -> float:
    """Seconds to make `n` samples and draw their images in full size."""
    start = time.perf_counter()
    for sample in haystack.make(split, n=n, seed=seed):
        sample.load()
    return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the median rate and its range for each split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=100, help="samples per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, each with its own seed (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.n < 1 or options.rounds < 1:
        parser.error("--n and --rounds must be at least 1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, whatever the libraries would start
    for split in ("val", "ood"):
        seconds_of_round(split, 2, seed=0)  # the background is drawn once per process
        rates = [options.n / seconds_of_round(split, options.n, seed) for seed in range(1, options.rounds + 1)]
        side = haystack.make(split, n=1)[0].load().width
        print(
            f"{split:4}{side:5} px: {statistics.median(rates):6.0f} samples/s "
            f"({min(rates):.0f} to {max(rates):.0f} over {options.rounds} rounds of {options.n}, one core)"
        )


if __name__ == "__main__":
    main()
