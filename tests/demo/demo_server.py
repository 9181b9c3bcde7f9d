"""The demo in a process of its own, for tests that want the real thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

STARTING_SECONDS = 180
"""A machine that runs other tests beside it takes its time."""


@contextmanager
def demo_server(*arguments: str, program: Sequence[str] = ("-m", "mgpo_demo")) -> Iterator[str]:
    """Start `python -m mgpo_demo --port 0 ARGUMENTS` (or another `program`) and give its address once it is ready."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, *program, "--port", "0", *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen, log: IO[str]) -> str:
    deadline = time.monotonic() + STARTING_SECONDS
    while True:
        written = os.pread(log.fileno(), 1 << 20, 0).decode("utf-8", "replace")
        page = re.search(r"^page: (\S+)", written, re.MULTILINE)
        if page and re.search(r"\bready: ", written):  # a progress bar may stand before it in its line
            return page.group(1)
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"The demo did not start (status {process.poll()}). It wrote:\n{written[-4000:]}")
        time.sleep(0.2)
