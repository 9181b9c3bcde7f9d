"""How long the tests wait, in one place. A limit ends what hangs, never what is slow: a slower machine takes longer."""

from __future__ import annotations

import time
from collections.abc import Callable

HANG = 1800.0
"""Seconds after which a process, a request or a thread that a test waits for counts as hung.

pytest's own limit, `timeout` in pyproject.toml, is longer: it covers a test with its fixtures, and says less.
"""

PAGE = 120_000.0
"""Milliseconds after which the demo's page counts as hung; an expectation that fails takes as long to fail."""


def cpu_seconds(work: Callable[[], object], rounds: int = 1) -> float:
    """CPU seconds of this process for `work`, the least of some rounds: waiting for a busy machine does not count."""

    def once() -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    return min(once() for _ in range(rounds))
