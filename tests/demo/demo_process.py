"""`mgpo-demo` in a process of its own, and what it says."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from patience import HANG

ENDING = 30.0
"""Seconds that a demo which was asked to end has for it; then it is killed."""


@dataclass
class Demo:
    """A running server."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def written(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """The first group of what it writes, as soon as it does; AssertionError if it ends without."""
        deadline = time.monotonic() + HANG
        while (found := re.search(pattern, self.written, re.MULTILINE)) is None:
            assert self.process.poll() is None and time.monotonic() < deadline, self.written[-4000:]
            time.sleep(0.05)
        return found[1]

    @property
    def url(self) -> str:
        """Its address, as soon as it serves."""
        return self.wait_for(r"^page: (\S+)")

    @property
    def ready_url(self) -> str:
        """Its address, as soon as its models are loaded."""
        self.wait_for(r"(\bready): ")  # a progress bar may stand before it in its line
        return self.url


@contextlib.contextmanager
def demo(*arguments: str, command: Sequence[str] = (sys.executable, "-m", "mgpo_demo"), **more: str) -> Iterator[Demo]:
    """The demo with these options on any free port, asked to end at the end; `more` is put into its environment."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"} | more
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--port", "0", *arguments], stdout=file, stderr=subprocess.STDOUT, env=environment
            )
        try:
            yield Demo(process, log)
        finally:
            process.terminate()
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
