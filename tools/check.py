"""Run every check of the repository: lint, format, types, tests with the slow ones. Fails when one of them fails.

uv run tools/check.py              everything, as in CI
uv run tools/check.py --quick      without the slow and packaging tests
uv run tools/check.py -k boxes     further arguments go to pytest
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LINT = ["ruff", "check", "."]
FORMAT = ["ruff", "format", "--check", "."]
TYPES = ["mypy"]
# One process per core, and a file stays in one process, so that what a file prepares once is prepared once.
# Files are handed out in the order of tests/conftest.py, the longest first, not by their number of tests.
TESTS = ["pytest", "-n", "logical", "--maxprocesses", "8", "--dist", "loadfile", "--no-loadscope-reorder"]
TESTS += ["--durations", "15"]
# An empty expression undoes the default selection; tests that need a GPU skip themselves where there is none.
ALL_TESTS = [*TESTS, "-m", ""]


def run(command: list[str]) -> tuple[str, float, float]:
    """Run `python -m command` in the repository root and return ("ok" or "FAILED", seconds, seconds of CPU time)."""
    print(f"\n$ {' '.join(argument or repr(argument) for argument in command)}", flush=True)
    # One thread per process: on few cores the processes would otherwise fight over them.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    start, before = time.monotonic(), cpu_seconds()
    status = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=False).returncode
    return "ok" if status == 0 else "FAILED", time.monotonic() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    """User and system time of all commands so far, with the processes that they started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str]) -> int:
    """Run the checks one after the other, all of them even when one fails, and return the exit status."""
    quick = "--quick" in arguments
    tests = [*(TESTS if quick else ALL_TESTS), *(argument for argument in arguments if argument != "--quick")]
    results = [(command, *run(command)) for command in (LINT, FORMAT, TYPES, tests)]
    print()
    for command, outcome, seconds, cpu in results:
        name = f"{command[0]:8}{command[1] if command[0] == 'ruff' else '':8}"
        print(f"{name}{outcome:8}{seconds:7.1f} s{cpu:8.1f} s of CPU time")
    return int(any(outcome != "ok" for _, outcome, _, _ in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
