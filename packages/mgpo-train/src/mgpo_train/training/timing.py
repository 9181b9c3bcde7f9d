"""Where the seconds of a training step go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

from mgpo_train.output.metrics import TIMING


class PhaseClock:
    """Adds up wall-clock seconds by phase until they are taken for the log."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time inside as the phase's; a GPU's queue is waited for at both ends."""
        started = _now()
        try:
            yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + _now() - started

    def take(self) -> dict[str, float]:
        """`time/PHASE` for every phase since the last call."""
        taken = {TIMING + phase: seconds for phase, seconds in self._seconds.items()}
        self._seconds = {}
        return taken


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
