"""`mgpo-demo` in a process of its own, and what it says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import warm_start
from patience import HANG

ENDING = 30.0
"""Seconds that a demo which was asked to end has for it; then it is killed."""


@dataclass
class Demo:
    """A running server."""

    process: BaseProcess
    log: Path

    def send_signal(self, sign: int) -> None:
        if self.process.is_alive():
            assert self.process.pid is not None
            os.kill(self.process.pid, sign)

    def wait(self, timeout: float) -> int:
        """Its exit status, as soon as it has one; TimeoutExpired after `timeout` seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("mgpo-demo", timeout)
        return self.process.exitcode

    @property
    def written(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, pattern: str) -> str:
        """The first group of what it writes, as soon as it does; AssertionError if it ends without."""
        deadline = time.monotonic() + HANG
        while (found := re.search(pattern, self.written, re.MULTILINE)) is None:
            assert self.process.is_alive() and time.monotonic() < deadline, self.written[-4000:]
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
def demo(*arguments: str, command: Sequence[str] = ("-m", "mgpo_demo"), **more: str) -> Iterator[Demo]:
    """The demo with these options on any free port, asked to end at the end; `more` is put into its environment."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        started = Demo(warm_start.start([*command, "--port", "0", *arguments], log, **more), log)
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(ENDING)
            except subprocess.TimeoutExpired:
                warm_start.kill_group(started.process)
